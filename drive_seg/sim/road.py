"""The road: its curve and its lanes, as functions of the distance s along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .camera import FloatArray
from .chance import chance, pick

ENVIRONMENTS = ("city", "suburb", "rural", "highway")
_BEHIND, _AHEAD, _STEP = 14.0, 190.0, 1.0


@dataclass(frozen=True)
class Line:
    """A painted line at lateral position d; dash 0 = solid; metres."""

    d: float
    width: float
    dash: float
    gap: float
    yellow: bool


@dataclass(frozen=True)
class Layout:
    """The cross-section, metres; d grows to the left of the line that parts the two directions."""

    environment: str
    lane: float
    forward: int
    oncoming: int
    ego: int
    median: float
    parking_right: bool
    parking_left: bool
    right: float  # outer edge of the asphalt, negative
    left: float  # outer edge of the asphalt, positive
    walk_right: float  # width of the pavement, 0 = none
    walk_left: float
    mirrored: bool
    lines: tuple[Line, ...]

    def lane_centre(self, index: int, oncoming: bool = False) -> float:
        """Middle of the lane number `index` counted outwards from the divider."""
        if oncoming:
            return self.median + self.lane * (index + 0.5)
        return -self.lane * (index + 0.5)


def draw_layout(rng: np.random.Generator) -> Layout:
    """A cross-section: environment, lanes, edges and painted lines."""
    environment = pick(rng, ENVIRONMENTS, (0.45, 0.25, 0.13, 0.17))
    highway, town = environment == "highway", environment in ("city", "suburb")
    lane = float(rng.uniform(3.3, 3.8) if highway else rng.uniform(2.7, 3.6))
    if highway:
        forward, oncoming, median = (
            int(rng.integers(2, 5)),
            int(rng.integers(2, 4)),
            float(rng.uniform(1.5, 7)),
        )
    elif town and rng.random() < 0.22:
        forward, oncoming, median = int(rng.integers(1, 4)), 0, 0.0
    else:
        forward, oncoming = pick(rng, ((1, 1), (2, 2), (2, 1), (1, 2), (2, 2)), (0.55, 0.12, 0.1, 0.08, 0.15))
        median = float(rng.uniform(1, 4)) if town and forward == 2 and rng.random() < 0.3 else 0.0
    parking_right = town and rng.random() < 0.6
    parking_left = town and rng.random() < 0.5
    hard_shoulder = float(rng.uniform(1.5, 3.0)) if highway else float(rng.uniform(0.15, 0.9))
    right = -lane * forward - (2.3 if parking_right else hard_shoulder)
    left = median + lane * oncoming + (2.3 if parking_left else hard_shoulder)
    walk_right, walk_left = (float(rng.uniform(1.4, 4.5)) if town and rng.random() < 0.93 else 0.0 for _ in range(2))
    lines = _draw_lines(rng, environment, lane, forward, oncoming, median, parking_right)
    ego = int(rng.integers(forward))
    return Layout(
        environment=environment,
        lane=lane,
        forward=forward,
        oncoming=oncoming,
        ego=ego,
        median=median,
        parking_right=parking_right,
        parking_left=parking_left,
        right=right,
        left=left,
        walk_right=walk_right,
        walk_left=walk_left,
        mirrored=bool(rng.random() < 0.3),
        lines=lines,
    )


def _draw_lines(
    rng: np.random.Generator,
    environment: str,
    lane: float,
    forward: int,
    oncoming: int,
    median: float,
    parking_right: bool,
) -> tuple[Line, ...]:
    width = float(rng.uniform(0.10, 0.17))
    dash, gap = pick(rng, ((3.0, 6.0), (3.0, 9.0), (2.0, 4.0), (4.0, 2.0), (1.5, 1.5), (6.0, 12.0)))
    yellow = bool(rng.random() < 0.45)
    edge_chance = 0.95 if environment == "highway" else 0.7 if environment == "rural" else 0.45
    lines = [Line(-lane * index, width, dash, gap, False) for index in range(1, forward)]
    lines += [Line(median + lane * index, width, dash, gap, False) for index in range(1, oncoming)]
    edges = rng.random() < edge_chance
    if edges:
        lines.append(Line(-lane * forward, width, 0.0, 0.0, False))
        if oncoming:
            lines.append(Line(median + lane * oncoming, width, 0.0, 0.0, False))
    elif parking_right and rng.random() < 0.5:
        lines.append(Line(-lane * forward, width * 0.8, 1.0, 1.0, False))
    if median > 0 or oncoming == 0:
        if edges or rng.random() < 0.5:
            lines.append(Line(-0.15, width, 0.0, 0.0, yellow))
            if oncoming:
                lines.append(Line(median + 0.15, width, 0.0, 0.0, yellow))
        return tuple(lines)
    kind = pick(rng, ("dashed", "double", "solid", "mixed", "none"), (0.4, 0.28, 0.15, 0.12, 0.05))
    offset = width * float(rng.uniform(0.8, 1.1))
    if kind == "dashed":
        lines.append(Line(0.0, width, dash, gap, yellow))
    elif kind == "solid":
        lines.append(Line(0.0, width, 0.0, 0.0, yellow))
    elif kind != "none":
        lines.append(Line(-offset, width, dash if kind == "mixed" else 0.0, gap, yellow))
        lines.append(Line(offset, width, 0.0, 0.0, yellow))
    return tuple(lines)


class Road:
    """The centre line: heading and elevation are sums of sines, so any s can be asked for at once."""

    def __init__(self, seed: int, layout: Layout) -> None:
        rng = chance(seed, 101)
        self.layout = layout
        sharp = {"city": 1.0, "suburb": 1.3, "rural": 1.3, "highway": 0.45}[layout.environment]
        waves = np.array([rng.uniform(130, 240), rng.uniform(240, 500), rng.uniform(500, 1100)])
        bends = rng.uniform(0.1, 1.0, 3) * np.array([1 / 450, 1 / 330, 1 / 300]) * sharp
        self._turns = np.stack([bends * waves / (2 * np.pi), 2 * np.pi / waves, rng.uniform(0, 2 * np.pi, 3)])
        lengths = np.array([rng.uniform(220, 380), rng.uniform(380, 800)])
        curve = rng.uniform(0.0, 1.0, 2) * np.array([1 / 5000, 1 / 4000])
        self._hills = np.stack(
            [curve * (lengths / (2 * np.pi)) ** 2, 2 * np.pi / lengths, rng.uniform(0, 2 * np.pi, 2)]
        )

    def heading(self, s: FloatArray) -> FloatArray:
        """Direction of the road at s (N,), radians to the left of where the whole drive goes."""
        size, rate, phase = self._turns
        out: FloatArray = np.sin(np.asarray(s)[..., None] * rate + phase) @ size
        return out

    def elevation(self, s: FloatArray) -> FloatArray:
        """Height of the road at s (N,), metres."""
        size, rate, phase = self._hills
        out: FloatArray = np.sin(np.asarray(s)[..., None] * rate + phase) @ size
        return out

    def stretch(self, s: float) -> Stretch:
        """The part of the road around s in the frame of the road there."""
        table = s + np.arange(-_BEHIND, _AHEAD + _STEP, _STEP)
        here = int(_BEHIND / _STEP)
        heading = self.heading(table) - self.heading(np.array(s))
        middle = (heading[1:] + heading[:-1]) / 2
        x = np.concatenate([[0.0], np.cumsum(np.cos(middle))]) * _STEP
        y = np.concatenate([[0.0], np.cumsum(np.sin(middle))]) * _STEP
        z = self.elevation(table)
        return Stretch(s, self.layout.mirrored, table, x - x[here], y - y[here], z - z[here], heading)


@dataclass(frozen=True)
class Stretch:
    """Some 200 m of the road as a table, in the local frame of the road at `origin`."""

    origin: float
    mirrored: bool
    s: FloatArray
    x: FloatArray
    y: FloatArray
    z: FloatArray
    heading: FloatArray

    def place(self, s: FloatArray, d: FloatArray | float, z: FloatArray | float = 0.0) -> FloatArray:
        """Road coordinates (N,) to local points (N, 3); d to the left (right where traffic is mirrored)."""
        # The table is uniform: an index and a fraction are cheaper than four searches.
        position = np.clip((np.asarray(s, dtype=np.float64) - self.s[0]) / _STEP, 0, len(self.s) - 1.001)
        index = position.astype(np.intp)
        part = position - index
        heading = self.heading[index] + part * (self.heading[index + 1] - self.heading[index])
        x = self.x[index] + part * (self.x[index + 1] - self.x[index])
        y = self.y[index] + part * (self.y[index + 1] - self.y[index])
        up = self.z[index] + part * (self.z[index + 1] - self.z[index])
        side = -np.asarray(d) if self.mirrored else np.asarray(d)
        out: FloatArray = np.stack([x - np.sin(heading) * side, y + np.cos(heading) * side, up + z], axis=-1)
        return out

    def direction(self, s: float) -> float:
        """Heading of the road at s in the local frame, radians."""
        return float(np.interp(s, self.s, self.heading))
