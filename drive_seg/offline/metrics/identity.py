"""Whether objects keep their identities: IDF1 and CLEAR MOT over whole trajectories.

IDF1 is that of Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking (ECCV 2016
workshops): one assignment of true to predicted trajectories for a whole recording, the one with the most frames in
common. MOTA and the identity switches are those of Bernardin & Stiefelhagen, Evaluating Multiple Object Tracking
Performance: The CLEAR MOT Metrics (2008). As in MOTS (Voigtlaender et al., CVPR 2019) a pair matches where the IoU of
its masks is above one half: segments do not overlap, so every match is the only one of both and there is nothing to
assign within a frame. Identities hold within a class.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drive_seg.offline.metrics.overlaps import Overlaps

SIZES = ("small", "medium", "large")
_SIZE_EDGES = (32 * 32, 96 * 96)
"""COCO's: pixels of a mask below which it is small, and from which on it is large."""
_ALL = len(SIZES)


@dataclass(frozen=True)
class Segment:
    """A thing in one frame: its scored class, its value in the map (of one side), and its pixels."""

    class_id: int
    value: int
    area: int

    @property
    def size(self) -> int:
        """Index into ``SIZES``."""
        return sum(self.area >= edge for edge in _SIZE_EDGES)


@dataclass(frozen=True)
class Encounter:
    """What one frame says about identities, before anybody has any.

    Attributes:
        pairs: of segments that match.
        missed: true ones without a match.
        wrong: predicted ones without a match, but for those on void or on crowds.
    """

    pairs: tuple[tuple[Segment, Segment], ...] = ()
    missed: tuple[Segment, ...] = ()
    wrong: tuple[Segment, ...] = ()


def encounter(found: Overlaps, scored: NDArray[np.bool_], crowds: Collection[int] = ()) -> Encounter:
    """The matches of a frame, by the rules of panoptic quality (``MatchCounts.add``).

    Args:
        scored: bool (C,), classes whose objects are told apart.
        crowds: panoptic ids of the truth that stand for several objects.
    """
    truths, predictions = found.truths, found.predictions
    crowd, match, excused = found.matches(crowds)
    match[match] = scored[truths.classes[found.truth[match]]]
    missed = scored[truths.classes] & ~crowd
    missed[found.truth[match]] = False
    wrong = scored[predictions.classes] & (2 * excused <= predictions.areas)
    wrong[found.prediction[match]] = False
    true, answers = (
        [Segment(*row) for row in zip(side.classes.tolist(), side.ids.tolist(), side.areas.tolist(), strict=True)]
        for side in (truths, predictions)
    )
    rows = zip(found.truth[match].tolist(), found.prediction[match].tolist(), strict=True)
    return Encounter(
        tuple((true[row], answers[column]) for row, column in rows),
        tuple(true[row] for row in np.flatnonzero(missed)),
        tuple(answers[row] for row in np.flatnonzero(wrong)),
    )


