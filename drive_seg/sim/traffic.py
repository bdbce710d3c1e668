"""What moves: streams of vehicles, cyclists and pedestrians as closed functions of time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .canvas import CYCLIST, PEDESTRIAN, VEHICLE
from .chance import chance
from .people import person
from .road import Layout
from .vehicles import draw_look, vehicle

AHEAD, BEHIND = 118.0, 6.0


@dataclass(frozen=True)
class Actor:
    """Someone on the road at one moment; yaw relative to the road's direction, metres, radians.

    `number` says who: the same in all frames of a drive, of nobody else in it.
    """

    class_id: int
    kind: str  # vehicle, motorcycle, walker, cyclist
    seed: int
    s: float
    d: float
    yaw: float
    gone: float
    standing: bool
    number: int = 0


@dataclass(frozen=True)
class _Stream:
    """Actors at fixed places in a frame that moves along the road: s = place + start + speed * t + sway."""

    kind: str
    d: float
    spread: float
    cell: float
    density: float
    speed: float
    with_camera: bool  # speed is relative to the camera car
    sway: float
    yaw: float
    first_cell: int | None = None  # nothing before it (the lane the camera drives in)
    key: int = 0  # its place among the drive's streams
    sway_rate: float = 0.0


@dataclass(frozen=True)
class Ego:
    """The camera car's drive: never stops, never turns back."""

    start: float
    speed: float
    change: float
    rate: float
    phase: float

    def travelled(self, time: float) -> float:
        """Position along the road at `time` seconds, metres."""
        wave = self.change / self.rate * np.sin(self.rate * time + self.phase)
        return float(self.start + self.speed * (time + wave))


