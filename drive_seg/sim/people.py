"""People and how they walk: skeletons of capsules, posed by the distance they have gone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .camera import NEAR, SHIFT, Camera, FixedArray, FloatArray, fixed_point
from .canvas import ByteArray, Canvas
from .chance import chance, pick
from .mesh import Light, turn
from .textures import grain_tile

_SKINS = ((236, 200, 175), (222, 178, 145), (190, 140, 105), (140, 95, 70), (95, 65, 48), (245, 214, 190))
_HAIR = ((30, 24, 20), (60, 42, 28), (110, 80, 45), (170, 140, 90), (150, 148, 145), (20, 20, 22))
_CIRCLE = np.linspace(-np.pi / 2, np.pi / 2, 6)


@dataclass(frozen=True)
class Person:
    """Looks of one person (colours RGB 0..255, metres)."""

    grain: ByteArray
    height: float
    stout: float
    skin: FloatArray
    hair: FloatArray
    upper: FloatArray
    lower: FloatArray
    shoes: FloatArray
    coat: float  # how far the coat or skirt falls below the hip
    sleeves: bool
    shorts: bool
    hood: float  # size of hair, hat or helmet around the head
    bag: str
    bag_colour: FloatArray
    bike: FloatArray


def _cloth(rng: np.random.Generator) -> FloatArray:
    if rng.random() < 0.55:
        return np.full(3, rng.uniform(18, 110)) + rng.uniform(-10, 22, 3)
    vivid = rng.uniform(15, 245, 3)
    return vivid * 0.65 + float(vivid.mean()) * 0.35


@lru_cache(maxsize=1024)
def person(seed: int) -> Person:
    """The person of this seed."""
    rng = chance(seed, 401)
    child = rng.random() < 0.1
    return Person(
        grain_tile(rng),
        float(rng.uniform(1.05, 1.45) if child else rng.normal(1.71, 0.09)),
        float(rng.uniform(0.85, 1.3)),
        np.array(pick(rng, _SKINS), dtype=np.float64),
        np.array(pick(rng, _HAIR), dtype=np.float64),
        _cloth(rng),
        np.array([35.0, 45.0, 75.0]) * rng.uniform(0.5, 1.7) if rng.random() < 0.4 else _cloth(rng),
        np.full(3, rng.choice([25.0, 60.0, 225.0])),
        float(pick(rng, (0.0, 0.05, 0.22, 0.42), (0.4, 0.25, 0.2, 0.15))),
        bool(rng.random() < 0.75),
        bool(rng.random() < 0.2),
        float(rng.uniform(1.0, 1.3)),
        pick(rng, ("none", "back", "hand", "shoulder"), (0.45, 0.22, 0.18, 0.15)),
        _cloth(rng),
        rng.uniform(10, 230, 3),
    )


class Figure:
    """Capsules (a thick line with round ends) and discs in the actor's own frame, far limbs first."""

    def __init__(self) -> None:
        self.ends: list[tuple[FloatArray, FloatArray]] = []
        self.radii: list[tuple[float, float]] = []
        self.colours: list[FloatArray] = []

    def limb(
        self,
        a: tuple[float, float, float],
        b: tuple[float, float, float],
        ra: float,
        rb: float,
        colour: FloatArray,
    ) -> None:
        """A capsule from a to b with radii ra, rb; metres."""
        self.ends.append((np.array(a), np.array(b)))
        self.radii.append((ra, rb))
        self.colours.append(colour)

    def paint(
        self,
        canvas: Canvas,
        camera: Camera,
        light: Light,
        position: FloatArray,
        yaw: float,
        owner: int | None,
    ) -> FixedArray | None:
        """Paint the figure standing at a local position; returns its outline points (fixed point)."""
        points = camera.to_camera(np.array(self.ends).reshape(-1, 3) @ turn(yaw).T + position)
        if points[:, 2].min() < NEAR:
            return None
        scale = camera.focal / points[:, 2].reshape(-1, 2)
        pixels = camera.pixels(points).reshape(-1, 2, 2)
        radii = np.array(self.radii) * scale
        along = pixels[:, 1] - pixels[:, 0]
        angle = np.arctan2(along[:, 1], along[:, 0])[:, None]
        far = angle + _CIRCLE
        near = far + np.pi
        ring = np.empty((len(radii), 12, 2))
        ring[:, :6, 0] = pixels[:, 1:2, 0] + radii[:, 1:2] * np.cos(far)
        ring[:, :6, 1] = pixels[:, 1:2, 1] + radii[:, 1:2] * np.sin(far)
        ring[:, 6:, 0] = pixels[:, 0:1, 0] + radii[:, 0:1] * np.cos(near)
        ring[:, 6:, 1] = pixels[:, 0:1, 1] + radii[:, 0:1] * np.sin(near)
        fixed = fixed_point(ring.reshape(-1, 2)).reshape(-1, 12, 2)
        distance = float(np.linalg.norm(position - camera.position))
        # A round body is lit on the side of the sun: approximate with the direction towards the camera.
        facing = camera.position - position
        normal = (facing / max(distance, 1e-6) + light.sun * 0.5)[None]
        colours = light.shade(
            np.array(self.colours), np.repeat(normal, len(fixed), axis=0), distance, np.zeros(len(fixed))
        )
        sunny = 1 if camera.rotation[0] @ light.sun > 0 else -1
        for index, shape in enumerate(fixed):
            canvas.convex(shape, colours[index], owner)
            size = radii[index].max()
            if size > 2.5:
                # A shaded flank makes the limb round.
                flank = shape.copy()
                middle = fixed_point(pixels[index].mean(axis=0, keepdims=True))[0]
                flank[:] = middle + (shape - middle) * np.array([0.62, 0.9])
                flank[:, 0] += int(sunny * size * 0.3 * (1 << SHIFT))
                canvas.convex(flank.astype(np.int32), np.minimum(colours[index] * 1.18 + 4, 255), None)
        return fixed.reshape(-1, 2)


