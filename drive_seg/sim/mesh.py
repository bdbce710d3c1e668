"""Bodies made of flat convex faces, and how to paint them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .camera import NEAR, SHIFT, Camera, FixedArray, FloatArray, clip_near
from .canvas import Canvas
from .weather import Weather

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Mesh:
    """Faces in painting order, in the body's own frame: x forward, y left, z up, metres.

    `vertices` (V, 3) lists the corners face by face; face i owns vertices[starts[i]:starts[i + 1]].
    """

    vertices: FloatArray
    starts: tuple[int, ...]
    normals: FloatArray  # (F, 3)
    centres: FloatArray  # (F, 3)
    colours: FloatArray  # (F, 3) RGB 0..255
    glow: FloatArray  # (F,) light of its own, 0..1
    solid: tuple[bool, ...]  # False: lies on another face, so the truth need not be drawn again
    size: FloatArray  # (F,) metres; smaller than a pixel is left out
    part: tuple[int, ...]  # convex part each face belongs to; parts are painted far to near
    part_centres: FloatArray  # (P, 3)


class Panel:
    """A flat four-cornered face that decorations are laid on in its own (u, v) 0..1 coordinates."""

    def __init__(self, builder: MeshBuilder, corners: FloatArray, outward: FloatArray) -> None:
        self._builder = builder
        self._corners = corners  # (0,0), (1,0), (1,1), (0,1)
        self._outward = outward

    def at(self, u: float, v: float) -> FloatArray:
        """The point (3,) at (u, v)."""
        a, b, c, d = self._corners
        point: FloatArray = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)
        return point

    def rectangle(self, u0: float, v0: float, u1: float, v1: float, colour: FloatArray, glow: float = 0.0) -> None:
        """A rectangle of another colour."""
        ring = np.array([self.at(u0, v0), self.at(u1, v0), self.at(u1, v1), self.at(u0, v1)])
        self._builder.add(ring, colour, self._outward, False, glow)

    def shape(self, points: tuple[tuple[float, float], ...], colour: FloatArray, glow: float = 0.0) -> None:
        """A convex polygon of another colour."""
        ring = np.array([self.at(u, v) for u, v in points])
        self._builder.add(ring, colour, self._outward, False, glow)


class MeshBuilder:
    """Collects faces; each is oriented away from the middle of the part it belongs to."""

    def __init__(self) -> None:
        self._rings: list[FloatArray] = []
        self._normals: list[FloatArray] = []
        self._colours: list[FloatArray] = []
        self._glow: list[float] = []
        self._solid: list[bool] = []
        self._part: list[int] = []
        self._middles: list[FloatArray] = []

    def part(self, middle: Point) -> None:
        """Begin a convex part around `middle`."""
        self._middles.append(np.array(middle))

    def add(self, ring: FloatArray, colour: FloatArray, normal: FloatArray, solid: bool, glow: float = 0.0) -> None:
        """A face with a known outward normal."""
        self._rings.append(ring)
        self._normals.append(normal)
        self._colours.append(np.asarray(colour, dtype=np.float64))
        self._solid.append(solid)
        self._glow.append(glow)
        self._part.append(len(self._middles) - 1)

    def face(self, ring: FloatArray, colour: FloatArray) -> FloatArray:
        """A face (N, 3) of the current part; returns its outward normal."""
        after = np.roll(ring, -1, axis=0)
        normal = np.cross(ring, after).sum(axis=0)
        normal = normal / max(float(np.linalg.norm(normal)), 1e-9)
        if normal @ (ring.mean(axis=0) - self._middles[-1]) < 0:
            normal = -normal
        self.add(ring, colour, normal, True)
        return np.asarray(normal)

    def panel(self, corners: tuple[Point, Point, Point, Point], colour: FloatArray) -> Panel:
        """A four-cornered face to lay decorations on."""
        ring = np.array(corners, dtype=np.float64)
        return Panel(self, ring, self.face(ring, colour))

    def box(self, low: Point, high: Point, colour: FloatArray, taper: float = 1.0) -> dict[str, Panel]:
        """A box as a part of its own; `taper` narrows its top. Panels by side, u rightwards, v upwards."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        middle = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
        self.part(middle)
        t0, t1 = middle[1] + (y0 - middle[1]) * taper, middle[1] + (y1 - middle[1]) * taper
        return {
            "rear": self.panel(((x0, y1, z0), (x0, y0, z0), (x0, t0, z1), (x0, t1, z1)), colour),
            "front": self.panel(((x1, y0, z0), (x1, y1, z0), (x1, t1, z1), (x1, t0, z1)), colour),
            "left": self.panel(((x0, y1, z0), (x1, y1, z0), (x1, t1, z1), (x0, t1, z1)), colour),
            "right": self.panel(((x1, y0, z0), (x0, y0, z0), (x0, t0, z1), (x1, t0, z1)), colour),
            "top": self.panel(((x0, t0, z1), (x1, t0, z1), (x1, t1, z1), (x0, t1, z1)), colour),
        }

    def build(self) -> Mesh:
        """The finished body."""
        counts = [len(ring) for ring in self._rings]
        spans = [float(np.sqrt(np.prod(np.sort(np.ptp(ring, axis=0))[1:]))) for ring in self._rings]
        return Mesh(
            np.concatenate(self._rings),
            tuple(np.concatenate([[0], np.cumsum(counts)]).tolist()),
            np.array(self._normals),
            np.array([ring.mean(axis=0) for ring in self._rings]),
            np.array(self._colours),
            np.array(self._glow),
            tuple(self._solid),
            np.array(spans),
            tuple(self._part),
            np.array(self._middles),
        )


