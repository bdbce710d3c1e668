"""One frame's truth and prediction in, its record out; all that is asked is added up on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import SourceError
from drive_seg.frame import Lane
from drive_seg.labels import UNLABELLED, LabelSet
from drive_seg.offline.evaluation import ClassScore, FrameScore, TolerantScore, mean, none_if_nan
from drive_seg.offline.label_map import LabelMap
from drive_seg.offline.metrics import (
    Confusion,
    LineScore,
    MatchCounts,
    OutlineCounts,
    PrecisionCounts,
    Runs,
    TemporalCounts,
    TrackingCounts,
    Trajectories,
    compare_lines,
    encounter,
    overlaps,
)
from drive_seg.offline.metrics.identity import Identities
from drive_seg.offline.metrics.outlines import busy_rows
from drive_seg.offline.metrics.temporal import Moment, compare

TOLERANCE = 3
"""Pixels of the camera image within which an outline or a marking counts as right."""

CONSECUTIVE_NS = 250_000_000
"""Frames further apart than this are no neighbours: what changed between them is no flicker."""


@dataclass(frozen=True)
class Truth:
    """What one frame really shows.

    Attributes:
        map: (H, W), panoptic ids (uint16; class * 1000 + k for an object, else the class, 65535 void) or class ids
            (uint8; 255 void), in the truth's own classes.
        crowds: values of ``map`` that stand for several objects, each above 0.
        classes: uint8 (N,) class id by value of ``map``, where the values are no panoptic ids; N is above all of them.
        tracks: by panoptic id, the number an object has in all frames of its recording; None where that is not known.
        lanes: the lane boundaries; None where the truth does not know them.
    """

    map: NDArray[np.uint16] | NDArray[np.uint8]
    crowds: tuple[int, ...] = ()
    classes: NDArray[np.uint8] | None = None
    tracks: Mapping[int, int] | None = None
    lanes: tuple[Lane, ...] | None = None


@dataclass(frozen=True)
class Prediction:
    """What the model says of one frame.

    Attributes:
        map: (H, W), panoptic ids (uint16) or, where there are no instances, class ids (uint8) of the model.
        scores: 0..1 by panoptic id.
        mask: uint8 (H, W) class ids of the same, where they are at hand; 255 unlabelled.
        tracks: by panoptic id, as those of ``Truth``; None where nothing was tracked.
        lanes: the lane boundaries; None where they were not looked for.
    """

    map: NDArray[np.uint16] | NDArray[np.uint8]
    scores: Mapping[int, float] = field(default_factory=dict)
    mask: NDArray[np.uint8] | None = None
    tracks: Mapping[int, int] | None = None
    lanes: tuple[Lane, ...] | None = None


@dataclass
class Totals:
    """Everything counted over frames. Adds with ``+=`` and pickles; the order does not matter."""

    labels: LabelSet
    countable: NDArray[np.bool_]
    lane: int | None
    tolerance: int
    frames: int = 0
    confusion: Confusion = field(init=False)
    matches: MatchCounts = field(init=False)
    precision: PrecisionCounts = field(init=False)
    outlines: OutlineCounts = field(init=False)
    temporal: TemporalCounts = field(init=False)
    tracking: TrackingCounts = field(init=False)
    lines: LineScore = field(init=False, default_factory=LineScore)

    def __post_init__(self) -> None:
        classes = len(self.labels)
        self.confusion = Confusion(classes)
        self.matches = MatchCounts(classes)
        self.precision = PrecisionCounts(classes)
        self.outlines = OutlineCounts(classes, self.lane, self.tolerance)
        self.temporal = TemporalCounts()
        self.tracking = TrackingCounts()

    def __iadd__(self, other: Totals) -> Totals:
        if (self.labels, self.lane, self.tolerance) != (other.labels, other.lane, other.tolerance):
            raise ValueError("totals of different labels or tolerances cannot be added")
        self.frames += other.frames
        self.confusion += other.confusion
        self.matches += other.matches
        self.precision += other.precision
        self.outlines += other.outlines
        self.temporal += other.temporal
        self.lines += other.lines
        self.tracking += other.tracking
        return self

    def figures(self) -> dict[str, Any]:
        """The keys ``frames`` to ``tracking`` of ``metrics.json``."""
        return {
            "frames": self.frames,
            "labels": [{"name": label.name, "thing": label.thing, "color": list(label.color)} for label in self.labels],
            "panoptic": self._panoptic(),
            "semantic": self._semantic(),
            "boundary": self._boundary(),
            "lane": self._lane(),
            "instance": self._instance(),
            "temporal": {
                "flicker": self.temporal.changed / self.temporal.static if self.temporal.static else None,
                "changed": self.temporal.changed,
                "static": self.temporal.static,
                "pairs": self.temporal.pairs,
                "id_switches": self.tracking.figures({})["id_switches"],
            },
            "tracking": self.tracking.figures(
                {label.id: label.name for label in self.labels if label.thing and self.countable[label.id]}
            ),
        }

    def _panoptic(self) -> dict[str, Any]:
        matches = self.matches
        found: dict[str, Any] = {}
        for name, kinds in (("all", (True, False)), ("things", (True,)), ("stuff", (False,))):
            pq, sq, rq, n = matches.mean([label.id for label in self.labels if label.thing in kinds])
            found[name] = {"pq": none_if_nan(pq), "sq": none_if_nan(sq), "rq": none_if_nan(rq), "n": n}
        found["per_class"] = {}
        for label in self.labels:
            qualities = zip(("pq", "sq", "rq"), map(none_if_nan, matches.qualities(label.id)), strict=True)
            counts = zip(("tp", "fp", "fn"), (matches.tp, matches.fp, matches.fn), strict=True)
            found["per_class"][label.name] = {
                **dict(qualities),
                **{name: int(count[label.id]) for name, count in counts},
                "iou_sum": matches.iou_sum(label.id),
            }
        return found

    def _semantic(self) -> dict[str, Any]:
        per_class = {label.name: self.confusion.iou([label.id]) for label in self.labels}
        return {
            "miou": none_if_nan(mean(per_class.values())),
            "per_class": {name: none_if_nan(iou) for name, iou in per_class.items()},
            "confusion": self.confusion.pixels.tolist(),
        }

    def _boundary(self) -> dict[str, Any]:
        rows = {label.name: TolerantScore(*self.outlines.pixels[label.id].tolist()) for label in self.labels}
        return {
            "f1": none_if_nan(mean(row.f1 for row in rows.values())),
            "tolerance_px": self.tolerance,
            "per_class": {name: _tolerant(row) for name, row in rows.items()},
        }

    def _lane(self) -> dict[str, Any]:
        score = TolerantScore(*self.outlines.pixels[-1].tolist())
        iou = math.nan if self.lane is None else self.confusion.iou([self.lane])
        lines = self.lines.to_dict()
        return {**_tolerant(score), "iou": none_if_nan(iou), "tolerance_px": self.tolerance, "lines": lines}

    def _instance(self) -> dict[str, Any]:
        scored = [label for label in self.labels if label.thing and self.countable[label.id]]
        columns: dict[str, list[float]] = {"ap": [], "ap50": [], "ap75": []}
        per_class: dict[str, dict[str, float | int | None]] = {}
        for label in scored:
            by_iou = self.precision.average(label.id)
            row = {"ap": float(by_iou.mean()), "ap50": float(by_iou[0]), "ap75": float(by_iou[5])}
            for key, value in row.items():
                columns[key].append(value)
            shown = {key: none_if_nan(value) for key, value in row.items()}
            per_class[label.name] = {**shown, "truths": int(self.precision.truths[label.id])}
        means = {key: none_if_nan(mean(values)) for key, values in columns.items()}
        return {**means, "per_class": per_class}


class Scorer:
    """Scores the frames of one recording in order. ``totals`` of several add up.

    Args:
        label_map: what is scored.
        tolerance: pixels, for outlines and lane markings.
        predicted_instances: the predictions tell objects apart.
        identities: takes what frames say about them; by default they are counted in ``trajectories``.

    Attributes:
        totals: all counts but those of ``trajectories``, which are whole only at the end of the recording.
    """

    def __init__(
        self,
        label_map: LabelMap,
        tolerance: int = TOLERANCE,
        predicted_instances: bool = True,
        identities: Identities | None = None,
    ) -> None:
        self.map = label_map
        self.trajectories = Trajectories()
        self._identities = identities or self.trajectories
        countable = label_map.countable
        if not predicted_instances:
            countable = countable & ~np.array([label.thing for label in label_map.labels])
        self._tolerance = tolerance
        self._countable = countable
        self._things = label_map.labels.is_thing
        self._own = label_map.predicts_own
        self._before: tuple[int, Moment] | None = None
        self.totals = self._empty()

    def _empty(self) -> Totals:
        return Totals(self.map.labels, self._countable, self.map.lane, self._tolerance)

    def prime(self, stamp_ns: int, truth: Truth, prediction: Prediction, image: NDArray[np.uint8] | None) -> None:
        """Show the frame before the first one of a chunk: it is compared with, not counted."""
        if truth.map.shape != prediction.map.shape:
            return  # the chunk before is told by ``score``
        tables = tables_of(self.map, truth)
        runs = Runs.of(truth.map, prediction.map)
        classes = tables[0][runs.truth], tables[1][runs.prediction]
        self._before = (stamp_ns, self._moment(runs, classes, prediction, image))

    def score(
        self,
        frame: str,
        stamp_ns: int,
        truth: Truth,
        prediction: Prediction,
        image: NDArray[np.uint8] | None = None,
    ) -> FrameScore:
        """Add one frame to ``totals`` and return its own record.

        Args:
            image: uint8 (H, W, 3) RGB, which tells where nothing moved; None where it is not at hand.

        Raises:
            SourceError: truth and prediction differ in size.
        """
        if truth.map.shape != prediction.map.shape:
            raise SourceError(
                f"frame {frame}: the truth has {_size(truth.map)} pixels, the prediction {_size(prediction.map)}; "
                "both must have the size of the camera image (output_resolution: native)"
            )
        tables = tables_of(self.map, truth)
        runs = Runs.of(truth.map, prediction.map)
        found = overlaps(runs, self._things, *tables)
        classes = tables[0][runs.truth], tables[1][runs.prediction]
        now = self._moment(runs, classes, prediction, image)
        one = self._empty()
        one.frames = 1
        one.confusion.add(found)
        one.matches.add(found, truth.crowds)
        one.matches.keep(self._countable)
        one.outlines.add(now.truth, now.prediction, busy_rows(runs, *classes, self.map.lane), now.unlabelled)
        if truth.lanes is not None and prediction.lanes is not None:
            one.lines = compare_lines(truth.lanes, prediction.lanes, truth.map.shape[0])
        if self._before is not None and 0 <= stamp_ns - self._before[0] <= CONSECUTIVE_NS:
            one.temporal = compare(self._before[1], now)
        self._before = (stamp_ns, now)
        self.totals += one
        instances = self._countable & self._things[: len(self.map.labels)]
        self.totals.precision.add(found, prediction.scores, instances, truth.crowds)
        switches = 0
        if truth.tracks is not None and prediction.tracks is not None:
            met = encounter(found, instances, truth.crowds)
            switches = self._identities.add(met, truth.tracks, prediction.tracks)
        return _record(frame, stamp_ns, one, switches)

    def _moment(
        self,
        runs: Runs,
        classes: tuple[NDArray[np.uint8], NDArray[np.uint8]],
        prediction: Prediction,
        image: NDArray[np.uint8] | None,
    ) -> Moment:
        """What the next frame is compared with; ``classes`` are uint8 (R,), by run, of truth and prediction."""
        grey = None
        if image is not None and image.shape[:2] == runs.shape:
            grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        known = prediction.mask if self._own else None
        unlabelled = bool((classes[0] == UNLABELLED).any())
        return Moment(runs.paint(classes[0]), runs.paint(classes[1]) if known is None else known, grey, unlabelled)


def tables_of(label_map: LabelMap, truth: Truth) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """uint8 (N,) scored classes by the values of a truth and of predictions."""
    own = label_map.truth_table if truth.classes is None else label_map.truth[truth.classes]
    return own, label_map.predicted_table


def _record(frame: str, stamp_ns: int, one: Totals, switches: int) -> FrameScore:
    matches, confusion, outlines = one.matches, one.confusion, one.outlines
    intersections, unions = confusion.intersections.tolist(), confusion.unions.tolist()
    per_class, boundary = {}, {}
    for label in one.labels:
        number = label.id
        per_class[label.name] = ClassScore(
            int(matches.tp[number]),
            int(matches.fp[number]),
            int(matches.fn[number]),
            matches.iou_sum(number),
            intersections[number],
            unions[number],
        )
        boundary[label.name] = TolerantScore(*outlines.pixels[number].tolist())
    lane = None if one.lane is None else TolerantScore(*outlines.pixels[-1].tolist())
    rows = tuple(tuple(row) for row in confusion.pixels.tolist())
    lines = one.lines if one.lines.frames else None
    changed, static = one.temporal.changed, one.temporal.static
    return FrameScore(frame, stamp_ns, per_class, rows, boundary, lane, changed, static, switches, lines)


def _tolerant(score: TolerantScore) -> dict[str, float | None]:
    return {
        "f1": none_if_nan(score.f1),
        "precision": score.hit / score.predicted if score.predicted else None,
        "recall": score.found / score.true if score.true else None,
    }


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
