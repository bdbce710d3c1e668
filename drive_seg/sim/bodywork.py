"""Parts that every vehicle has: paint, glass, wheels, underside, plates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import FloatArray
from .canvas import ByteArray
from .chance import pick
from .mesh import Mesh, MeshBuilder, Panel

_PAINTS = (
    (235, 236, 236),
    (240, 240, 240),
    (196, 198, 201),
    (150, 153, 157),
    (96, 98, 102),
    (50, 51, 54),
    (22, 22, 24),
    (28, 30, 34),
    (150, 22, 24),
    (190, 35, 30),
    (32, 58, 118),
    (70, 105, 160),
    (24, 36, 66),
    (38, 70, 48),
    (110, 130, 70),
    (205, 175, 60),
    (215, 120, 40),
    (120, 84, 55),
    (190, 175, 150),
)
TYRE = np.array([24.0, 24.0, 26.0])
DARK = np.array([30.0, 31.0, 33.0])
SHADE = np.array([12.0, 12.0, 13.0])
RED = np.array([225.0, 22.0, 18.0])
WHITE = np.array([250.0, 247.0, 235.0])
AMBER = np.array([235.0, 140.0, 30.0])


@dataclass(frozen=True)
class Vehicle:
    """A body with its size, metres."""

    mesh: Mesh
    grain: ByteArray
    length: float
    width: float
    height: float


def draw_paint(rng: np.random.Generator) -> FloatArray:
    """A colour of a car, RGB 0..255."""
    if rng.random() < 0.12:
        vivid = rng.uniform(20, 235, 3)
        return vivid * 0.6 + float(vivid.mean()) * 0.4
    return np.clip(np.array(pick(rng, _PAINTS)) * rng.uniform(0.85, 1.12) + rng.uniform(-8, 8, 3), 12, 246)


def draw_glass(rng: np.random.Generator) -> FloatArray:
    """The colour of its panes."""
    return np.array([40.0, 48.0, 56.0]) * rng.uniform(0.5, 1.7)


def wheel(builder: MeshBuilder, x: float, side: float, half: float, radius: float, rim: FloatArray) -> None:
    """One wheel at x on one side (+1 left): tyre, rim, hub."""
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    outward = np.array([0.0, side, 0.0])
    for size, colour, out, solid in (
        (1.0, TYRE, 0.012, True),
        (0.66, rim, 0.016, False),
        (0.5, rim * 0.55, 0.018, False),
        (0.16, rim, 0.02, False),
    ):
        ring = np.stack(
            [
                x + radius * size * np.cos(angle),
                np.full(14, side * (half + out)),
                radius + radius * size * np.sin(angle),
            ],
            axis=1,
        )
        builder.add(ring, colour, outward, solid)


def running_gear(
    builder: MeshBuilder,
    length: float,
    half: float,
    clearance: float,
    radius: float,
    axles: tuple[float, ...],
) -> None:
    """The dark underside and the treads of the tyres, seen below the bumpers."""
    end = length / 2
    builder.part((0.0, 0.0, clearance))
    for x in (-end + 0.25, end - 0.25):
        builder.panel(
            (
                (x, half * 0.9, 0.13),
                (x, -half * 0.9, 0.13),
                (x, -half * 0.9, clearance + 0.1),
                (x, half * 0.9, clearance + 0.1),
            ),
            SHADE,
        )
    for side in (-1.0, 1.0):
        builder.panel(
            (
                (-end + 0.3, side * half * 0.93, 0.14),
                (end - 0.3, side * half * 0.93, 0.14),
                (end - 0.3, side * half * 0.93, clearance + 0.1),
                (-end + 0.3, side * half * 0.93, clearance + 0.1),
            ),
            SHADE,
        )
        for x, facing in ((min(axles), -1.0), (max(axles), 1.0)):
            tread = x + facing * radius * 0.75
            ring = np.array(
                [
                    [tread, side * (half - 0.02), 0.0],
                    [tread, side * (half - 0.23), 0.0],
                    [tread, side * (half - 0.23), clearance + 0.1],
                    [tread, side * (half - 0.02), clearance + 0.1],
                ]
            )
            builder.add(ring, TYRE, np.array([facing, 0.0, 0.0]), True)


def plate(rng: np.random.Generator, panel: Panel, v: float, height: float) -> None:
    """A number plate in the middle of a panel, from v upwards."""
    tone = np.array([235.0, 200.0, 40.0]) if rng.random() < 0.2 else np.array([235.0, 235.0, 228.0])
    panel.rectangle(0.35, v, 0.65, v + height, tone)
    panel.rectangle(0.38, v + height * 0.25, 0.62, v + height * 0.75, tone * 0.45)
