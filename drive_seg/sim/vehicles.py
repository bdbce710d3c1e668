"""Cars, vans, lorries and buses, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .camera import FloatArray
from .canvas import ByteArray
from .chance import chance, pick
from .mesh import Mesh, MeshBuilder, Panel
from .textures import grain_tile

_PAINTS = ((235, 236, 236), (240, 240, 240), (196, 198, 201), (150, 153, 157), (96, 98, 102), (50, 51, 54),
           (22, 22, 24), (28, 30, 34), (150, 22, 24), (190, 35, 30), (32, 58, 118), (70, 105, 160), (24, 36, 66),
           (38, 70, 48), (110, 130, 70), (205, 175, 60), (215, 120, 40), (120, 84, 55), (190, 175, 150))
_TYRE = np.array([24.0, 24.0, 26.0])
_DARK = np.array([30.0, 31.0, 33.0])
_SHADE = np.array([12.0, 12.0, 13.0])
_RED = np.array([225.0, 22.0, 18.0])
_WHITE = np.array([250.0, 247.0, 235.0])
_AMBER = np.array([235.0, 140.0, 30.0])


@dataclass(frozen=True)
class Vehicle:
    """A body with its size, metres."""

    mesh: Mesh
    grain: ByteArray
    length: float
    width: float
    height: float


# Bodies are drawn from a pool that all drives share, so that a process that renders many drives builds each once.
CARS, HEAVIES = 1200, 300


def draw_look(rng: np.random.Generator, heavy: float) -> int:
    """The number of a vehicle; `heavy` is the share of vans, lorries and buses."""
    number, kind = int(rng.integers(1 << 30)), float(rng.random())
    return number % CARS if kind > heavy else CARS + number % HEAVIES


@lru_cache(maxsize=CARS + HEAVIES)
def vehicle(look: int) -> Vehicle:
    """The vehicle of this number."""
    rng = chance(look, 301)
    if look < CARS:
        return _car(rng)
    kind = pick(rng, ("van", "lorry", "bus"), (0.5, 0.3, 0.2))
    return {"van": _van, "lorry": _lorry, "bus": _bus}[kind](rng)


def _paint(rng: np.random.Generator) -> FloatArray:
    if rng.random() < 0.12:
        return rng.uniform(20, 235, 3)
    return np.clip(np.array(pick(rng, _PAINTS)) * rng.uniform(0.85, 1.12) + rng.uniform(-8, 8, 3), 12, 246)


def _glass(rng: np.random.Generator) -> FloatArray:
    return np.array([40.0, 48.0, 56.0]) * rng.uniform(0.5, 1.7)


def _wheel(builder: MeshBuilder, x: float, side: float, half: float, radius: float, rim: FloatArray) -> None:
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    outward = np.array([0.0, side, 0.0])
    for size, colour, out, solid in ((1.0, _TYRE, 0.012, True), (0.66, rim, 0.016, False),
                                     (0.5, rim * 0.55, 0.018, False), (0.16, rim, 0.02, False)):
        ring = np.stack([x + radius * size * np.cos(angle), np.full(14, side * (half + out)),
                         radius + radius * size * np.sin(angle)], axis=1)
        builder.add(ring, colour, outward, solid)


def _running_gear(builder: MeshBuilder, length: float, half: float, clearance: float, radius: float,
                  axles: tuple[float, ...]) -> None:
    """The dark underside and the treads of the tyres, seen below the bumpers."""
    end = length / 2
    builder.part((0.0, 0.0, clearance))
    builder.panel(((-end + 0.25, half * 0.9, 0.13), (-end + 0.25, -half * 0.9, 0.13),
                   (-end + 0.25, -half * 0.9, clearance + 0.1), (-end + 0.25, half * 0.9, clearance + 0.1)), _SHADE)
    builder.panel(((end - 0.25, half * 0.9, 0.13), (end - 0.25, -half * 0.9, 0.13),
                   (end - 0.25, -half * 0.9, clearance + 0.1), (end - 0.25, half * 0.9, clearance + 0.1)), _SHADE)
    for side in (-1.0, 1.0):
        builder.panel(((-end + 0.3, side * half * 0.93, 0.14), (end - 0.3, side * half * 0.93, 0.14),
                       (end - 0.3, side * half * 0.93, clearance + 0.1),
                       (-end + 0.3, side * half * 0.93, clearance + 0.1)), _SHADE)
        for x, facing in ((min(axles), -1.0), (max(axles), 1.0)):
            tread = x + facing * radius * 0.75
            ring = np.array([[tread, side * (half - 0.02), 0.0], [tread, side * (half - 0.23), 0.0],
                             [tread, side * (half - 0.23), clearance + 0.1], [tread, side * (half - 0.02), clearance + 0.1]])
            builder.add(ring, _TYRE, np.array([facing, 0.0, 0.0]), True)


def _car(rng: np.random.Generator) -> Vehicle:
    kind = pick(rng, ("hatch", "saloon", "estate", "suv", "pickup", "small"), (0.28, 0.24, 0.13, 0.2, 0.07, 0.08))
    length = {"hatch": 4.15, "saloon": 4.65, "estate": 4.7, "suv": 4.6, "pickup": 5.3, "small": 3.6}[kind]
    height = {"hatch": 1.47, "saloon": 1.44, "estate": 1.48, "suv": 1.72, "pickup": 1.8, "small": 1.5}[kind]
    length, height = length * rng.uniform(0.95, 1.06), height * rng.uniform(0.96, 1.05)
    half = (0.84 if kind == "small" else 0.9 if kind in ("hatch", "saloon") else 0.95) * rng.uniform(0.96, 1.04)
    tall = kind in ("suv", "pickup")
    clearance, belt = (0.30 if tall else 0.2), height * rng.uniform(0.58, 0.64)
    end, radius = length / 2, (0.37 if tall else 0.315)
    colour, glass = _paint(rng), _glass(rng)
    trim = _DARK * rng.uniform(0.7, 1.6) if rng.random() < (0.75 if tall else 0.4) else colour * 0.85
    # Greenhouse: rear and front at the belt, rear and front at the roof, as fractions of the length from the rear.
    rear, roof_rear, roof_front, front = {
        "hatch": (0.01, 0.13, 0.54, 0.76), "saloon": (0.13, 0.29, 0.54, 0.74), "estate": (0.01, 0.08, 0.54, 0.74),
        "suv": (0.01, 0.09, 0.55, 0.74), "pickup": (0.42, 0.45, 0.60, 0.75), "small": (0.01, 0.08, 0.6, 0.84)}[kind]
    nose = belt * rng.uniform(0.74, 0.86)
    axles = (-end + length * 0.19, end - length * 0.2)
    builder = MeshBuilder()
    _running_gear(builder, length, half, clearance, radius, axles)

    builder.part((0.0, 0.0, belt * 0.55))
    tail = belt * rng.uniform(0.93, 1.02)
    profile = ((-end + 0.06, clearance), (-end, belt * 0.55), (-end + 0.06, tail), (end * (2 * front - 1), belt),
               (end - 0.16, nose), (end, nose * 0.66), (end - 0.05, clearance))
    corner, bevel = half * 0.86, 0.22  # rounded corners: ends are narrower than the middle
    ends = [x + bevel if index < 3 else x - bevel if index > 3 else x for index, (x, _) in enumerate(profile)]
    widths = (corner, corner, corner, half, corner, corner, corner)
    strips = []
    for index, ((x0, z0), (x1, z1)) in enumerate(zip(profile, profile[1:])):
        w0, w1 = widths[index], widths[index + 1]
        strips.append(builder.panel(((x0, w0, z0), (x0, -w0, z0), (x1, -w1, z1), (x1, w1, z1)), colour))
        for side in (-half, half):
            builder.face(np.array([[x0, side / half * w0, z0], [x1, side / half * w1, z1], [ends[index + 1], side, z1],
                                   [ends[index], side, z0]]), colour * 0.96)
    bumper, boot, _, _, grille, apron = strips
    _rear_end(rng, bumper, boot, trim, colour)
    _front_end(rng, grille, apron, trim, colour)
    for side in (-1.0, 1.0):
        outward = builder.face(np.array([[x, side * half, z] for x, (_, z) in zip(ends, profile)]), colour)
        _flank(rng, builder, outward, side, half, belt, clearance, colour, trim, length)
        for x in axles:
            angle = np.linspace(0, np.pi, 9)
            arch = np.stack([x + radius * 1.22 * np.cos(angle), np.full(9, side * (half + 0.005)),
                             np.maximum(radius + radius * 1.18 * np.sin(angle), clearance)], axis=1)
            builder.add(arch, _SHADE * 1.3, outward, False)
            _wheel(builder, x, side, half, radius, np.full(3, rng.uniform(90, 190)))

    builder.part((end * (rear + front - 1), 0.0, (belt + height) / 2 - 0.1))
    base, top = half * 0.95, half * rng.uniform(0.72, 0.8)
    x0, x1, x2, x3 = (end * (2 * part - 1) for part in (rear, roof_rear, roof_front, front))
    cabin = colour if rng.random() < 0.85 else _DARK
    back = builder.panel(((x0, base, tail), (x0, -base, tail), (x1, -top, height), (x1, top, height)), cabin)
    back.rectangle(0.08, 0.12, 0.92, 0.9, glass)
    back.rectangle(0.08, 0.6, 0.92, 0.9, glass * 1.5)
    roof = builder.panel(((x1, top, height), (x1, -top, height), (x2, -top, height), (x2, top, height)), cabin)
    roof.rectangle(0.2, 0.2, 0.8, 0.8, cabin * 1.1)
    screen = builder.panel(((x3, -base, belt), (x3, base, belt), (x2, top, height), (x2, -top, height)), cabin)
    screen.rectangle(0.05, 0.04, 0.95, 0.93, glass)
    screen.shape(((0.05, 0.5), (0.6, 0.93), (0.3, 0.93), (0.05, 0.75)), glass * 1.7)
    screen.rectangle(0.14, 0.05, 0.42, 0.45, glass * 0.6)
    for side in (-1.0, 1.0):
        pane = builder.panel(((x0, side * base, tail), (x3, side * base, belt), (x2, side * top, height),
                              (x1, side * top, height)), cabin)
        splits = (0.06, 0.36, 0.64, 0.95) if kind in ("estate", "suv") else (0.1, 0.5, 0.95)
        if kind == "pickup":
            splits = (0.08, 0.92)
        for left, right in zip(splits, splits[1:]):
            pane.rectangle(left + 0.012, 0.08, right - 0.012, 0.86, glass)
            pane.shape(((left + 0.012, 0.5), (right - 0.012, 0.62), (right - 0.012, 0.86), (left + 0.012, 0.86)),
                       glass * rng.uniform(1.2, 2.2))
    for side in (-1.0, 1.0):
        mirror = builder.box((x3 - 0.35, side * half - 0.02, belt), (x3 - 0.2, side * (half + 0.18), belt + 0.14), colour)
        mirror["rear"].rectangle(0.1, 0.1, 0.9, 0.9, glass * 2)
    if kind == "pickup":
        builder.box((-end + 0.05, -half * 0.9, belt), (x0, half * 0.9, belt * rng.uniform(1.02, 1.3)), _DARK)
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)


def _flank(rng: np.random.Generator, builder: MeshBuilder, outward: FloatArray, side: float, half: float, belt: float,
           clearance: float, colour: FloatArray, trim: FloatArray, length: float) -> None:
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
    slab(end - 0.5, belt * 0.6, end - 0.23, belt * 0.7, _WHITE * 0.8)
    slab(-end + 0.23, belt * 0.68, -end + 0.4, belt * 0.85, _RED * 0.75)


def _plate(rng: np.random.Generator, panel: Panel, v: float, height: float) -> None:
    tone = np.array([235.0, 200.0, 40.0]) if rng.random() < 0.2 else np.array([235.0, 235.0, 228.0])
    panel.rectangle(0.35, v, 0.65, v + height, tone)
    panel.rectangle(0.38, v + height * 0.25, 0.62, v + height * 0.75, tone * 0.45)


def _rear_end(rng: np.random.Generator, bumper: Panel, boot: Panel, trim: FloatArray, colour: FloatArray) -> None:
    bumper.rectangle(0.02, 0.05, 0.98, 0.55, trim)
    bumper.rectangle(0.1, 0.0, 0.9, 0.2, _DARK)
    low, high, wide = rng.uniform(0.15, 0.4), rng.uniform(0.75, 0.98), rng.uniform(0.13, 0.26)
    for u0, u1 in ((0.015, wide), (1 - wide, 0.985)):
        boot.rectangle(u0, low, u1, high, _RED, 0.9)
        boot.rectangle(u0 + 0.01, low, u1 - 0.01, low + 0.3 * (high - low), pick(rng, (_AMBER, _WHITE, _RED * 0.7)), 0.1)
    if rng.random() < 0.15:
        boot.rectangle(wide, high - 0.1, 1 - wide, high - 0.03, _RED, 0.8)
    if rng.random() < 0.6:
        _plate(rng, boot, 0.3, 0.36)
    else:
        _plate(rng, bumper, 0.55, 0.3)
    boot.rectangle(0.0, 0.02, 1.0, 0.06, colour * 0.5)
    bumper.rectangle(0.03, 0.3, 0.1, 0.38, _RED * 0.8)
    bumper.rectangle(0.9, 0.3, 0.97, 0.38, _RED * 0.8)


def _front_end(rng: np.random.Generator, grille: Panel, apron: Panel, trim: FloatArray, colour: FloatArray) -> None:
    wide = rng.uniform(0.18, 0.3)
    for u0, u1 in ((0.02, wide), (1 - wide, 0.98)):
        grille.rectangle(u0, 0.15, u1, 0.92, np.full(3, rng.uniform(150, 230)), 0.25)
        middle = (u0 + u1) / 2
        grille.rectangle(middle - 0.06, 0.25, middle + 0.06, 0.8, _WHITE, 1.0)
    grille.rectangle(wide + 0.03, 0.1, 0.97 - wide, 0.85, _DARK * rng.uniform(0.6, 1.4))
    grille.rectangle(0.46, 0.4, 0.54, 0.8, np.full(3, 190.0))
    apron.rectangle(0.15, 0.35, 0.85, 0.75, _DARK * 0.8)
    apron.rectangle(0.05, 0.72, 0.95, 0.98, trim)
    _plate(rng, apron, 0.2, 0.24)
    for u in (0.06, 0.86):
        apron.rectangle(u, 0.4, u + 0.08, 0.6, _WHITE * 0.7, 0.3)


def _van(rng: np.random.Generator) -> Vehicle:
    length, half, height = rng.uniform(4.6, 6.2), rng.uniform(0.95, 1.05), rng.uniform(1.9, 2.7)
    end, clearance, radius = length / 2, 0.28, 0.35
    colour = np.full(3, rng.uniform(205, 242)) if rng.random() < 0.55 else _paint(rng)
    glass, trim = _glass(rng), _DARK * rng.uniform(0.8, 1.6)
    builder = MeshBuilder()
    axles = (-end + length * 0.2, end - 0.95)
    _running_gear(builder, length, half, clearance, radius, axles)
    builder.part((0.0, 0.0, height / 2))
    belt, hood = height * 0.48, height * rng.uniform(0.4, 0.5)
    top = half * 0.9
    profile = ((-end, clearance), (-end + 0.05, belt), (-end + 0.12, height), (end - length * 0.3, height),
               (end - length * 0.13, hood + 0.12), (end - 0.1, hood * 0.92), (end, clearance + 0.2), (end, clearance))
    widths = (half, half, top, top, half * 0.98, half * 0.95, half * 0.95, half * 0.95)
    strips = [builder.panel(((a[0], wa, a[1]), (a[0], -wa, a[1]), (b[0], -wb, b[1]), (b[0], wb, b[1])), colour)
              for (a, b), (wa, wb) in zip(zip(profile, profile[1:]), zip(widths, widths[1:]))]
    strips[0].rectangle(0.0, 0.0, 1.0, 0.25, trim)
    for u in (0.01, 0.89):
        strips[0].rectangle(u, 0.45, u + 0.1, 0.98, _RED, 0.9)
    _plate(rng, strips[0], 0.35, 0.16)
    if rng.random() < 0.65:
        strips[1].rectangle(0.08, 0.15, 0.48, 0.75, glass)
        strips[1].rectangle(0.52, 0.15, 0.92, 0.75, glass)
    strips[1].rectangle(0.495, 0.0, 0.505, 1.0, colour * 0.5)
    strips[3].rectangle(0.05, 0.08, 0.95, 0.95, glass)
    strips[3].shape(((0.05, 0.1), (0.5, 0.95), (0.2, 0.95), (0.05, 0.6)), glass * 1.6)
    for u in (0.03, 0.77):
        strips[5].rectangle(u, 0.5, u + 0.2, 0.95, _WHITE, 1.0)
    strips[5].rectangle(0.25, 0.5, 0.75, 0.9, trim)
    strips[5].rectangle(0.0, 0.0, 1.0, 0.4, trim)
    windows = rng.random() < 0.45
    stripe = rng.uniform(20, 230, 3) if rng.random() < 0.35 else None
    for side in (-1.0, 1.0):
        builder.face(np.array([[x, side * half, z] for x, z in profile]), colour)
        wall = builder.panel(((-end + 0.05, side * (half + 0.002), clearance), (end - 0.05, side * (half + 0.002), clearance),
                              (end - 0.1, side * (half + 0.002), hood), (-end + 0.1, side * (half + 0.002), hood)), colour * 0.93)
        wall.rectangle(0.0, 0.0, 1.0, 0.22, trim)
        upper = Panel(builder, np.array([[-end + 0.1, side * half * 1.004, belt], [end - length * 0.15, side * half * 1.004, belt],
                                         [end - length * 0.3, side * half * 1.004, height * 0.93],
                                         [-end + 0.12, side * half * 1.004, height * 0.93]]), np.array([0, side, 0.0]))
        upper.rectangle(0.72, 0.02, 0.97, 0.85, glass)
        if windows:
            upper.rectangle(0.03, 0.1, 0.35, 0.8, glass)
            upper.rectangle(0.38, 0.1, 0.69, 0.8, glass * 1.2)
        elif stripe is not None:
            upper.rectangle(0.05, 0.1, 0.65, rng.uniform(0.3, 0.7), stripe)
        for x in axles:
            _wheel(builder, x, side, half, radius, np.full(3, rng.uniform(70, 170)))
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)


def _lorry(rng: np.random.Generator) -> Vehicle:
    length, half, height = rng.uniform(6.5, 11.5), rng.uniform(1.1, 1.26), rng.uniform(2.8, 3.9)
    end, clearance, radius = length / 2, 0.75, 0.5
    cab_length = rng.uniform(1.7, 2.2)
    cargo = np.full(3, rng.uniform(170, 240)) if rng.random() < 0.5 else _paint(rng)
    colour, glass = _paint(rng), _glass(rng)
    builder = MeshBuilder()
    axles = (-end + 1.6, end - 1.2)
    _running_gear(builder, length, half * 0.95, clearance, radius, axles)
    chassis = builder.box((-end + 0.15, -half * 0.5, 0.55), (end - 0.5, half * 0.5, clearance + 0.05), _SHADE * 2)
    chassis["rear"].rectangle(0.0, 0.0, 1.0, 1.0, _DARK)
    for side in (-1.0, 1.0):
        for x in axles:
            _wheel(builder, x, side, half * 0.97, radius, np.full(3, rng.uniform(60, 150)))
    box = builder.box((-end, -half, clearance), (end - cab_length - 0.15, half, height), cargo)
    for u in (0.02, 0.86):
        box["rear"].rectangle(u, 0.0, u + 0.12, 0.07, _RED, 0.9)
    box["rear"].rectangle(0.493, 0.02, 0.507, 0.98, cargo * 0.5)
    for u in (0.25, 0.75):
        box["rear"].rectangle(u - 0.008, 0.02, u + 0.008, 0.98, cargo * 0.7)
    box["rear"].rectangle(0.0, 0.97, 1.0, 1.0, cargo * 0.6)
    _plate(rng, box["rear"], 0.005, 0.05)
    if rng.random() < 0.6:
        logo = rng.uniform(15, 230, 3)
        x, y = rng.uniform(0.1, 0.3), rng.uniform(0.3, 0.5)
        for name in ("left", "right", "rear"):
            box[name].rectangle(x, y, x + rng.uniform(0.3, 0.55), y + 0.25, logo)
    for name in ("left", "right"):
        for u in np.linspace(0.08, 0.92, 9):
            box[name].rectangle(u, 0.02, u + 0.006, 0.98, cargo * 0.86)
        box[name].rectangle(0.0, 0.0, 1.0, 0.05, cargo * 0.55)
    cab = builder.box((end - cab_length, -half * 0.97, 0.4), (end, half * 0.97, min(height, rng.uniform(2.5, 3.1))), colour, 0.96)
    cab["front"].rectangle(0.05, 0.5, 0.95, 0.92, glass)
    cab["front"].rectangle(0.15, 0.2, 0.85, 0.42, _DARK)
    cab["front"].rectangle(0.0, 0.0, 1.0, 0.12, _DARK)
    for u in (0.03, 0.82):
        cab["front"].rectangle(u, 0.1, u + 0.15, 0.2, _WHITE, 1.0)
    for name, u0, u1 in (("left", 0.45, 0.92), ("right", 0.08, 0.55)):
        cab[name].rectangle(u0, 0.52, u1, 0.88, glass)
        cab[name].rectangle(0.0, 0.0, 1.0, 0.15, _DARK)
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)


def _bus(rng: np.random.Generator) -> Vehicle:
    length, half, height = rng.uniform(8.5, 12.0), rng.uniform(1.15, 1.27), rng.uniform(2.8, 3.2)
    if rng.random() < 0.15:
        height = 4.2
    end, clearance, radius = length / 2, 0.32, 0.48
    colour, second, glass = _paint(rng), _paint(rng), _glass(rng)
    builder = MeshBuilder()
    axles = (-end + 2.6, end - 2.5)
    _running_gear(builder, length, half, clearance, radius, axles)
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
            _wheel(builder, x, side, half, radius, np.full(3, rng.uniform(70, 160)))
    for low, high in decks:
        box["rear"].rectangle(0.12, low + 0.05, 0.88, high, glass)
        box["front"].rectangle(0.04, low - 0.08, 0.96, high, glass)
    box["rear"].rectangle(0.1, 0.06, 0.9, 0.3, second * 0.8)
    box["front"].rectangle(0.1, 0.86, 0.9, 0.97, _DARK)
    box["front"].rectangle(0.25, 0.88, 0.75, 0.95, _AMBER, 0.9)
    box["front"].rectangle(0.0, 0.0, 1.0, 0.1, _DARK)
    for u in (0.02, 0.9):
        box["rear"].rectangle(u, 0.14, u + 0.08, 0.36, _RED, 0.9)
        box["front"].rectangle(u, 0.12, u + 0.08, 0.2, _WHITE, 1.0)
    _plate(rng, box["rear"], 0.08, 0.05)
    return Vehicle(builder.build(), grain_tile(rng), length, 2 * half, height)
