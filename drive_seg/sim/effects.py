"""The lens and the sensor: reflections, glare, rain, bonnet, exposure, vignette, noise."""

from __future__ import annotations

import cv2
import numpy as np

from .canvas import BACKGROUND, LANE_MARKING, ByteArray, Canvas, as_bytes
from .chance import chance
from .mesh import Glare
from .textures import noise, to_bytes
from .weather import Weather


class Effects:
    """What the camera adds, drawn once per drive."""

    def __init__(self, seed: int, width: int, height: int, weather: Weather) -> None:
        rng = chance(seed, 701)
        self._seed = seed
        self._weather = weather
        self._size = (width, height)
        warmth, tint = float(rng.normal(0, 0.045)), float(rng.normal(0, 0.015))
        exposure = float(rng.uniform(1.0, 1.5)) * {"night": 1.4, "fog": 0.8}.get(weather.name, 1.0)
        gamma, contrast, lift = (
            float(rng.uniform(0.72, 1.05)),
            float(rng.uniform(0.85, 1.15)),
            float(rng.uniform(0, 12)),
        )
        value = np.arange(256.0)[:, None] / 255 * exposure * np.array([1 + warmth, 1 - tint, 1 - warmth])
        curve = np.clip(value, 0, None) ** gamma
        # A shoulder instead of a hard clip, as cameras have.
        curve = np.where(curve > 0.75, 0.75 + 0.25 * np.tanh((curve - 0.75) / 0.25), curve)
        self._curve: ByteArray = np.clip((curve - 0.5) * contrast * 255 + 127.5 + lift, 0, 255).astype(np.uint8)[
            :, None, :
        ]
        self._saturation = float(rng.uniform(0.55, 1.15)) * (
            0.75 if weather.name in ("rain", "fog", "overcast") else 1.0
        )
        grain = min(float(rng.gamma(1.5, 1.1)), 4.0) * (1.8 if weather.dark else 1.0)
        coarse = rng.standard_normal((height // 2 + 33, width // 2 + 33)).astype(np.float32)
        fine = cv2.resize(coarse, (width + 64, height + 64), interpolation=cv2.INTER_LINEAR)
        self._grain = to_bytes(128 + np.clip(fine * 1.6, -4, 4) * 30)
        self._grain_gain = grain / 30
        self._blur = int(rng.choice([0, 0, 3, 3, 5])) if width > 900 else int(rng.choice([0, 0, 0, 3]))
        self._smear = int(rng.choice([1, 1, 1, 3, 5])) if weather.dark or rng.random() < 0.3 else 1
        self._vignette = self._falloff(float(rng.uniform(0.0, 0.45)))
        self._bonnet = self._draw_bonnet(rng) if rng.random() < 0.4 else None

    def _falloff(self, strength: float) -> ByteArray:
        width, height = self._size
        y, x = np.mgrid[-1:1:24j, -1:1:32j].astype(np.float32)
        fall = 1 - strength * np.clip((x * x + y * y) / 2, 0, 1) ** 1.3
        return as_bytes(cv2.cvtColor(cv2.resize(to_bytes(fall * 255), (width, height)), cv2.COLOR_GRAY2RGB))

    def _draw_bonnet(self, rng: np.random.Generator) -> tuple[ByteArray, ByteArray, int]:
        width, height = self._size
        rise, edge = float(rng.uniform(0.05, 0.17)) * height, float(rng.uniform(0.2, 1.0))
        x = np.linspace(-1, 1, width)
        line = height - rise * (1 - edge * np.abs(x) ** float(rng.uniform(2, 6)))
        top = int(line.min())
        y = np.arange(top, height)[:, None]
        mask = (y >= line[None, :]).astype(np.uint8) * 255
        base = np.full(3, rng.uniform(10, 90)) if rng.random() < 0.7 else rng.uniform(10, 190, 3)
        depth = (y - line[None, :]) / max(rise, 1)
        gloss = 1.3 - 0.7 * depth + noise(rng, height - top, width, (3, 9, 30), (0.12, 0.08, 0.05))
        light = float((self._weather.ambient + 0.5 * self._weather.sun).mean())
        return to_bytes((gloss[:, :, None] * base * light).astype(np.float32)), mask, top

    def finish(self, canvas: Canvas, index: int, horizon: float, glares: list[Glare]) -> None:
        """Apply everything to the canvas; only the bonnet changes the truth."""
        image = canvas.image
        if self._weather.wet > 0:
            self._mirror(canvas, horizon)
        if glares:
            self._flare(canvas, glares)
        if self._weather.rain > 0:
            self._rain(canvas, index)
        if self._bonnet is not None:
            colour, mask, top = self._bonnet
            canvas.stamp(colour, mask, 0, top, BACKGROUND)
        if self._blur:
            cv2.GaussianBlur(image, (self._blur, self._blur), 0, dst=image)
        if self._smear > 1:
            cv2.blur(image, (self._smear, 1), dst=image)
        if abs(self._saturation - 1) > 0.03:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            cv2.addWeighted(image, self._saturation, grey, 1 - self._saturation, 0, dst=image)
        cv2.multiply(image, self._vignette, dst=image, scale=1 / 255)
        image[:] = cv2.LUT(image, self._curve)
        rng = chance(self._seed, 702, index)
        dx, dy = int(rng.integers(64)), int(rng.integers(64))
        width, height = self._size
        grain = cv2.cvtColor(np.ascontiguousarray(self._grain[dy : dy + height, dx : dx + width]), cv2.COLOR_GRAY2RGB)
        cv2.addWeighted(image, 1.0, grain, self._grain_gain, -128 * self._grain_gain, dst=image)

    def _mirror(self, canvas: Canvas, horizon: float) -> None:
        """Wet asphalt shows what is above it, upside down and smeared."""
        top = int(np.clip(horizon, 1, canvas.height - 2))
        rows = canvas.height - top
        if rows < 8:
            return
        above = cv2.flip(canvas.image[max(top - rows, 0) : top], 0)
        # What is above the picture is taken to be like its first row.
        above = cv2.copyMakeBorder(above, 0, rows - len(above), 0, 0, cv2.BORDER_REPLICATE)
        small = cv2.resize(above, (canvas.width // 4, max(rows // 8, 1)), interpolation=cv2.INTER_AREA)
        smeared = cv2.resize(cv2.blur(small, (3, 5)), (canvas.width, rows))
        part = canvas.image[top : top + rows]
        share = 0.4 * self._weather.wet
        wet = cv2.addWeighted(part, 1 - 0.8 * share, smeared, share, 0)
        owners = canvas.owners[top : top + rows]
        cv2.copyTo(wet, cv2.inRange(owners, (1.0,), (float(LANE_MARKING),)), part)

    def _flare(self, canvas: Canvas, glares: list[Glare]) -> None:
        """Halos around the lamps that nothing hides."""
        scale = 4
        small = np.zeros((canvas.height // scale, canvas.width // scale, 3), dtype=np.uint8)
        for glare in glares:
            column, row = round(glare.x), round(glare.y)
            if not (0 <= column < canvas.width and 0 <= row < canvas.height):
                continue
            if canvas.owners[row, column] != glare.owner:
                continue
            size = float(np.clip(glare.radius, 1.5, canvas.width / 60)) / scale
            for grow, share in ((5.0, 0.07), (2.6, 0.16), (1.2, 0.5)):
                tone = glare.colour * (share * self._weather.lamps)
                cv2.circle(
                    small,
                    (column // scale, row // scale),
                    max(1, round(size * grow)),
                    (float(tone[0]), float(tone[1]), float(tone[2])),
                    -1,
                )
        soft = cv2.resize(cv2.GaussianBlur(small, (9, 9), 0), (canvas.width, canvas.height))
        cv2.add(canvas.image, soft, dst=canvas.image)

    def _rain(self, canvas: Canvas, index: int) -> None:
        rng = chance(self._seed, 703, index)
        width, height = canvas.width // 2, canvas.height // 2
        streaks = np.zeros((height, width), dtype=np.uint8)
        count = int(self._weather.rain * 260)
        start = rng.uniform(0, 1, (count, 2)) * (width, height)
        length = rng.uniform(0.01, 0.06, count) * height
        lean = float(chance(self._seed, 704).uniform(-0.3, 0.3))
        stop = start + np.column_stack([lean * length, length])
        lines = np.rint(np.stack([start, stop], axis=1)).astype(np.int32)
        cv2.polylines(streaks, list(lines), False, (float(40 + 50 * self._weather.rain),), 1)
        soft = cv2.resize(cv2.blur(streaks, (1, 3)), (canvas.width, canvas.height))
        cv2.add(canvas.image, cv2.cvtColor(soft, cv2.COLOR_GRAY2RGB), dst=canvas.image)
