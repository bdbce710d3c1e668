"""The sky and the far skyline: one panorama for the whole drive."""

from __future__ import annotations

import cv2
import numpy as np

from .camera import Camera
from .canvas import ByteArray, Canvas
from .chance import chance
from .textures import noise, to_bytes
from .weather import Weather

COLUMNS, ROWS = 1440, 224  # 4 columns to a degree
LOW, HIGH = -0.10, 0.80  # tangents of the elevations of the last and first row


def panorama(seed: int, weather: Weather) -> ByteArray:
    """The far panorama (ROWS, COLUMNS, 3): gradient, clouds, and a skyline at the horizon."""
    rng = chance(seed, 204)
    rows, columns, top, low = ROWS, COLUMNS, weather.sky_top, weather.sky_low
    hidden = 1 - float(np.exp(-220 / weather.sight))  # 0..1, how much of the skyline the haze swallows
    height = np.linspace(HIGH, LOW, rows, dtype=np.float32)[:, None]
    blend = np.clip(height / 0.55, 0, 1) ** 0.7
    picture = low.astype(np.float32) + (top - low).astype(np.float32) * blend[:, :, None]
    picture = np.repeat(picture, columns, axis=1)
    field = noise(rng, rows, columns, (6, 14, 36, 90), (0.5, 0.45, 0.3, 0.15))
    cover = np.clip((field - 0.9 + 1.9 * weather.cloud) * rng.uniform(0.5, 1.3), 0, 0.92)[:, :, None]
    shade = 1.06 - 0.18 * np.clip(noise(rng, rows, columns, (10, 30), (0.6, 0.4)), -1, 1)[:, :, None]
    brightest = np.maximum(low, top).astype(np.float32)
    picture += (np.minimum(brightest * 1.08 * shade, 255) - picture) * cover
    line = noise(rng, 2, columns, (9, 40, 160, 420), (0.012, 0.009, 0.006, 0.004))[0] + rng.uniform(0.005, 0.05)
    for depth in (0.75, 0.4):
        ground = np.array([rng.uniform(45, 95), rng.uniform(60, 105), rng.uniform(45, 90)]) * low.mean() / 220
        far = min(1.0, depth + hidden)
        tone = (ground * (1 - far) + weather.haze * far).astype(np.float32)
        under = height < np.roll(line, int(rng.integers(columns)))[None, :] * (0.6 + depth)
        texture = 1 + noise(rng, rows, columns, (120, 360), (0.06, 0.06)) * (1 - far)
        picture = np.where(under[:, :, None], tone * texture[:, :, None], picture)
    return to_bytes(picture)


def paint_sky(canvas: Canvas, camera: Camera, picture: ByteArray, heading: float) -> None:
    """Fill the image down to a little below the horizon; `heading` is the view's, radians to the left."""
    per_column = 2 * np.pi / COLUMNS
    per_row = (HIGH - LOW) / ROWS
    # Image pixel to panorama pixel: rows are tangents, columns are angles, taken as linear within the view.
    across, down = 1 / camera.focal / per_column, 1 / camera.focal / per_row
    first = (-heading / per_column) % COLUMNS + COLUMNS - canvas.width / 2 * across
    low = int(first) - 2
    columns = np.arange(low, low + int(canvas.width * across) + 6) % COLUMNS
    matrix = np.array([[across, 0.0, first - low], [0.0, down, HIGH / per_row - camera.horizon() * down]])
    rows = int(np.clip(camera.horizon() + 0.13 * canvas.height, 1, canvas.height))
    # Half size is enough: the panorama is coarser than the image.
    matrix[:, :2] *= 2
    half = cv2.warpAffine(
        np.take(picture, columns, axis=1),
        matrix,
        (canvas.width // 2 + 1, rows // 2 + 1),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    canvas.image[:rows] = cv2.resize(half, (canvas.width, rows))
