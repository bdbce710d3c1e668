"""The road's surface: its colours, what is painted on it and what time did to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import FloatArray
from .chance import pick
from .road import Layout


@dataclass(frozen=True)
class Paint:
    """Colours (RGB 0..255) of the ground before light."""

    asphalt: FloatArray
    side: FloatArray  # asphalt of parking strips and side roads
    kerb: FloatArray
    walk: FloatArray
    verge: FloatArray
    white: FloatArray
    yellow: FloatArray


@dataclass(frozen=True)
class Patch:
    """Something flat on the road in road coordinates; `points` (N, 2) are s, d in metres.

    `gain` != 1 changes the light only (repairs, seams, cracks); a painted mark is white or yellow.
    """

    points: FloatArray
    gain: float = 1.0
    mark: bool = False
    asphalt: bool = False


def draw_paint(rng: np.random.Generator) -> Paint:
    """Colours of one drive."""
    asphalt = np.full(3, rng.uniform(48, 118)) * (1 + rng.normal(0, 0.02, 3))
    green = np.array([rng.uniform(55, 115), rng.uniform(80, 125), rng.uniform(35, 62)])
    verge = green if rng.random() < 0.7 else np.array([150.0, 130.0, 100.0]) * rng.uniform(0.6, 1.1)
    walk = np.array([1.0, 0.97, 0.93]) * rng.uniform(105, 190) + rng.uniform(-8, 8, 3)
    bright = np.clip(asphalt.mean() + rng.uniform(75, 140), 0, 245)
    return Paint(
        asphalt,
        asphalt * rng.uniform(0.85, 1.12),
        walk * rng.uniform(0.85, 1.15),
        walk,
        verge,
        np.full(3, bright),
        np.array([1.0, rng.uniform(0.7, 0.85), rng.uniform(0.15, 0.4)]) * min(bright * 1.02, 240),
    )


def box(s0: float, s1: float, d0: float, d1: float) -> FloatArray:
    """A rectangle in road coordinates (4, 2)."""
    return np.array([[s0, d0], [s1, d0], [s1, d1], [s0, d1]])


def zebra(rng: np.random.Generator, layout: Layout, s0: float, s1: float) -> list[Patch]:
    """A crosswalk from s0 to s1: bars along the road, or two lines across it."""
    if rng.random() < 0.3:
        return [Patch(box(s, s + 0.25, layout.right + 0.3, layout.left - 0.3), mark=True) for s in (s0, s1)]
    wide = float(rng.uniform(0.4, 0.6))
    bars = np.arange(layout.right + 0.4, layout.left - 0.4 - wide, wide * float(rng.uniform(1.9, 2.4)))
    return [
        Patch(box(s0, s1, d, d + wide), mark=True) for d in bars if not (layout.median and -0.5 < d < layout.median)
    ]


def arrow(rng: np.random.Generator, s: float, d: float) -> list[Patch]:
    """An arrow or some letters in the middle of a lane."""
    kind = pick(rng, ("ahead", "left", "right", "letters"), (0.45, 0.2, 0.2, 0.15))
    if kind == "letters":
        return [
            Patch(box(s, s + 1.6, d + x, d + x + w), mark=True)
            for x, w in zip(np.arange(-0.9, 0.9, 0.42), rng.uniform(0.1, 0.3, 5), strict=False)
        ]
    shaft = Patch(box(s, s + 2.6, d - 0.08, d + 0.08), mark=True)
    if kind == "ahead":
        return [
            shaft,
            Patch(np.array([[s + 2.6, d - 0.35], [s + 4.2, d], [s + 2.6, d + 0.35]]), mark=True),
        ]
    side = 1.0 if kind == "left" else -1.0
    return [
        shaft,
        Patch(box(s + 2.35, s + 2.6, d, d + side * 0.4), mark=True),
        Patch(
            np.array([[s + 1.9, d + side * 0.4], [s + 2.5, d + side * 0.95], [s + 3.1, d + side * 0.4]]),
            mark=True,
        ),
    ]


def wear(rng: np.random.Generator, layout: Layout, worn: float, s: float, length: float) -> list[Patch]:
    """Repairs, seams, cracks, manholes of `length` metres from s: light only, never a marking."""
    found: list[Patch] = []
    low, high = layout.right + 0.3, layout.left - 0.3
    for _ in range(int(rng.poisson(0.7 * worn))):
        d, wide, long = (
            float(rng.uniform(low, high)),
            float(rng.uniform(0.5, 3)),
            float(rng.uniform(0.8, 8)),
        )
        found.append(Patch(box(s, s + long, d, min(d + wide, high)), float(rng.uniform(0.68, 1.22))))
    for _ in range(int(rng.poisson(0.8 * worn))):
        d, wide = float(rng.uniform(low, high)), float(rng.uniform(0.03, 0.09))
        gain = float(rng.uniform(0.5, 0.75)) if rng.random() < 0.75 else float(rng.uniform(1.15, 1.4))
        if rng.random() < 0.5:
            found.append(Patch(box(s, s + length, d, d + wide), gain))
        else:
            found.append(Patch(box(s + 3, s + 3 + wide, low, high), gain))
    for _ in range(int(rng.poisson(1.2 * worn))):
        at, d = s + float(rng.uniform(0, 9)), float(rng.uniform(low, high))
        steps = np.column_stack([rng.uniform(0.2, 0.9, 6), rng.normal(0, 0.25, 6)])
        path = np.cumsum(steps, axis=0) + np.array([at, d])
        ring = np.concatenate([path, path[::-1] + np.array([0.0, 0.035])])
        found.append(Patch(ring, float(rng.uniform(0.5, 0.75))))
    if rng.random() < 0.2:
        angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
        at, d = s + float(rng.uniform(0, length)), float(rng.uniform(low, high))
        found.append(
            Patch(
                np.column_stack([at + 0.32 * np.cos(angle), d + 0.32 * np.sin(angle)]),
                float(rng.uniform(0.5, 0.8)),
            )
        )
    return found
