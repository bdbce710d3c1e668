"""Passenger cars: a lower body with rounded corners and a greenhouse on it."""

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
from .camera import FloatArray
from .chance import pick
from .mesh import MeshBuilder, Panel
from .textures import grain_tile


def car(rng: np.random.Generator) -> Vehicle:
    """A passenger car."""
    kind = pick(rng, ("hatch", "saloon", "estate", "suv", "pickup", "small"), (0.28, 0.24, 0.13, 0.2, 0.07, 0.08))
    length = {"hatch": 4.15, "saloon": 4.65, "estate": 4.7, "suv": 4.6, "pickup": 5.3, "small": 3.6}[kind]
    height = {"hatch": 1.47, "saloon": 1.44, "estate": 1.48, "suv": 1.72, "pickup": 1.8, "small": 1.5}[kind]
    length, height = length * rng.uniform(0.95, 1.06), height * rng.uniform(0.96, 1.05)
    half = (0.84 if kind == "small" else 0.9 if kind in ("hatch", "saloon") else 0.95) * rng.uniform(0.96, 1.04)
    tall = kind in ("suv", "pickup")
    clearance, belt = (0.30 if tall else 0.2), height * rng.uniform(0.58, 0.64)
    end, radius = length / 2, (0.37 if tall else 0.315)
    colour, glass = draw_paint(rng), draw_glass(rng)
    trim = DARK * rng.uniform(0.7, 1.6) if rng.random() < (0.75 if tall else 0.4) else colour * 0.85
    # Greenhouse: rear and front at the belt, then at the roof, as fractions of the length.
    rear, roof_rear, roof_front, front = {
        "hatch": (0.01, 0.13, 0.54, 0.76),
        "saloon": (0.13, 0.29, 0.54, 0.74),
        "estate": (0.01, 0.08, 0.54, 0.74),
        "suv": (0.01, 0.09, 0.55, 0.74),
        "pickup": (0.42, 0.45, 0.60, 0.75),
        "small": (0.01, 0.08, 0.6, 0.84),
    }[kind]
    nose = belt * rng.uniform(0.74, 0.86)
    axles = (-end + length * 0.19, end - length * 0.2)
    builder = MeshBuilder()
    running_gear(builder, length, half, clearance, radius, axles)

    builder.part((0.0, 0.0, belt * 0.55))
    tail = belt * rng.uniform(0.93, 1.02)
    profile = (
        (-end + 0.06, clearance),
        (-end, belt * 0.55),
        (-end + 0.06, tail),
        (end * (2 * front - 1), belt),
        (end - 0.16, nose),
        (end, nose * 0.66),
        (end - 0.05, clearance),
    )
    corner, bevel = half * 0.86, 0.22  # rounded corners: ends are narrower than the middle
    ends = [x + bevel if index < 3 else x - bevel if index > 3 else x for index, (x, _) in enumerate(profile)]
    widths = (corner, corner, corner, half, corner, corner, corner)
    strips = []
    for index, ((xa, za), (xb, zb)) in enumerate(pairwise(profile)):
        wa, wb = widths[index], widths[index + 1]
        strips.append(builder.panel(((xa, wa, za), (xa, -wa, za), (xb, -wb, zb), (xb, wb, zb)), colour))
        for side in (-half, half):
            builder.face(
                np.array(
                    [
                        [xa, side / half * wa, za],
                        [xb, side / half * wb, zb],
                        [ends[index + 1], side, zb],
                        [ends[index], side, za],
                    ]
                ),
                colour * 0.96,
            )
    bumper, boot, _, _, grille, apron = strips
    _rear_end(rng, bumper, boot, trim, colour)
    _front_end(rng, grille, apron, trim)
    for side in (-1.0, 1.0):
        outward = builder.face(
            np.array([[x, side * half, z] for x, (_, z) in zip(ends, profile, strict=False)]), colour
        )
        _flank(builder, outward, side, half, belt, clearance, colour, trim, length)
        for x in axles:
            angle = np.linspace(0, np.pi, 9)
            arch = np.stack(
                [
                    x + radius * 1.22 * np.cos(angle),
                    np.full(9, side * (half + 0.005)),
                    np.maximum(radius + radius * 1.18 * np.sin(angle), clearance),
                ],
                axis=1,
            )
            builder.add(arch, SHADE * 1.3, outward, False)
            wheel(builder, x, side, half, radius, np.full(3, rng.uniform(90, 190)))

    builder.part((end * (rear + front - 1), 0.0, (belt + height) / 2 - 0.1))
    base, top = half * 0.95, half * rng.uniform(0.72, 0.8)
    back_low, back_high, screen_high, screen_low = (
        float(end * (2 * part - 1)) for part in (rear, roof_rear, roof_front, front)
    )
    cabin = colour if rng.random() < 0.85 else DARK
    back = builder.panel(
        (
            (back_low, base, tail),
            (back_low, -base, tail),
            (back_high, -top, height),
            (back_high, top, height),
        ),
        cabin,
    )
    back.rectangle(0.08, 0.12, 0.92, 0.9, glass)
    back.rectangle(0.08, 0.6, 0.92, 0.9, glass * 1.5)
    roof = builder.panel(
        (
            (back_high, top, height),
            (back_high, -top, height),
            (screen_high, -top, height),
            (screen_high, top, height),
        ),
        cabin,
    )
    roof.rectangle(0.2, 0.2, 0.8, 0.8, cabin * 1.1)
    screen = builder.panel(
        (
            (screen_low, -base, belt),
            (screen_low, base, belt),
            (screen_high, top, height),
            (screen_high, -top, height),
        ),
        cabin,
    )
    screen.rectangle(0.05, 0.04, 0.95, 0.93, glass)
    screen.shape(((0.05, 0.5), (0.6, 0.93), (0.3, 0.93), (0.05, 0.75)), glass * 1.7)
    screen.rectangle(0.14, 0.05, 0.42, 0.45, glass * 0.6)
    for side in (-1.0, 1.0):
        pane = builder.panel(
            (
                (back_low, side * base, tail),
                (screen_low, side * base, belt),
                (screen_high, side * top, height),
                (back_high, side * top, height),
            ),
            cabin,
        )
        splits: tuple[float, ...] = (0.06, 0.36, 0.64, 0.95) if kind in ("estate", "suv") else (0.1, 0.5, 0.95)
        if kind == "pickup":
            splits = (0.08, 0.92)
        for left, right in pairwise(splits):
            pane.rectangle(left + 0.012, 0.08, right - 0.012, 0.86, glass)
            pane.shape(
                ((left + 0.012, 0.5), (right - 0.012, 0.62), (right - 0.012, 0.86), (left + 0.012, 0.86)),
                glass * rng.uniform(1.2, 2.2),
            )
    for side in (-1.0, 1.0):
        mirror = builder.box(
            (screen_low - 0.35, side * half - 0.02, belt),
            (screen_low - 0.2, side * (half + 0.18), belt + 0.14),
            colour,
        )
        mirror["rear"].rectangle(0.1, 0.1, 0.9, 0.9, glass * 2)
    if kind == "pickup":
        builder.box((-end + 0.05, -half * 0.9, belt), (back_low, half * 0.9, belt * rng.uniform(1.02, 1.3)), DARK)
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)