class Traffic:
    """All streams of one drive."""

    def __init__(self, seed: int, layout: Layout) -> None:
        rng = chance(seed, 501)
        self._seed = seed
        environment = layout.environment
        mean = {"city": 8.0, "suburb": 9.5, "rural": 16.0, "highway": 24.0}[environment]
        self.ego = Ego(
            float(rng.uniform(0, 4000)),
            mean * float(rng.uniform(0.75, 1.25)),
            float(rng.uniform(0.1, 0.5)),
            2 * np.pi / float(rng.uniform(25, 60)),
            float(rng.uniform(0, 2 * np.pi)),
        )
        self.heavy = float(rng.uniform(0.06, 0.3))
        busy = float(rng.beta(1.6, 1.6))
        people = {"city": 1.0, "suburb": 0.5, "rural": 0.12, "highway": 0.0}[environment] * float(rng.beta(1.5, 1.5))
        cell = max(15.5, mean * 1.3)
        self._streams: list[_Stream] = []
        self._drawn = lru_cache(maxsize=1024)(self._draw)
        for lane in range(layout.forward):
            d = layout.lane_centre(lane)
            if lane == layout.ego:
                sway = float(rng.uniform(1, 7))
                self._add(_Stream("vehicle", d, 0.3, cell, 0.25 + 0.65 * busy, 0.0, True, sway, 0.0, 0), rng)
            else:
                slower = float(rng.uniform(0.8, 4.5)) * (1 if lane < layout.ego else -1)
                self._add(_Stream("vehicle", d, 0.3, cell, 0.15 + 0.7 * busy, slower, True, 2.0, 0.0), rng)
        for lane in range(layout.oncoming):
            d = layout.lane_centre(lane, True)
            speed = -mean * float(rng.uniform(0.7, 1.2))
            self._add(_Stream("vehicle", d, 0.3, cell, 0.15 + 0.65 * busy, speed, False, 2.0, np.pi), rng)
        kerb = 0.55
        for d, yaw in (
            (-layout.lane * layout.forward + kerb, 0.0),
            (layout.lane * layout.oncoming + layout.median - kerb, np.pi),
        ):
            if environment != "highway" and (yaw == 0.0 or layout.oncoming):
                rides = float(rng.uniform(0.15, 0.75)) * min(1.0, people + 0.35)
                speed = float(rng.uniform(3.5, 6)) * (1 if yaw == 0 else -1)
                self._add(_Stream("cyclist", d, 0.2, 24.0, rides, speed, False, 1.0, yaw), rng)
        if layout.forward + layout.oncoming > 1 or rng.random() < 0.4:
            d = -layout.lane * layout.ego - 0.25
            speed = float(rng.uniform(1, 4))
            self._add(_Stream("motorcycle", d, 0.15, 60.0, 0.3 * busy, speed, True, 1.0, 0.0), rng)
        for edge, walk in ((layout.right, layout.walk_right), (layout.left, layout.walk_left)):
            out = float(np.sign(edge))
            width = walk or (2.0 if environment in ("suburb", "rural") else 0.0)
            if width and people:
                d = edge + out * (0.35 + (width - 0.6) / 2)
                density = 0.75 * people * (1.0 if walk else 0.4)
                for direction, yaw in ((1.0, 0.0), (-1.0, np.pi)):
                    speed = direction * float(rng.uniform(1.0, 1.5))
                    self._add(_Stream("walker", d, (width - 0.7) / 2, 5.5, density, speed, False, 0.3, yaw), rng)

    def _add(self, stream: _Stream, rng: np.random.Generator) -> None:
        sway_rate = 2 * np.pi / float(rng.uniform(15, 40))
        self._streams.append(replace(stream, key=len(self._streams), sway_rate=sway_rate))

    def actors(self, time: float) -> list[Actor]:
        """Everyone moving within sight at `time` seconds."""
        here = self.ego.travelled(time)
        found: list[Actor] = []
        for stream in self._streams:
            moved = stream.speed * time + stream.sway * float(np.sin(stream.sway_rate * time + stream.key))
            if stream.with_camera:
                moved += here
            if stream.first_cell is not None:
                moved += 7.0
            low = int(np.floor((here - BEHIND - moved) / stream.cell)) - 1
            high = int(np.ceil((here + AHEAD - moved) / stream.cell))
            if stream.first_cell is not None:
                low = max(low, stream.first_cell)
            for cell in range(low, high + 1):
                actor = self._actor(stream, cell, moved, time)
                if actor is not None and here - BEHIND <= actor.s <= here + AHEAD:
                    found.append(actor)
        return found

    def _draw(self, stream: _Stream, cell: int) -> tuple[int, float, float] | None:
        """Who is in a cell of a stream: look, place in the stream's frame, lateral offset; None = nobody."""
        rng = chance(self._seed, 502, stream.key, cell)
        if rng.random() >= stream.density:
            return None
        if stream.kind == "vehicle":
            look = draw_look(rng, self.heavy)
            length = vehicle(look).length
            room = max(stream.cell - length - 2.0, 0.0)
            return (
                look,
                cell * stream.cell + length / 2 + room * rng.random(),
                stream.spread * rng.normal(0, 0.6),
            )
        look = int(rng.integers(1 << 31))
        return look, (cell + rng.uniform(0.1, 0.9)) * stream.cell, stream.spread * rng.uniform(-1, 1)

    def _actor(self, stream: _Stream, cell: int, moved: float, time: float) -> Actor | None:
        drawn = self._drawn(stream, cell)
        if drawn is None:
            return None
        look, place, aside = drawn
        d = stream.d + aside + 0.1 * math.sin(0.5 * time + cell)
        number = number_of(cell, stream.key, moves=True)
        if stream.kind in ("vehicle", "motorcycle"):
            return Actor(VEHICLE, stream.kind, look, place + moved, d, stream.yaw, 0.0, False, number)
        class_id = CYCLIST if stream.kind == "cyclist" else PEDESTRIAN
        yaw = stream.yaw + 0.15 * math.sin(0.7 * time + cell)
        gone = abs(stream.speed) * time + cell
        return Actor(class_id, stream.kind, look, place + moved, d, yaw, gone, False, number)


def number_of(cell: int, place: int, moves: bool) -> int:
    """A number above 0 that nobody else has: by cell (of any sign), place in it (below 64), and whether they move in
    streams or belong to the roadside."""
    return 1 + 2 * (64 * (2 * cell if cell >= 0 else -2 * cell - 1) + place) + int(moves)


def actor_size(actor: Actor) -> tuple[float, float, float]:
    """Length, width and height of an actor, metres."""
    if actor.kind == "vehicle":
        body = vehicle(actor.seed)
        return body.length, body.width, body.height
    height = person(actor.seed).height
    if actor.kind == "walker":
        return 0.5, 0.5, height
    return 1.9, 0.55, height + 0.1