@dataclass(frozen=True)
class Glare:
    """A lamp that dazzles: where in the picture (pixels), whose it is, its colour."""

    x: float
    y: float
    radius: float
    owner: int
    colour: FloatArray


@dataclass(frozen=True)
class Light:
    """What lights an actor in one frame, in the local frame; `glares` collects the painted lamps."""

    weather: Weather
    glares: list[Glare]
    sun: FloatArray  # unit vector towards the sun
    headlight: float  # strength of the camera car's own lamps

    def shade(self, colours: FloatArray, normals: FloatArray, distance: float, glow: FloatArray) -> FloatArray:
        """Colours (F, 3) as the camera sees them: lit, glowing, hazy; RGB 0..255."""
        weather = self.weather
        # Sky light from above, a little bounced from the ground.
        sky = 0.8 + 0.25 * normals[:, 2:3]
        lit = weather.ambient * sky + weather.sun * np.maximum(normals @ self.sun, 0)[:, None]
        if self.headlight:
            lit = lit + self.headlight * np.exp(-distance / 22) * np.array([1.0, 0.96, 0.86])
        out = np.minimum(colours * lit, 255)
        if glow.any():
            # Lamps are off by day, lit at dusk.
            strength = (glow * (0.15 + 0.85 * weather.lamps))[:, None]
            out = out + (np.minimum(colours * 1.25, 255) - out) * strength
        clear = np.exp(-distance / weather.sight)
        hazed: FloatArray = out * clear + weather.haze * (1 - clear)
        return hazed

    def fade(self, distance: float, up: float) -> tuple[FloatArray, FloatArray]:
        """Gain and base (3,) of roadside colours: seen = colour * gain + base; `up` is the normal's z."""
        weather = self.weather
        lit = weather.ambient * (0.8 + 0.25 * up) + weather.sun * (max(float(self.sun[2]), 0.0) * up)
        if self.headlight:
            # Lamps point low: what stands beside the road gets little of them.
            lit = lit + 0.35 * self.headlight * math.exp(-distance / 22)
        clear = math.exp(-distance / weather.sight)
        return lit * clear, weather.haze * (1 - clear)

    def tone(self, colour: FloatArray, distance: float, up: float = 0.3, glow: float = 0.0) -> FloatArray:
        """A roadside colour (3,) as the camera sees it; `glow` is its own light."""
        gain, base = self.fade(distance, up)
        seen = colour * gain
        if glow:
            own = colour * math.exp(-distance / self.weather.sight)
            seen = seen + (own - seen) * (glow * (0.15 + 0.85 * self.weather.lamps))
        out: FloatArray = np.minimum(seen + base, 255.0)
        return out


def turn(yaw: float) -> FloatArray:
    """Rotation (3, 3) about z, to be applied as points @ turn(yaw).T."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def paint_mesh(
    canvas: Canvas,
    camera: Camera,
    light: Light,
    mesh: Mesh,
    position: FloatArray,
    yaw: float,
    owner: int | None,
) -> FixedArray | None:
    """Paint a body standing at a local position; returns the corners of its image (fixed point) or None."""
    spin = turn(yaw).T
    points = camera.to_camera(mesh.vertices @ spin + position)
    if points[:, 2].max() < NEAR:
        return None
    normals = mesh.normals @ spin
    centres = mesh.centres @ spin + position
    if (points[:, 0] > (points[:, 2] + 1) * camera.width / camera.focal).all() or (
        points[:, 0] < -(points[:, 2] + 1) * camera.width / camera.focal
    ).all():
        return None
    seen = np.einsum("ij,ij->i", normals, camera.position - centres) > 0
    distance = float(np.linalg.norm(position - camera.position))
    seen &= mesh.size * camera.focal > 1.5 * max(distance - 3, 1.0)
    colours = light.shade(mesh.colours, normals, distance, mesh.glow)
    whole = points[:, 2].min() >= NEAR
    fixed = camera.fixed(np.where(points[:, 2:] < NEAR, NEAR, points))
    order = np.flatnonzero(seen)
    if len(mesh.part_centres) > 1:
        away = np.linalg.norm(mesh.part_centres @ spin + position - camera.position, axis=1)
        order = order[np.argsort(-away[np.array(mesh.part)[order]], kind="stable")]
    for index in order:
        a, b = mesh.starts[index], mesh.starts[index + 1]
        if whole or points[a:b, 2].min() >= NEAR:
            ring = fixed[a:b]
        else:
            cut = clip_near(points[a:b])
            if cut is None:
                continue
            ring = camera.fixed(cut)
        canvas.convex(ring, colours[index], owner if mesh.solid[index] else None)
        if owner is not None and light.weather.lamps > 0.5 and mesh.glow[index] > 0.85:
            x, y = ring.mean(axis=0) / (1 << SHIFT)
            radius = float(mesh.size[index]) * camera.focal / distance
            light.glares.append(Glare(float(x), float(y), radius, owner, mesh.colours[index]))
    return fixed
