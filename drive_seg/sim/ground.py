"""Everything that lies flat: terrain, verges, pavements, asphalt, markings, and the light on them."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from .camera import NEAR, SHIFT, Camera, FixedArray, FloatArray, clip_near
from .canvas import BACKGROUND, LANE_MARKING, MAX_OWNERS, ROAD, ByteArray, Canvas, as_bytes
from .road import Layout, Line, Stretch
from .surface import Paint, Patch
from .textures import TILE, TILE_METRES
from .weather import Weather

KERB = 0.12
_REACH = 165.0
_FARTHEST = 1.5 * _REACH  # metres; haze does not grow beyond
_UNLIT = 0.3  # share of light at night where the camera car's lamps do not reach
_SKY = MAX_OWNERS - 1  # owner of what no ground covers, while it is painted
# Distances of the cross-sections: dense near the camera, where a metre is many pixels.
_SECTIONS = np.concatenate([np.linspace(0.3, 5.7, 10), np.geomspace(6.3, _REACH, 46)])


class Ground:
    """One frame's ground."""

    def __init__(
        self,
        canvas: Canvas,
        camera: Camera,
        stretch: Stretch,
        layout: Layout,
        paint: Paint,
        weather: Weather,
        rough: tuple[ByteArray, ...],
        tracks: float,
    ) -> None:
        self._canvas = canvas
        self._camera = camera
        self._stretch = stretch
        self._layout = layout
        self._paint = paint
        self._weather = weather
        self._rough = rough
        self._tracks = tracks
        self._lit = np.clip(weather.ambient + weather.sun * np.sin(weather.sun_elevation), 0, 2)
        self._s = stretch.origin + _SECTIONS
        self._level = int(np.clip(camera.horizon(), 0, canvas.height - 1))  # the row of what is far and level
        self._offset = np.array([0, self._level << SHIFT], dtype=np.int32)  # of light maps, which begin there
        if weather.dark:
            self._lit = self._lit + 0.38

    def draw(self, patches: list[Patch], shadows: list[FixedArray], contacts: list[FixedArray]) -> None:
        """Paint the ground with its patches, cast shadows and contact shadows (fixed point polygons)."""
        shapes = self._shapes(patches)
        self._canvas.owners[: self._level] = _SKY
        for first, last in self._stretches():
            self._surfaces(first, last)
            self._marks(first, last, shapes)
            self._median(first, last)
        self._shine(shapes, shadows, contacts)
        self._haze()
        if self._level:
            self._rise()

    def _stretches(self) -> list[tuple[int, int]]:
        """Runs of sections that face the camera, far to near: behind a crest the road is hidden."""
        middle = self._camera.to_camera(self._stretch.place(self._s, 0.0))
        row = middle[:, 1] / np.maximum(middle[:, 2], NEAR)
        falling = np.append(np.diff(row) < 0, False)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], falling.astype(np.int8), [0]])))
        return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=False)][::-1]

    def _band(self, first: int, last: int, d0: float, d1: float, z0: float = 0.0, z1: float = 0.0) -> FixedArray | None:
        s = self._s[first : last + 1]
        near = self._stretch.place(s, d0, z0)
        far = self._stretch.place(s[::-1], d1, z1)
        return self._camera.polygon(np.concatenate([near, far]))

    def _fill(self, polygon: FixedArray | None, colour: FloatArray, owner: int | None) -> None:
        if polygon is not None:
            self._canvas.polygons([polygon], np.clip(colour * self._lit, 0, 255), owner)

    def _surfaces(self, first: int, last: int) -> None:
        layout, paint = self._layout, self._paint
        self._terrain(first, last)
        for edge, out, walk in (
            (layout.right, -1.0, layout.walk_right),
            (layout.left, 1.0, layout.walk_left),
        ):
            if walk:
                self._fill(self._band(first, last, edge, edge + out * walk, KERB, KERB), paint.walk, BACKGROUND)
        self._fill(self._band(first, last, layout.right, layout.left), paint.asphalt, ROAD)
        for edge, walk in ((layout.right, layout.walk_right), (layout.left, layout.walk_left)):
            if walk:
                inner = edge - np.sign(edge) * 0.02
                self._fill(
                    self._band(first, last, inner, edge + np.sign(edge) * 0.14, KERB, KERB),
                    paint.kerb,
                    BACKGROUND,
                )
                self._fill(self._band(first, last, inner, inner, 0.0, KERB), paint.kerb * 0.72, BACKGROUND)
        for edge, parked in ((layout.right, layout.parking_right), (layout.left, layout.parking_left)):
            if parked:
                inner = edge - np.sign(edge) * 0.02
                self._fill(self._band(first, last, inner, edge - np.sign(edge) * 2.2), paint.side, ROAD)

    def _median(self, first: int, last: int) -> None:
        """What parts the directions: raised, so it hides paint behind its kerb, and no crosswalk runs over it."""
        width, paint = self._layout.median, self._paint
        if width:
            top = paint.verge if width > 2 else paint.walk
            self._fill(self._band(first, last, 0.1, width - 0.1, KERB, KERB), top, BACKGROUND)
            self._fill(self._band(first, last, 0.1, 0.1, 0.0, KERB), paint.kerb * 0.8, BACKGROUND)

    def _terrain(self, first: int, last: int) -> None:
        """The land beside the road: out to beyond the image, straight sideways as the camera sees it."""
        camera, canvas = self._camera, self._canvas
        s = self._s[first : last + 1]
        points = [camera.to_camera(self._stretch.place(s, d)) for d in (self._layout.right, self._layout.left)]
        if points[0][0, 0] < points[1][0, 0]:
            points.reverse()
        for inner, sign in zip(points, (1.0, -1.0), strict=False):
            outer = inner.copy()
            reach = np.abs(outer[:, 2]) * canvas.width / camera.focal + 8
            outer[:, 0] += sign * reach
            # Level in the world, not in a rolled camera.
            outer[:, 1] += sign * reach * self._camera.rotation[0, 2] / self._camera.rotation[1, 2]
            ring = np.concatenate([inner, outer[::-1]])
            ring[:, 2] = np.maximum(ring[:, 2], NEAR)
            self._fill(camera.fixed(ring), self._paint.verge, BACKGROUND)

    def _marks(self, first: int, last: int, patches: list[tuple[Patch, FixedArray, float]]) -> None:
        low, high = self._s[first], self._s[last]
        for patch, shape, middle in patches:
            if patch.asphalt and low <= middle <= high:
                self._fill(shape, self._paint.side, ROAD)
        for yellow in (False, True):
            ink = self._paint.yellow if yellow else self._paint.white
            many: list[FixedArray] = []
            for line in self._layout.lines:
                if line.yellow == yellow:
                    many += self._line(line, first, last)
            if not yellow:
                many += [shape for patch, shape, middle in patches if patch.mark and low <= middle <= high]
            self._canvas.polygons(many, np.clip(ink * self._lit, 0, 255), LANE_MARKING)

    def _shapes(self, patches: list[Patch]) -> list[tuple[Patch, FixedArray, float]]:
        """Patches with their polygons and the s of their middle; those out of sight are left out."""
        if not patches:
            return []
        flat = np.concatenate([patch.points for patch in patches])
        points = self._camera.to_camera(self._stretch.place(flat[:, 0], flat[:, 1]))
        fixed = self._camera.fixed(np.where(points[:, 2:] < NEAR, NEAR, points))
        found = []
        start = 0
        for patch in patches:
            stop = start + len(patch.points)
            part, shape = points[start:stop], fixed[start:stop]
            if part[:, 2].min() < NEAR:
                cut = clip_near(part)
                shape = shape[:0] if cut is None else self._camera.fixed(cut)
            if len(shape):
                found.append((patch, shape, float(patch.points[:, 0].mean())))
            start = stop
        return found

    def _line(self, line: Line, first: int, last: int) -> list[FixedArray]:
        half = line.width / 2
        if line.dash == 0:
            band = self._band(first, last, line.d - half, line.d + half)
            return [] if band is None else [band]
        low, high = self._s[first], min(self._s[last], self._s[0] + 110)
        period = line.dash + line.gap
        start = np.arange(np.floor(low / period), np.ceil(high / period)) * period
        start = start[(start + line.dash > low) & (start < high)]
        if not len(start):
            return []
        begin, end = np.maximum(start, low), np.minimum(start + line.dash, high)
        middle = (begin + end) / 2
        s = np.stack([begin, middle, end, end, middle, begin], axis=1)
        d = np.repeat(np.array([[line.d - half] * 3 + [line.d + half] * 3]), len(s), axis=0)
        points = self._camera.to_camera(self._stretch.place(s.ravel(), d.ravel()))
        whole = (points[:, 2].reshape(-1, 6) >= NEAR).all(axis=1)
        fixed = self._camera.fixed(np.where(points[:, 2:] < NEAR, NEAR, points)).reshape(-1, 6, 2)
        cut = [clip_near(dash) for dash in points.reshape(-1, 6, 3)[~whole]]
        return [*fixed[whole], *(self._camera.fixed(dash) for dash in cut if dash is not None)]

    def _shine(
        self,
        patches: list[tuple[Patch, FixedArray, float]],
        shadows: list[FixedArray],
        contacts: list[FixedArray],
    ) -> None:
        """Multiply the ground by its texture, its patches and the shadows on it."""
        light = self._texture()
        self._wheel_tracks(light)
        for patch, shape, _ in patches:
            if patch.gain != 1.0:
                self._darken(light, shape, patch.gain)
        for shapes, strength, soft in ((shadows, self._weather.shadow, 5), (contacts, 0.6, 7)):
            if shapes and strength:
                mask = np.zeros_like(light)
                for shape in shapes:
                    cv2.fillConvexPoly(mask, shape - self._offset, (255.0 * strength,), cv2.LINE_8, SHIFT)
                cv2.multiply(light, cv2.bitwise_not(cv2.blur(mask, (soft, 3))), dst=light, scale=1 / 255)
        if self._weather.dark:
            cv2.multiply(light, self._headlights(), dst=light, scale=1 / 255)
        part = self._canvas.image[self._level :]
        cv2.multiply(part, cv2.cvtColor(light, cv2.COLOR_GRAY2RGB), dst=part, scale=1 / 128)

    def _headlights(self) -> ByteArray:
        """Share of light (rows below the level, width), 255 = full, of the camera car's own lamps at night."""
        camera, canvas, top = self._camera, self._canvas, self._level
        rows = np.linspace(top, canvas.height, max((canvas.height - top) // 8, 2))[:, None]
        columns = np.linspace(0, canvas.width, canvas.width // 8)[None, :]
        away = camera.focal * camera.position[2] / np.maximum(rows - camera.horizon(), 0.5)
        aside = (columns - canvas.width / 2) / camera.focal * away
        beam = np.exp(-((np.log(np.maximum(away, 0.5) / 11) / 0.9) ** 2) - (aside / (2.2 + 0.16 * away)) ** 2)
        small = (255 * (_UNLIT + (1 - _UNLIT) * beam)).astype(np.uint8)
        return np.asarray(cv2.resize(small, (canvas.width, canvas.height - top)), dtype=np.uint8)

    def _wheel_tracks(self, light: ByteArray) -> None:
        """The lanes are a little darker where the wheels go."""
        layout, gain = self._layout, self._tracks
        if gain == 1.0:
            return
        mask = np.zeros_like(light)
        lanes = [layout.lane_centre(index) for index in range(layout.forward)]
        lanes += [layout.lane_centre(index, True) for index in range(layout.oncoming)]
        for d in lanes:
            for side in (-0.75, 0.75):
                band = self._band(0, len(self._s) - 20, d + side - 0.3, d + side + 0.3)
                if band is not None:
                    cv2.fillPoly(mask, [band - self._offset], (255.0 * (1 - gain),), cv2.LINE_8, SHIFT)
        cv2.multiply(light, cv2.bitwise_not(cv2.blur(mask, (9, 3))), dst=light, scale=1 / 255)

    def _darken(self, light: ByteArray, shape: FixedArray, gain: float) -> None:
        moved = shape - self._offset
        low, high = moved.min(axis=0) >> SHIFT, (moved.max(axis=0) >> SHIFT) + 1
        x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
        x1, y1 = min(int(high[0]) + 1, light.shape[1]), min(int(high[1]) + 1, light.shape[0])
        if x0 >= x1 or y0 >= y1:
            return
        part = light[y0:y1, x0:x1]
        mask = np.zeros_like(part)
        corner = np.array([x0 << SHIFT, y0 << SHIFT], dtype=np.int32)
        cv2.fillPoly(mask, [moved - corner], (255,), cv2.LINE_8, SHIFT)
        cv2.copyTo(cv2.convertScaleAbs(part, alpha=gain), mask, part)

    def _texture(self) -> ByteArray:
        """Light map (rows below the level, width), 128 = unchanged: the tile of each surface in perspective."""
        camera, canvas, top = self._camera, self._canvas, self._level
        per_metre = TILE / TILE_METRES
        # The tangent plane of the road at the camera; fine for the near part, where texture is seen.
        ground = np.array(
            [
                [1.0, 0.0, -camera.position[0]],
                [0.0, 1.0, -camera.position[1]],
                [0.0, 0.0, -camera.position[2]],
            ]
        )
        lens = camera.intrinsics @ camera.rotation @ ground
        shift = float(np.fmod(self._stretch.origin, TILE_METRES))
        place = np.array([[1 / per_metre, 0.0, -shift], [0.0, 1 / per_metre, 0.0], [0.0, 0.0, 1.0]])
        matrix = lens @ place
        scale = min(1.0, 640 / canvas.width)  # finer than this the noise of the sensor hides it
        rows = canvas.height - top
        size = (round(canvas.width * scale), max(1, round(rows * scale)))
        out = np.full((size[1], size[0], 3), 128, dtype=np.uint8)
        # Bands of rows, each from the level of the pyramid that fits its distance.
        limits = [1.0, 0.2, 0.085, 0.04, 0.016]
        for level, (high, low) in enumerate(pairwise(limits)):
            y0, y1 = round(low * camera.height * scale), min(round(high * camera.height * scale), size[1])
            if level == 0:
                y1 = size[1]
            if y0 >= y1:
                continue
            into = np.array([[scale, 0, 0], [0, scale, -top * scale - y0], [0, 0, 1.0]])
            out_of = np.diag([float(1 << level), float(1 << level), 1.0])
            out[y0:y1] = cv2.warpPerspective(
                self._rough[level],
                into @ matrix @ out_of,
                (size[0], y1 - y0),
                flags=cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            )
        if scale != 1.0:
            out = as_bytes(cv2.resize(out, (canvas.width, rows)))
        bare = cv2.inRange(canvas.owners[top:], (BACKGROUND,), (BACKGROUND,))
        light = as_bytes(cv2.extractChannel(out, 1))
        cv2.copyTo(cv2.extractChannel(out, 0), cv2.bitwise_not(bare), light)
        paved = self._paved()
        if paved is not None:
            cv2.copyTo(cv2.extractChannel(out, 2), cv2.bitwise_and(paved, bare), light)
        return light

    def _paved(self) -> ByteArray | None:
        layout = self._layout
        shapes = []
        for edge, walk in ((layout.right, layout.walk_right), (layout.left, layout.walk_left)):
            if walk:
                shape = self._band(0, len(self._s) - 1, edge, edge + np.sign(edge) * walk, KERB, KERB)
                if shape is not None:
                    shapes.append(shape - self._offset)
        if not shapes:
            return None
        mask = np.zeros((self._canvas.height - self._level, self._canvas.width), dtype=np.uint8)
        cv2.fillPoly(mask, shapes, (255,), cv2.LINE_8, SHIFT)
        return mask

    def _haze(self) -> None:
        """Fade the ground with distance, row by row."""
        canvas, camera, weather = self._canvas, self._camera, self._weather
        horizon = camera.horizon()
        # From the horizon down to where the haze takes less than 2 %.
        top = self._level
        last = horizon + camera.focal * camera.position[2] / (0.02 * weather.sight)
        bottom = int(np.clip(last, top + 1, canvas.height))
        away = camera.focal * camera.position[2] / np.maximum(np.arange(top, bottom) - horizon, 1.0)
        clear = np.exp(-np.minimum(away, _FARTHEST) / weather.sight)
        keep = np.repeat(clear[:, None], 3, axis=1)
        multiply = cv2.repeat((keep * 255).astype(np.uint8)[:, None, :], 1, canvas.width)
        plus = cv2.repeat(((1 - keep) * weather.haze).astype(np.uint8)[:, None, :], 1, canvas.width)
        part = canvas.image[top:bottom]
        cv2.multiply(part, multiply, dst=part, scale=1 / 255)
        cv2.add(part, plus, dst=part)

    def _rise(self) -> None:
        """Ground above the level row, of hills and on one side of a camera that rolls: as far and dark as that row."""
        canvas, weather = self._canvas, self._weather
        owners = canvas.owners[: self._level]
        ground = cv2.bitwise_not(cv2.inRange(owners, (_SKY,), (_SKY,)))
        owners[ground == 0] = BACKGROUND
        rows = np.flatnonzero(ground.any(axis=1))
        if rows.size:
            top = max(int(rows[0]) - 1, 0)
            clear = float(np.exp(-_FARTHEST / weather.sight))
            part = canvas.image[top : self._level]
            lit = part * (clear * (_UNLIT if weather.dark else 1.0)) + weather.haze * (1 - clear)
            soft = cv2.dilate(ground[top:], np.ones((3, 3), np.uint8))  # the picture's edge is a pixel wider
            cv2.copyTo(lit.astype(np.uint8), soft, part)