def walker(looks: Person, gone: float, standing: bool) -> Figure:
    """A pedestrian after `gone` metres."""
    figure = Figure()
    unit = looks.height / 1.75
    wide = unit * looks.stout
    phase = 2 * np.pi * gone / (1.45 * unit)
    swing = 0.04 if standing else 0.38
    lower, upper = looks.lower, looks.upper
    hip, shoulder = 0.9 * unit, 1.44 * unit
    for side, tone in ((1.0, 0.82), (-1.0, 1.0)):
        step = np.sin(phase + (0 if side > 0 else np.pi)) * swing
        lift = max(0.0, float(np.cos(phase + (0 if side > 0 else np.pi)))) * (0.0 if standing else 0.12)
        y = 0.1 * wide * side
        knee = (step * 0.55 + 0.06 * (lift > 0), y, 0.48 * unit + lift * 0.4)
        foot = (step * 1.0 * unit - lift * 0.5, y, 0.09 * unit + lift * 0.6)
        figure.limb((0.0, y * 0.9, hip), knee, 0.095 * wide, 0.068 * wide, lower * tone)
        figure.limb(knee, foot, 0.066 * wide, 0.05 * wide, (looks.skin if looks.shorts else lower) * tone)
        figure.limb(
            (foot[0] - 0.03, y, 0.05 * unit + lift * 0.6),
            (foot[0] + 0.15 * unit, y, 0.045 * unit + lift * 0.6),
            0.05 * unit,
            0.04 * unit,
            looks.shoes * tone,
        )
    if looks.coat:
        figure.limb((0.0, 0.0, hip + 0.1), (0.0, 0.0, hip - looks.coat), 0.16 * wide, 0.2 * wide, upper * 0.92)
    if looks.bag == "back":
        figure.limb((-0.2, 0.0, 1.38 * unit), (-0.2, 0.0, 1.08 * unit), 0.13 * wide, 0.15 * wide, looks.bag_colour)
    _trunk(figure, looks, unit, wide, hip, shoulder, 0.0)
    for side, tone in ((1.0, 0.85), (-1.0, 0.97)):
        back = -np.sin(phase + (0 if side > 0 else np.pi)) * swing * 0.8
        y = 0.22 * wide * side
        elbow = (back * 0.45, y * 1.12, 1.15 * unit)
        hand = (back + 0.06, y * 1.08, 0.9 * unit)
        figure.limb((0.0, y, shoulder - 0.03), elbow, 0.056 * wide, 0.05 * wide, upper * tone)
        figure.limb(elbow, hand, 0.047 * wide, 0.036 * wide, (upper if looks.sleeves else looks.skin) * tone)
        figure.limb(hand, (hand[0] + 0.02, hand[1], hand[2] - 0.07), 0.04 * unit, 0.035 * unit, looks.skin)
        if looks.bag == "hand" and side < 0:
            figure.limb(
                (hand[0], hand[1], hand[2] - 0.18),
                (hand[0], hand[1], hand[2] - 0.42),
                0.09,
                0.13,
                looks.bag_colour,
            )
    if looks.bag == "shoulder":
        figure.limb((0.02, 0.23 * wide, 1.0 * unit), (0.02, 0.23 * wide, 0.85 * unit), 0.1, 0.11, looks.bag_colour)
    add_head(figure, looks, unit, 0.0, 1.63 * unit)
    return figure


def _trunk(figure: Figure, looks: Person, unit: float, wide: float, hip: float, shoulder: float, lean: float) -> None:
    for side in (wide, -wide):
        figure.limb(
            (lean, 0.11 * side, shoulder - 0.08), (0.0, 0.06 * side, hip), 0.115 * wide, 0.115 * wide, looks.upper
        )
    figure.limb((lean, 0.0, shoulder - 0.1), (0.0, 0.0, hip), 0.13 * wide, 0.125 * wide, looks.upper * 1.04)
    figure.limb(
        (lean, 0.0, shoulder),
        (lean * 1.1, 0.0, shoulder + 0.09 * unit),
        0.06 * unit,
        0.05 * unit,
        looks.skin * 0.85,
    )


def add_head(figure: Figure, looks: Person, unit: float, x: float, z: float) -> None:
    """Hair, face and crown around (x, z)."""
    size = 0.105 * unit
    figure.limb(
        (x - 0.02, 0.0, z + 0.045 * unit),
        (x - 0.045, 0.0, z - 0.02),
        size * looks.hood,
        size * 0.95,
        looks.hair,
    )
    figure.limb((x + 0.02, 0.0, z + 0.01), (x + 0.025, 0.0, z - 0.045 * unit), size * 0.86, size * 0.72, looks.skin)
    figure.limb(
        (x, 0.0, z + 0.075 * unit),
        (x - 0.01, 0.0, z + 0.07 * unit),
        size * 0.9 * looks.hood,
        size * 0.9,
        looks.hair,
    )