def _flank(
    builder: MeshBuilder,
    outward: FloatArray,
    side: float,
    half: float,
    belt: float,
    clearance: float,
    colour: FloatArray,
    trim: FloatArray,
    length: float,
) -> None:
    """Sill, highlight, door lines and handles on one side."""
    y = side * (half + 0.004)

    def slab(x0: float, z0: float, x1: float, z1: float, tone: FloatArray) -> None:
        builder.add(np.array([[x0, y, z0], [x1, y, z0], [x1, y, z1], [x0, y, z1]]), tone, outward, False)

    end = length / 2
    slab(-end + 0.24, belt * 0.78, end * 0.55, belt * 0.97, np.minimum(colour * 1.14 + 8, 250))
    slab(-end + 0.24, clearance, end - 0.24, clearance + 0.3 * (belt - clearance), colour * 0.72)
    slab(-end + 0.24, clearance, end - 0.26, clearance + 0.12, trim * 0.8)
    for x in (-length * 0.16, length * 0.08, length * 0.26):
        slab(x, clearance + 0.1, x + 0.018, belt, colour * 0.45)
        slab(x - 0.3, belt * 0.83, x - 0.12, belt * 0.87, colour * 0.6)
    slab(end - 0.6, belt * 0.56, end - 0.38, belt * 0.69, WHITE * 0.8)
    slab(-end + 0.23, belt * 0.68, -end + 0.4, belt * 0.85, RED * 0.75)


def _rear_end(rng: np.random.Generator, bumper: Panel, boot: Panel, trim: FloatArray, colour: FloatArray) -> None:
    bumper.rectangle(0.02, 0.05, 0.98, 0.55, trim)
    bumper.rectangle(0.1, 0.0, 0.9, 0.2, DARK)
    low, high, wide = rng.uniform(0.15, 0.4), rng.uniform(0.75, 0.98), rng.uniform(0.13, 0.26)
    for u0, u1 in ((0.015, wide), (1 - wide, 0.985)):
        boot.rectangle(u0, low, u1, high, RED, 0.9)
        boot.rectangle(u0 + 0.01, low, u1 - 0.01, low + 0.3 * (high - low), pick(rng, (AMBER, WHITE, RED * 0.7)), 0.1)
    if rng.random() < 0.15:
        boot.rectangle(wide, high - 0.1, 1 - wide, high - 0.03, RED, 0.8)
    if rng.random() < 0.6:
        plate(rng, boot, 0.3, 0.36)
    else:
        plate(rng, bumper, 0.55, 0.3)
    boot.rectangle(0.0, 0.02, 1.0, 0.06, colour * 0.5)
    bumper.rectangle(0.03, 0.3, 0.1, 0.38, RED * 0.8)
    bumper.rectangle(0.9, 0.3, 0.97, 0.38, RED * 0.8)


def _front_end(rng: np.random.Generator, grille: Panel, apron: Panel, trim: FloatArray) -> None:
    wide = rng.uniform(0.18, 0.3)
    for u0, u1 in ((0.02, wide), (1 - wide, 0.98)):
        grille.rectangle(u0, 0.15, u1, 0.92, np.full(3, rng.uniform(150, 230)), 0.25)
        middle = (u0 + u1) / 2
        grille.rectangle(middle - 0.06, 0.25, middle + 0.06, 0.8, WHITE, 1.0)
    grille.rectangle(wide + 0.03, 0.1, 0.97 - wide, 0.85, DARK * rng.uniform(0.6, 1.4))
    grille.rectangle(0.46, 0.4, 0.54, 0.8, np.full(3, 190.0))
    apron.rectangle(0.15, 0.35, 0.85, 0.75, DARK * 0.8)
    apron.rectangle(0.05, 0.72, 0.95, 0.98, trim)
    plate(rng, apron, 0.2, 0.24)
    for u in (0.06, 0.86):
        apron.rectangle(u, 0.4, u + 0.08, 0.6, WHITE * 0.7, 0.3)
