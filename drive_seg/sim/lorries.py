"""Vans, lorries and buses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .bodywork import (
    AMBER,
    DARK,
    RED,
    SHADE,
    WHITE,
    Vehicle,
    draw_glass,
    draw_paint,
    plate,
    running_gear,
    wheel,
)
from .mesh import MeshBuilder, Panel
from .textures import grain_tile


def van(rng: np.random.Generator) -> Vehicle:
    """A delivery van or minibus."""
    length, half, height = rng.uniform(4.6, 6.2), rng.uniform(0.95, 1.05), rng.uniform(1.9, 2.7)
    end, clearance, radius = length / 2, 0.28, 0.35
    colour = np.full(3, rng.uniform(205, 242)) if rng.random() < 0.55 else draw_paint(rng)
    glass, trim = draw_glass(rng), DARK * rng.uniform(0.8, 1.6)
    builder = MeshBuilder()
    axles = (-end + length * 0.2, end - 0.95)
    running_gear(builder, length, half, clearance, radius, axles)
    builder.part((0.0, 0.0, height / 2))
    belt, hood = height * 0.48, height * rng.uniform(0.4, 0.5)
    top = half * 0.9
    profile = (
        (-end, clearance),
        (-end + 0.05, belt),
        (-end + 0.12, height),
        (end - length * 0.3, height),
        (end - length * 0.13, hood + 0.12),
        (end - 0.1, hood * 0.92),
        (end, clearance + 0.2),
        (end, clearance),
    )
    widths = (half, half, top, top, half * 0.98, half * 0.95, half * 0.95, half * 0.95)
    strips = [
        builder.panel(((a[0], wa, a[1]), (a[0], -wa, a[1]), (b[0], -wb, b[1]), (b[0], wb, b[1])), colour)
        for (a, b), (wa, wb) in zip(pairwise(profile), pairwise(widths), strict=False)
    ]
    strips[0].rectangle(0.0, 0.0, 1.0, 0.25, trim)
    for u in (0.01, 0.89):
        strips[0].rectangle(u, 0.45, u + 0.1, 0.98, RED, 0.9)
    plate(rng, strips[0], 0.35, 0.16)
    if rng.random() < 0.65:
        strips[1].rectangle(0.08, 0.15, 0.48, 0.75, glass)
        strips[1].rectangle(0.52, 0.15, 0.92, 0.75, glass)
    strips[1].rectangle(0.495, 0.0, 0.505, 1.0, colour * 0.5)
    strips[3].rectangle(0.05, 0.08, 0.95, 0.95, glass)
    strips[3].shape(((0.05, 0.1), (0.5, 0.95), (0.2, 0.95), (0.05, 0.6)), glass * 1.6)
    for u in (0.03, 0.77):
        strips[5].rectangle(u, 0.5, u + 0.2, 0.95, WHITE, 1.0)
    strips[5].rectangle(0.25, 0.5, 0.75, 0.9, trim)
    strips[5].rectangle(0.0, 0.0, 1.0, 0.4, trim)
    windows = rng.random() < 0.45
    stripe = rng.uniform(20, 230, 3) if rng.random() < 0.35 else None
    for side in (-1.0, 1.0):
        builder.face(np.array([[x, side * w, z] for (x, z), w in zip(profile, widths, strict=False)]), colour)
        wall = builder.panel(
            (
                (-end + 0.05, side * (half + 0.002), clearance),
                (end - 0.05, side * (half + 0.002), clearance),
                (end - 0.1, side * (half + 0.002), hood),
                (-end + 0.1, side * (half + 0.002), hood),
            ),
            colour * 0.93,
        )
        wall.rectangle(0.0, 0.0, 1.0, 0.22, trim)
        upper = Panel(
            builder,
            np.array(
                [
                    [-end + 0.1, side * half * 1.004, belt],
                    [end - length * 0.15, side * half * 1.004, belt],
                    [end - length * 0.3, side * half * 0.918, height * 0.93],
                    [-end + 0.12, side * half * 0.918, height * 0.93],
                ]
            ),
            np.array([0, side, 0.0]),
        )
        upper.rectangle(0.72, 0.02, 0.97, 0.85, glass)
        if windows:
            upper.rectangle(0.03, 0.1, 0.35, 0.8, glass)
            upper.rectangle(0.38, 0.1, 0.69, 0.8, glass * 1.2)
        elif stripe is not None:
            upper.rectangle(0.05, 0.1, 0.65, rng.uniform(0.3, 0.7), stripe)
        for x in axles:
            wheel(builder, x, side, half, radius, np.full(3, rng.uniform(70, 170)))
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)


def lorry(rng: np.random.Generator) -> Vehicle:
    """A lorry with a box."""
    length, half, height = rng.uniform(6.5, 11.5), rng.uniform(1.1, 1.26), rng.uniform(2.8, 3.9)
    end, clearance, radius = length / 2, 0.75, 0.5
    cab_length = rng.uniform(1.7, 2.2)
    cargo = np.full(3, rng.uniform(170, 240)) if rng.random() < 0.5 else draw_paint(rng)
    colour, glass = draw_paint(rng), draw_glass(rng)
    builder = MeshBuilder()
    axles = (-end + 1.6, end - 1.2)
    running_gear(builder, length, half * 0.95, clearance, radius, axles)
    chassis = builder.box((-end + 0.15, -half * 0.5, 0.55), (end - 0.5, half * 0.5, clearance + 0.05), SHADE * 2)
    chassis["rear"].rectangle(0.0, 0.0, 1.0, 1.0, DARK)
    for side in (-1.0, 1.0):
        for x in axles:
            wheel(builder, x, side, half * 0.97, radius, np.full(3, rng.uniform(60, 150)))
    box = builder.box((-end, -half, clearance), (end - cab_length - 0.15, half, height), cargo)
    for u in (0.02, 0.86):
        box["rear"].rectangle(u, 0.0, u + 0.12, 0.07, RED, 0.9)
    box["rear"].rectangle(0.493, 0.02, 0.507, 0.98, cargo * 0.5)
    for u in (0.25, 0.75):
        box["rear"].rectangle(u - 0.008, 0.02, u + 0.008, 0.98, cargo * 0.7)
    box["rear"].rectangle(0.0, 0.97, 1.0, 1.0, cargo * 0.6)
    plate(rng, box["rear"], 0.005, 0.05)
    if rng.random() < 0.6:
        logo = rng.uniform(15, 230, 3)
        x, y = rng.uniform(0.1, 0.3), rng.uniform(0.3, 0.5)
        for name in ("left", "right", "rear"):
            box[name].rectangle(x, y, x + rng.uniform(0.3, 0.55), y + 0.25, logo)
    for name in ("left", "right"):
        for u in np.linspace(0.08, 0.92, 9):
            box[name].rectangle(u, 0.02, u + 0.006, 0.98, cargo * 0.86)
        box[name].rectangle(0.0, 0.0, 1.0, 0.05, cargo * 0.55)
    cab = builder.box(
        (end - cab_length, -half * 0.97, 0.4),
        (end, half * 0.97, min(height, rng.uniform(2.5, 3.1))),
        colour,
        0.96,
    )
    cab["front"].rectangle(0.05, 0.5, 0.95, 0.92, glass)
    cab["front"].rectangle(0.15, 0.2, 0.85, 0.42, DARK)
    cab["front"].rectangle(0.0, 0.0, 1.0, 0.12, DARK)
    for u in (0.03, 0.82):
        cab["front"].rectangle(u, 0.1, u + 0.15, 0.2, WHITE, 1.0)
    for name, u0, u1 in (("left", 0.45, 0.92), ("right", 0.08, 0.55)):
        cab[name].rectangle(u0, 0.52, u1, 0.88, glass)
        cab[name].rectangle(0.0, 0.0, 1.0, 0.15, DARK)
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)


def bus(rng: np.random.Generator) -> Vehicle:
    """A bus, sometimes with two decks."""
    length, half, height = rng.uniform(8.5, 12.0), rng.uniform(1.15, 1.27), rng.uniform(2.8, 3.2)
    if rng.random() < 0.15:
        height = 4.2
    end, clearance, radius = length / 2, 0.32, 0.48
    colour, second, glass = draw_paint(rng), draw_paint(rng), draw_glass(rng)
    builder = MeshBuilder()
    axles = (-end + 2.6, end - 2.5)
    running_gear(builder, length, half, clearance, radius, axles)
    box = builder.box((-end, -half, clearance), (end, half, height), colour, 0.97)
    decks = ((0.45, 0.82),) if height < 4 else ((0.26, 0.48), (0.62, 0.85))
    for name in ("left", "right"):
        box[name].rectangle(0.0, 0.0, 1.0, rng.uniform(0.1, 0.28), second)
        for low, high in decks:
            box[name].rectangle(0.03, low, 0.97, high, glass)
            for u in np.linspace(0.12, 0.9, 7):
                box[name].rectangle(u, low, u + 0.012, high, colour * 0.55)
            box[name].shape(((0.05, low), (0.3, high), (0.2, high), (0.05, (low + high) / 2)), glass * 1.6)
    for side in (-1.0, 1.0):
        for x in axles:
            wheel(builder, x, side, half, radius, np.full(3, rng.uniform(70, 160)))
    for low, high in decks:
        box["rear"].rectangle(0.12, low + 0.05, 0.88, high, glass)
        box["front"].rectangle(0.04, low - 0.08, 0.96, high, glass)
    box["rear"].rectangle(0.1, 0.06, 0.9, 0.3, second * 0.8)
    box["front"].rectangle(0.1, 0.86, 0.9, 0.97, DARK)
    box["front"].rectangle(0.25, 0.88, 0.75, 0.95, AMBER, 0.9)
    box["front"].rectangle(0.0, 0.0, 1.0, 0.1, DARK)
    for u in (0.02, 0.9):
        box["rear"].rectangle(u, 0.14, u + 0.08, 0.36, RED, 0.9)
        box["front"].rectangle(u, 0.12, u + 0.08, 0.2, WHITE, 1.0)
    plate(rng, box["rear"], 0.08, 0.05)
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)
