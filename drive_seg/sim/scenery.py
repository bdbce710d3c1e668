"""What stands beside the road: houses, walls, trees, poles, signs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .camera import NEAR, SHIFT, Camera, FixedArray, FloatArray, clip_near
from .canvas import BACKGROUND, ByteArray, Canvas, as_bytes
from .mesh import Light
from .road import Stretch
from .textures import CROWNS, FACADES, facade, foliage


@dataclass(frozen=True)
class House:
    """A wall from (s0, d) to (s1, d) of a building that reaches away from the road; metres."""

    s0: float
    s1: float
    d: float
    height: float
    depth: float
    style: int
    roof: float  # height of a pitched roof, 0 = flat
    tint: float


@dataclass(frozen=True)
class Barrier:
    """A low wall, hedge, fence or guard rail from s0 to s1."""

    s0: float
    s1: float
    d: float
    height: float
    kind: str
    colour: FloatArray


@dataclass(frozen=True)
class Tree:
    """A trunk with a crown; trunk 0 = bush."""

    s: float
    d: float
    trunk: float
    crown: float
    style: int


@dataclass(frozen=True)
class Post:
    """A pole with what hangs on it: lamp, sign, light or nothing."""

    s: float
    d: float
    height: float
    radius: float
    kind: str
    colour: FloatArray
    arm: float


class Scenery:
    """Paints the roadside of one frame."""

    def __init__(self, seed: int, canvas: Canvas, camera: Camera, stretch: Stretch, light: Light) -> None:
        self._seed = seed
        self._canvas = canvas
        self._camera = camera
        self._stretch = stretch
        self._light = light

    def house(self, house: House, open_end: bool) -> None:
        """The wall along the road, the roof and, unless another house hides it, the near end."""
        s0 = max(house.s0, self._stretch.origin - 3.0)
        if s0 >= house.s1 - 0.2:
            return
        out = np.sign(house.d) * house.depth
        s = np.array([s0, house.s1, house.s1, s0])
        dark = self._light.weather.dark
        texture = facade((self._seed * 7 + house.style) % FACADES, dark)
        end = np.array([house.d, house.d + out, house.d + out, house.d])
        up = np.array([0.0, 0.0, house.height, house.height]) - 0.3
        if open_end:
            self._wall(np.full(4, s0), end, up, texture, house.tint * 0.85, house.depth / 12, 0.0)
        if house.roof:
            ridge = house.d + out / 2
            gable = self._stretch.place(
                np.full(3, s0),
                np.array([house.d, house.d + out, ridge]),
                np.array([house.height - 0.3] * 2 + [house.height + house.roof]),
            )
            tone = texture[3][:8].reshape(-1, 3).mean(axis=0)
            self._plain(gable, tone * house.tint * 0.85)
            slope = self._stretch.place(
                np.array([s0, house.s1, house.s1, s0]),
                np.array([house.d, house.d, ridge, ridge]),
                np.array([house.height - 0.35] * 2 + [house.height + house.roof] * 2),
            )
            self._plain(slope, np.array([95.0, 65.0, 52.0]) * house.tint)
        self._wall(
            s,
            np.full(4, house.d),
            up,
            texture,
            house.tint,
            (house.s1 - s0) / (house.s1 - house.s0),
            1 - (house.s1 - s0) / (house.s1 - house.s0),
        )

    def _wall(
        self,
        s: FloatArray,
        d: FloatArray,
        z: FloatArray,
        textures: tuple[ByteArray, ...],
        tint: float,
        share: float,
        start: float,
    ) -> None:
        """A textured upright quadrilateral; `share` of the texture's width from `start` is on it."""
        local = self._stretch.place(s, d, z)
        points = self._camera.to_camera(local)
        middle = local.mean(axis=0)
        ahead = local[1] - local[0]
        normal = np.array([ahead[1], -ahead[0], 0.0]) / max(float(np.hypot(ahead[0], ahead[1])), 1e-9)
        away = self._camera.position - middle
        if normal @ away < 0:
            normal = -normal
        distance = float(np.sqrt(away @ away))
        white = self._light.shade(np.array([[0.0] * 3, [200.0] * 3]) * tint, normal[None], distance, np.zeros(1))
        gain, base = (white[1] - white[0]) / 200, white[0]
        if self._light.weather.dark:
            gain = np.maximum(gain, 0.5 * np.exp(-distance / self._light.weather.sight))
        tone = np.minimum(textures[-1][::4, ::4].reshape(-1, 3).mean(axis=0) * gain + base, 255)
        if points[:, 2].min() < NEAR:
            cut = clip_near(points)
            if cut is not None:
                self._canvas.convex(self._camera.fixed(cut), tone, BACKGROUND)
            return
        fixed = self._camera.fixed(points)
        box = self._canvas.box(fixed)
        if box is None:
            return
        self._canvas.convex(fixed, tone, BACKGROUND)
        pixels = self._camera.pixels(points)
        high = float(max(pixels[0, 1] - pixels[3, 1], pixels[1, 1] - pixels[2, 1]))
        if high < 12 or box[2] - box[0] < 4:
            return
        level = 0
        while level < len(textures) - 1 and textures[level].shape[0] > 1.5 * high:
            level += 1
        texture = textures[level]
        width = texture.shape[1]
        left = round(min(start, 0.9) * width)
        part = texture[:, left : max(round(min(start + share, 1.0) * width), left + 2)]
        self._canvas.warp(as_bytes(cv2.LUT(part, _ramp(gain, base))), pixels[[3, 2, 1, 0]])

    def _plain(self, local: FloatArray, colour: FloatArray) -> None:
        fixed = self._camera.polygon(local)
        if fixed is None:
            return
        away = local[0] - self._camera.position
        self._canvas.convex(fixed, self._light.tone(colour, float(np.sqrt(away @ away)), 0.6), BACKGROUND)

    def barrier(self, barrier: Barrier) -> None:
        """Hedges and walls with a texture, fences of posts and rails, guard rails."""
        s0 = max(barrier.s0, self._stretch.origin - 2.0)
        if s0 >= barrier.s1:
            return
        s = np.array([s0, barrier.s1, barrier.s1, s0])
        if barrier.kind in ("hedge", "wall"):
            texture = (
                foliage(self._seed % CROWNS)[0]
                if barrier.kind == "hedge"
                else (facade(self._seed % FACADES, False)[0][:40],)
            )
            z = np.array([0.0, 0.0, barrier.height, barrier.height])
            top = self._stretch.place(
                s, np.array([barrier.d] * 2 + [barrier.d + np.sign(barrier.d) * 0.7] * 2), barrier.height
            )
            self._plain(top, barrier.colour * 1.1)
            self._wall(s, np.full(4, barrier.d), z, texture, 1.0, 1.0, 0.0)
            return
        rails = ((0.45, 0.78),) if barrier.kind == "rail" else ((0.25, 0.33), (0.85, 0.95))
        for low, high in rails:
            z = np.array([low, low, high, high]) * barrier.height
            self._plain(self._stretch.place(s, barrier.d, z), barrier.colour)
        if barrier.kind == "rail":
            z = np.array([0.58, 0.58, 0.64, 0.64]) * barrier.height
            self._plain(self._stretch.place(s, barrier.d, z), barrier.colour * 0.7)
        near = s0 - self._stretch.origin < 45
        step = 2.0 if barrier.kind == "rail" else 0.45 if near else 1.8
        post = np.arange(s0, barrier.s1, step)
        peak = barrier.height * (0.75 if barrier.kind == "rail" else 1.0)
        corners = np.stack([post, post + 0.06, post + 0.06, post], axis=1).ravel()
        local = self._stretch.place(corners, barrier.d, np.tile([0.0, 0.0, peak, peak], len(post)))
        points = self._camera.to_camera(local)
        fixed = self._camera.fixed(np.where(points[:, 2:] < NEAR, NEAR, points)).reshape(-1, 4, 2)
        away = local[0] - self._camera.position
        tone = self._light.tone(barrier.colour * 0.8, float(np.sqrt(away @ away)))
        whole = points[:, 2].reshape(-1, 4).min(axis=1) >= NEAR
        self._canvas.polygons([fixed[index] for index in np.flatnonzero(whole)], tone, BACKGROUND)

    def tree(self, tree: Tree, foot: FloatArray, moved: FloatArray) -> None:
        """Trunk and crown; the crown is a picture that always faces the camera.

        `foot` is the local point (3,) it stands on, `moved` the same in camera coordinates.
        """
        if moved[2] < 1.5:
            return
        distance = float(np.sqrt(moved @ moved))
        scale = self._camera.focal / moved[2]
        if tree.trunk:
            self._trunk(foot, 0.04 * tree.crown + 0.06, tree.trunk + tree.crown * 0.3, np.array([78.0, 64.0, 52.0]))
        colours, masks = foliage((self._seed * 7 + tree.style) % CROWNS)
        size = int(min(2 * tree.crown * scale, 2 * self._canvas.height))
        if size < 2:
            return
        up = self._camera.rotation[:, 2]
        middle = moved + up * (tree.trunk + tree.crown * 0.8)
        pixel = self._camera.pixels(middle[None])[0]
        x, y = round(float(pixel[0]) - size / 2), round(float(pixel[1]) - size / 2)
        if x >= self._canvas.width or x + size <= 0 or y + size <= 0:
            return
        level = 0
        while level < len(colours) - 1 and colours[level].shape[0] >= 2 * size:
            level += 1
        shape = as_bytes(cv2.inRange(cv2.resize(masks[level], (size, size)), (128,), (255,)))
        gain, base = self._light.fade(distance, 0.5)
        lit = cv2.LUT(colours[level], _ramp(gain, base))
        self._canvas.stamp(as_bytes(cv2.resize(lit, (size, size))), shape, x, y, BACKGROUND)

    def _trunk(self, foot: FloatArray, radius: float, height: float, colour: FloatArray) -> FixedArray | None:
        """An upright bar seen from the camera; returns its outline."""
        ends = self._camera.to_camera(np.array([foot, foot + np.array([0.0, 0.0, height])]))
        if ends[:, 2].min() < NEAR:
            return None
        half = np.array([radius, 0.0, 0.0])
        fixed = self._camera.fixed(
            np.array([ends[0] - half, ends[0] + half, ends[1] + half * 0.8, ends[1] - half * 0.8])
        )
        distance = float(np.sqrt(ends[0] @ ends[0]))
        self._canvas.convex(fixed, self._light.tone(colour, distance), BACKGROUND)
        if radius * self._camera.focal > 2 * distance:
            bright = np.array([ends[0] - half, ends[0] - half * 0.1, ends[1] - half * 0.1, ends[1] - half * 0.8])
            self._canvas.convex(self._camera.fixed(bright), self._light.tone(colour * 1.3, distance), None)
        return fixed

    def post(self, post: Post, foot: FloatArray) -> None:
        """A pole on the local point `foot` (3,) and its load."""
        if self._trunk(foot, post.radius, post.height, post.colour) is None:
            return
        facing = self._stretch.direction(post.s)
        right = np.array([np.sin(facing), -np.cos(facing), 0.0])
        up = np.array([0.0, 0.0, 1.0])
        top = foot + up * post.height
        inward = right * (1.0 if (post.d > 0) != self._stretch.mirrored else -1.0)
        if post.kind == "lamp":
            tip = top + inward * post.arm + up * 0.25
            self._bar(top, tip, 0.05, post.colour)
            self._bar(tip - inward * 0.1, tip + inward * 0.55, 0.09, np.array([215.0, 212.0, 200.0]), 1.0)
        elif post.kind == "light":
            for place in (top, top + inward * post.arm):
                self._bar(place, place + up * 0.95, 0.17, np.full(3, 28.0))
            if post.arm:
                self._bar(top + up * 0.4, top + inward * post.arm + up * 0.4, 0.05, post.colour)
            shown = (np.array([240.0, 30.0, 20.0]), np.array([30.0, 225.0, 120.0]))[int(post.s) % 2]
            z = 0.78 if int(post.s) % 2 == 0 else 0.16
            for place in (top, top + inward * post.arm):
                self._bar(place + up * z, place + up * (z + 0.04), 0.09, shown, 1.0)
        elif post.kind == "sign":
            middle = top - up * 0.3
            angle = np.linspace(0, 2 * np.pi, (3, 4, 8, 12)[int(post.s * 7) % 4], endpoint=False) + np.pi / 2
            for size, colour in ((0.36, post_sign(post.s)[0]), (0.27, post_sign(post.s)[1])):
                ring = middle + size * (np.cos(angle)[:, None] * right + np.sin(angle)[:, None] * up)
                self._plain(ring, colour)
        elif post.kind == "board":
            low = top - up * 1.3
            for grow, colour in ((0.0, np.full(3, 235.0)), (0.08, post_sign(post.s)[0])):
                a, b = low + right * (-1.5 + grow) + up * grow, low + right * (1.5 - grow) + up * grow
                self._plain(np.array([a, b, b + up * (1.5 - 2 * grow), a + up * (1.5 - 2 * grow)]), colour)
            for z in (0.4, 0.9):
                self._plain(
                    np.array(
                        [
                            low + right * -1.1 + up * z,
                            low + right * 0.8 + up * z,
                            low + right * 0.8 + up * (z + 0.2),
                            low + right * -1.1 + up * (z + 0.2),
                        ]
                    ),
                    np.full(3, 235.0),
                )

    def _bar(self, a: FloatArray, b: FloatArray, half: float, colour: FloatArray, glow: float = 0.0) -> None:
        ends = self._camera.to_camera(np.array([a, b]))
        if ends[:, 2].min() < NEAR:
            return
        pixels = self._camera.pixels(ends)
        along = pixels[1] - pixels[0]
        across = (
            np.array([-along[1], along[0]])
            / max(float(np.hypot(*along)), 1e-6)
            * half
            * self._camera.focal
            / ends[0, 2]
        )
        ring = np.array([pixels[0] - across, pixels[1] - across, pixels[1] + across, pixels[0] + across])
        tone = self._light.tone(colour, float(np.sqrt(ends[0] @ ends[0])), 0.3, glow)
        self._canvas.convex(np.rint(ring * (1 << SHIFT)).clip(-250000, 250000).astype(np.int32), tone, BACKGROUND)


def post_sign(s: float) -> tuple[FloatArray, FloatArray]:
    """Rim and face of the sign at s."""
    faces = (
        ((200, 25, 25), (240, 240, 238)),
        ((25, 70, 160), (25, 75, 175)),
        ((240, 240, 235), (25, 95, 55)),
        ((25, 25, 25), (240, 195, 40)),
    )
    rim, face = faces[int(s * 3) % 4]
    return np.array(rim, dtype=np.float64), np.array(face, dtype=np.float64)


def _ramp(gain: FloatArray, base: FloatArray) -> ByteArray:
    """Look-up table (256, 1, 3) of value * gain + base per channel."""
    table = np.arange(256.0)[:, None] * gain + base
    out: ByteArray = np.clip(table, 0, 255).astype(np.uint8)[:, None, :]
    return out