@dataclass
class IdentityCounts:
    """Counts of one group of objects (a class, a size). Adds with ``+=``.

    Attributes:
        idtp, idfp, idfn: frames of trajectories that the assignment covers, of predicted and of true ones that it
            does not.
        tp, fp, fn: matched, wrong and missed segments.
        id_switches: matches of an object under another track than at its match before.
        objects, tracks: true and predicted trajectories.
    """

    idtp: int = 0
    idfp: int = 0
    idfn: int = 0
    tp: int = 0
    fp: int = 0
    fn: int = 0
    id_switches: int = 0
    objects: int = 0
    tracks: int = 0

    def __iadd__(self, other: IdentityCounts) -> IdentityCounts:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    @property
    def idf1(self) -> float:
        """2 IDTP / (2 IDTP + IDFP + IDFN), 0..1; NaN where there was nothing."""
        return _ratio(2 * self.idtp, 2 * self.idtp + self.idfp + self.idfn)

    @property
    def idp(self) -> float:
        """Identity precision, 0..1."""
        return _ratio(self.idtp, self.idtp + self.idfp)

    @property
    def idr(self) -> float:
        """Identity recall, 0..1."""
        return _ratio(self.idtp, self.idtp + self.idfn)

    @property
    def mota(self) -> float:
        """1 - (misses + false positives + switches) / true segments: at most 1, below 0 where errors outnumber."""
        return 1 - _ratio(self.fn + self.fp + self.id_switches, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Of the segments alone, whoever they are: no tracker can have a higher ``idf1`` on them."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


_RATIOS = ("idf1", "idp", "idr", "mota", "f1")
_NUMBERS = ("id_switches", "objects", "tracks", "idtp", "idfp", "idfn", "tp", "fp", "fn")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


@dataclass
class TrackingCounts:
    """Counts of whole recordings, by class and size. Adds with ``+=`` and pickles; the order does not matter.

    Attributes:
        groups: by (scored class, index into ``SIZES``, or ``len(SIZES)`` for all sizes).
        frames: in which both sides had identities.
    """

    groups: dict[tuple[int, int], IdentityCounts] = field(default_factory=dict)
    frames: int = 0

    def __iadd__(self, other: TrackingCounts) -> TrackingCounts:
        self.frames += other.frames
        for key, counts in other.groups.items():
            mine = self.groups.setdefault(key, IdentityCounts())
            mine += counts
        return self

    def total(self, classes: Iterable[int] | None = None, size: int = _ALL) -> IdentityCounts:
        """The sum over some classes (None: all) of one size (an index into ``SIZES``, by default any)."""
        result = IdentityCounts()
        wanted = None if classes is None else set(classes)
        for (class_id, group), counts in self.groups.items():
            if group == size and (wanted is None or class_id in wanted):
                result += counts
        return result

    def figures(self, classes: Mapping[int, str]) -> dict[str, Any]:
        """The key ``tracking`` of ``metrics.json``, with ``per_class`` for the named ones; null for all where nothing
        was tracked, or the truth does not know its objects again."""
        known = self.total().tracks > 0

        def row(counts: IdentityCounts) -> dict[str, float | int | None]:
            values = {name: getattr(counts, name) for name in _RATIOS + _NUMBERS}
            return {name: value if known and not math.isnan(value) else None for name, value in values.items()}

        return {
            **row(self.total()),
            "frames": self.frames if known else 0,
            "per_class": {name: row(self.total([number])) for number, name in classes.items()},
            "by_size": {name: row(self.total(size=number)) for number, name in enumerate(SIZES)},
        }


class Identities(Protocol):
    """Takes what the frames of a recording say about identities, in order."""

    def add(self, met: Encounter, objects: Mapping[int, int], tracks: Mapping[int, int]) -> int:
        """One frame; returns its identity switches, as far as they are known now.

        Args:
            objects: identity by panoptic id of the truth.
            tracks: identity by panoptic id of the prediction.
        """
        ...


class Trajectories:
    """The identities of one recording: frames in order, then ``counts``.

    Matches of ever new frames only count up per pair of trajectories; the last track of every object is remembered for
    the switches, which is what makes the order matter.
    """

    def __init__(self) -> None:
        self._frames = 0
        self._known = False
        self._common: dict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
        self._true: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        self._answered: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        self._switches: Counter[tuple[int, int]] = Counter()
        self._last: dict[tuple[int, int], int] = {}

    def add(self, met: Encounter, objects: Mapping[int, int], tracks: Mapping[int, int]) -> int:
        """See ``Identities.add``. A segment without an identity is a trajectory of its own: found or missed, and
        never the same again."""
        self._frames += 1
        self._known |= bool(objects)
        alone = -self._frames  # below every identity, another one in each frame

        def who(identities: Mapping[int, int], segment: Segment) -> int:
            return identities.get(segment.value, alone * (1 << 16) - segment.value)

        switches = 0
        for truth, answer in met.pairs:
            thing, track = who(objects, truth), who(tracks, answer)
            before = self._last.get((truth.class_id, thing))
            self._last[truth.class_id, thing] = track
            switched = before is not None and before != track
            switches += switched
            for size in (truth.size, _ALL):
                group = (truth.class_id, size)
                self._common[group][thing, track] += 1
                self._true[group][thing] += 1
                self._answered[group][track] += 1
                self._switches[group] += switched
        for side, segments, identities in (
            (self._true, met.missed, objects),
            (self._answered, met.wrong, tracks),
        ):
            for segment in segments:
                for size in (segment.size, _ALL):
                    side[segment.class_id, size][who(identities, segment)] += 1
        return switches

    def counts(self) -> TrackingCounts:
        """What the recording comes to so far: nothing while no object of it has an identity, as frames without objects
        look the same whether or not the truth knows them again.

        A size has the objects that are of it in a frame, with their matches, and the wrong segments of it.
        """
        if not self._known:
            return TrackingCounts()
        result = TrackingCounts(frames=self._frames)
        for group in self._true.keys() | self._answered.keys():
            common, true, answered = self._common[group], self._true[group], self._answered[group]
            idtp = most_in_common(common)
            matches, truths, answers = common.total(), true.total(), answered.total()
            result.groups[group] = IdentityCounts(
                idtp,
                answers - idtp,
                truths - idtp,
                matches,
                answers - matches,
                truths - matches,
                self._switches[group],
                len(true),
                len(answered),
            )
        return result


def most_in_common(common: Mapping[tuple[int, int], int]) -> int:
    """The most frames that a one-to-one assignment of the two sides can cover.

    Ristani's minimum of IDFP + IDFN is the same: a pair saves its common frames on both sides. Solved one group of
    connected trajectories at a time, so that an hour of them is as cheap as its parts.

    Args:
        common: frames by (true, predicted) trajectory.
    """
    from scipy.optimize import linear_sum_assignment  # only for those who score identities: see gpu_check.sh

    partners: dict[tuple[bool, int], list[tuple[bool, int]]] = defaultdict(list)
    for thing, track in common:
        partners[True, thing].append((False, track))
        partners[False, track].append((True, thing))
    total = 0
    while partners:
        reached = {next(iter(partners))}
        waiting = list(reached)
        while waiting:
            for other in partners.pop(waiting.pop()):
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        rows = [number for true, number in reached if true]
        columns = [number for true, number in reached if not true]
        table = np.array([[common.get((row, column), 0) for column in columns] for row in rows])
        total += int(table[linear_sum_assignment(table, maximize=True)].sum())
    return total
