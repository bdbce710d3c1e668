"""The tracker against its rules one by one: textbook Kalman filters, and every assignment tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg.tracking import CONFIRMED_HITS, TENTATIVE_AGE_S, Sighting, Tracker, TrackingOptions

Vector = NDArray[np.float64]
SIZE = (1280, 720)
MEASURED, FIRST_SPEED, WANDER = 0.07**2, 2.0**2, 0.5


@dataclass
class Track:
    """``state``: (2, 4) edges and their speeds. ``spread``: (2, 2) covariance of an edge and its speed, in sizes."""

    number: int
    class_id: int
    state: Vector
    spread: Vector
    hits: int
    seen_ns: int

    def move(self, seconds: float) -> None:
        step = np.array([[1, seconds], [0, 1]])
        noise = np.array([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]])
        self.state = step @ self.state
        self.spread = step @ self.spread @ step.T + WANDER * noise
        for low, high in ((0, 2), (1, 3)):
            middle = (self.state[0, low] + self.state[0, high]) / 2
            if self.state[0, high] - self.state[0, low] < 1:
                self.state[0, [low, high]] = middle - 0.5, middle + 0.5

    def see(self, box: Vector, stamp_ns: int) -> None:
        gain = self.spread[:, 0] / (self.spread[0, 0] + MEASURED)
        self.state = self.state + np.outer(gain, box - self.state[0])
        self.spread = (np.eye(2) - np.outer(gain, [1, 0])) @ self.spread
        self.hits += 1
        self.seen_ns = stamp_ns


def area(box: Vector) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def shared(a: Vector, b: Vector) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def iou(a: Vector, b: Vector) -> float:
    return shared(a, b) / (area(a) + area(b) - shared(a, b))


def widened(box: Vector, margin: float) -> Vector:
    width, height = box[2] - box[0], box[3] - box[1]
    return box + margin * np.array([-width, -height, width, height])


def best_of_all(worth: dict[tuple[int, int], float], columns: Sequence[int]) -> tuple[float, dict[int, int]]:
    """The rows of some columns, each row once, that are worth most together; the worth of pairs is above 0."""
    if not columns:
        return 0.0, {}
    column, *others = columns
    best, rows = best_of_all(worth, others)
    for row, at in worth:
        if at == column:
            rest = {pair: value for pair, value in worth.items() if pair[0] != row}
            total, chosen = best_of_all(rest, others)
            if total + worth[row, at] > best:
                best, rows = total + worth[row, at], {column: row, **chosen}
    return best, rows


class Rules:
    """What ``drive_seg.tracking`` says of itself, an object at a time."""

    def __init__(self, max_age_s: float) -> None:
        self.longest = round(max_age_s * 1e9)
        self.tracks: list[Track] = []
        self.next = 1
        self.last: Sighting | None = None

    def update(self, now: Sighting) -> list[int]:
        if self.last is not None:
            gap = now.stamp_ns - self.last.stamp_ns
            begins = gap < 0 or gap > self.longest or now.size != self.last.size
            kept = [track for track in self.tracks if self.lives(track, now.stamp_ns, gap)]
            self.tracks = [] if begins else kept
            for track in self.tracks:
                track.move(gap / 1e9)
        self.last = now
        given = self.give(now)
        numbers = []
        for index, box in enumerate(now.boxes):
            if index in given:
                track = self.tracks[given[index]]
                track.see(box, now.stamp_ns)
            else:
                spread = np.diag([MEASURED, FIRST_SPEED])
                state = np.stack((box, np.zeros(4)))
                track = Track(self.next, int(now.classes[index]), state, spread, 1, now.stamp_ns)
                self.next += 1
                self.tracks.append(track)
            numbers.append(track.number)
        return numbers

    def lives(self, track: Track, stamp_ns: int, gap: int) -> bool:
        unseen = stamp_ns - track.seen_ns
        tentative = min(self.longest, round(TENTATIVE_AGE_S * 1e9))
        return unseen <= (self.longest if track.hits >= CONFIRMED_HITS else tentative) or unseen == gap

    def give(self, now: Sighting) -> dict[int, int]:
        """Row of the track by instance, in the five passes."""
        given: dict[int, int] = {}
        unseen = [(now.stamp_ns - track.seen_ns) / 1e9 for track in self.tracks]
        certain = now.scores >= 0.35

        def take(allowed: Callable[[int, int], bool], alike: Callable[[int, int], float]) -> None:
            free = [row for row in range(len(self.tracks)) if row not in given.values()]
            left = [column for column in range(len(now.boxes)) if column not in given]
            worth = {
                (row, column): alike(row, column) * math.log(1 + self.tracks[row].hits)
                for row in free
                for column in left
                if self.tracks[row].class_id == now.classes[column] and allowed(row, column) and alike(row, column) > 0
            }
            given.update(best_of_all(worth, left)[1])

        def at(row: int) -> Vector:
            return self.tracks[row].state[0]

        def plain(row: int, column: int) -> float:
            return iou(at(row), now.boxes[column])

        def followed(row: int) -> bool:
            return self.tracks[row].hits >= CONFIRMED_HITS and unseen[row] == min(unseen)

        def part(row: int, column: int) -> float:
            smaller = min(area(at(row)), area(now.boxes[column]))
            return shared(at(row), now.boxes[column]) / smaller

        def wide(row: int, column: int) -> float:
            return iou(widened(at(row), min(0.1 + 0.4 * unseen[row], 0.5)), widened(now.boxes[column], 0.1))

        take(lambda row, column: plain(row, column) >= 0.5 and followed(row) and bool(certain[column]), plain)
        take(lambda row, column: plain(row, column) >= 0.1 and bool(certain[column]), plain)
        take(lambda row, column: plain(row, column) >= 0.1, plain)
        take(lambda row, column: part(row, column) >= 0.7 and unseen[row] <= 0.5, plain)
        take(lambda row, column: wide(row, column) >= 0.02, wide)
        return given


def street(seed: int, frames: int) -> list[Sighting]:
    """Objects of two classes that drift, grow, hide, break in two and pass each other, or of which only a corner shows;
    stamps that are not regular."""
    rng = np.random.default_rng(seed)
    count = 4
    middles, speeds = rng.uniform((300, 250), (900, 450), (count, 2)), rng.uniform(-350, 350, (count, 2))
    sides, growth = rng.uniform(50, 220, (count, 2)), rng.uniform(-0.7, 0.7, (count, 1))
    classes = rng.integers(3, 5, count)
    hidden = np.zeros(count, int)
    seen, stamp = [], 0
    for _ in range(frames):
        seconds = float(rng.choice([0.03, 0.1, 0.3], p=[0.6, 0.35, 0.05]))
        stamp += round((seconds if rng.random() > 0.01 else 2.5) * 1e9)
        middles += speeds * seconds
        sides = np.clip(sides * (1 + growth * seconds), 20, 400)
        speeds = np.where((middles < (100, 100)) | (middles > (1180, 620)), -speeds, speeds)
        speeds += rng.normal(0, 60, speeds.shape)
        hidden = np.where(hidden > 0, hidden - 1, np.where(rng.random(count) < 0.06, rng.integers(1, 40, count), 0))
        rows, kinds = [], []
        for number in np.flatnonzero(hidden == 0):
            box = np.concatenate((middles[number] - sides[number] / 2, middles[number] + sides[number] / 2))
            box += rng.normal(0, 0.05, 4) * np.tile(sides[number], 2)
            cut = box.copy()
            kind = rng.random()
            if kind > 0.88:  # a corner of it looks out, or what may be one
                middle = (box[:2] + box[2:]) / 2 + rng.uniform(-0.55, 0.55, 2) * sides[number]
                half = rng.uniform(0.025, 0.1) * sides[number]
                box = np.concatenate((middle - half, middle + half))
            if kind < 0.1:
                box[2] = cut[0] = box[0] + rng.uniform(0.2, 0.8) * (box[2] - box[0])
                rows.append(cut)
                kinds.append(classes[number])
            rows.append(box)
            kinds.append(classes[number])
        scores = rng.uniform(0.3, 0.6, len(rows))
        seen.append(Sighting(stamp, SIZE, np.reshape(rows, (-1, 4)), np.array(kinds, np.int64), scores))
    return seen


@pytest.mark.parametrize("max_age_s", [0.4, 2.0])
@pytest.mark.parametrize("seed", range(8))
def test_the_tracker_follows_its_rules(seed: int, max_age_s: float) -> None:
    tracker, rules = Tracker(TrackingOptions(max_age_s)), Rules(max_age_s)
    for number, sighting in enumerate(street(seed, 150)):
        assert tracker.update(sighting) == rules.update(sighting), f"frame {number}"
        assert tracker.known == len(rules.tracks)
