"""How far a score could be off: frames drawn again with replacement, every score recomputed from the drawn counts.

A score is a ratio of sums over frames, so it is the sums that are drawn, never the ratios of single frames
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drive_seg.offline.evaluation import FrameScore
from drive_seg.offline.label_map import LANE
from drive_seg.offline.metrics.lane_lines import LineScore

_SEGMENTS = ("tp", "fp", "fn", "iou_sum", "intersection", "union")
_OUTLINE = ("hit", "predicted", "found", "true")
_AT_ONCE = 1 << 24
"""Weights held at a time."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FrameCounts:
    """The counts of every frame as a table.

    Attributes:
        names: of the frames, in order.
        segments: float64 (F, C, 6): tp, fp, fn, iou_sum, intersection, union.
        outlines: float64 (F, C + 1, 4): hit, predicted, found, true; the last class is the lane markings.
        changed: float64 (F, 2): changed and static pixels.
        lines: float64 (F, 2): twice the lane boundaries found, and the predicted and true ones together.
        shown: int64 (F, C): pixels of each class in the truth, whatever was predicted.
        points: int64 (F,): points of the true lane boundaries; -1 where these were not compared.
        stamps: int64 (F,) acquisition times, nanoseconds.
    """

    names: tuple[str, ...]
    segments: Array
    outlines: Array
    changed: Array
    lines: Array
    shown: NDArray[np.int64]
    points: NDArray[np.int64]
    stamps: NDArray[np.int64]

    @classmethod
    def of(cls, frames: Iterable[FrameScore], classes: Sequence[str]) -> FrameCounts:
        """Tabulate frames; raises KeyError where one lacks a class."""
        names, segments, outlines, changed, lines = [], [], [], [], []
        shown, points, stamps = [], [], []
        nothing = (0,) * len(_OUTLINE)
        for frame in frames:
            names.append(frame.frame)
            segments.append([[getattr(frame.per_class[name], key) for key in _SEGMENTS] for name in classes])
            edges = [frame.boundary.get(name) for name in classes] + [frame.lane]
            outlines.append([[getattr(e, key) for key in _OUTLINE] if e is not None else nothing for e in edges])
            changed.append((frame.changed, frame.static))
            line = frame.lines or LineScore()
            lines.append((2 * line.found, line.predicted + line.true))
            shown.append([sum(row) for row in frame.confusion])
            points.append(-1 if frame.lines is None else frame.lines.points)
            stamps.append(frame.stamp_ns)
        count, width = len(names), len(classes)
        return cls(
            tuple(names),
            np.array(segments, np.float64).reshape(count, width, len(_SEGMENTS)),
            np.array(outlines, np.float64).reshape(count, width + 1, len(_OUTLINE)),
            np.array(changed, np.float64).reshape(count, 2),
            np.array(lines, np.float64).reshape(count, 2),
            np.array(shown, np.int64).reshape(count, width),
            np.array(points, np.int64),
            np.array(stamps, np.int64),
        )

    def __len__(self) -> int:
        return len(self.names)

    def take(self, order: NDArray[np.intp]) -> FrameCounts:
        """The frames in another order."""
        tables = {name: table[order] for name, table in vars(self).items() if name != "names"}
        return FrameCounts(tuple(self.names[number] for number in order), **tables)

    def columns(self, order: Sequence[int]) -> FrameCounts:
        """The classes in another order."""
        outlines = self.outlines[:, [*order, -1]]
        return replace(self, segments=self.segments[:, order], outlines=outlines, shown=self.shown[:, order])


def scores(counts: FrameCounts, weights: Array, classes: Sequence[str], things: Sequence[bool]) -> dict[str, Array]:
    """Every score that follows from the counts, float64 (B,) by its path in ``metrics.json``; NaN where undefined.

    Args:
        weights: float64 (B, F), how often each frame was drawn: whole numbers.
        things: for each class, whether it is a thing.
    """
    tables = (counts.segments, counts.outlines, counts.changed, counts.lines)
    segments, outlines, changed, lines = (  # (B, C, 6), (B, C + 1, 4), (B, 2), (B, 2) sums over frames
        (weights @ table.reshape(len(counts), -1)).reshape(len(weights), *table.shape[1:]) for table in tables
    )
    tp, fp, fn, iou_sum, intersection, union = np.moveaxis(segments, -1, 0)
    weight = tp + (fp + fn) / 2
    qualities = {
        "pq": _ratio(iou_sum, weight),
        "sq": np.where(tp > 0, _ratio(iou_sum, tp), np.where(weight > 0, 0.0, np.nan)),
        "rq": _ratio(tp, weight),
    }
    iou, f1 = _ratio(intersection, union), _f1(outlines)
    thing = np.array(things, np.bool_)
    found: dict[str, Array] = {}
    for group, members in (("all", np.ones_like(thing)), ("things", thing), ("stuff", ~thing)):
        found |= {f"panoptic.{group}.{key}": _mean(values[:, members]) for key, values in qualities.items()}
    found["semantic.miou"] = _mean(iou)
    found["boundary.f1"] = _mean(f1[:, :-1])
    found["lane.f1"] = f1[:, -1]
    if LANE in classes:
        found["lane.iou"] = iou[:, classes.index(LANE)]
    if counts.lines.any():
        found["lane.lines.f1"] = _ratio(lines[:, 0], lines[:, 1])
    found["temporal.flicker"] = _ratio(changed[:, 0], changed[:, 1])
    for number, name in enumerate(classes):
        found |= {f"panoptic.per_class.{name}.{key}": values[:, number] for key, values in qualities.items()}
        found[f"semantic.per_class.{name}"] = iou[:, number]
        found[f"boundary.per_class.{name}.f1"] = f1[:, number]
    return found


def draws(frames: int, resamples: int, block: int, random: np.random.Generator) -> Iterator[Array]:
    """How often each frame is drawn, float64 (B, F), in portions until ``resamples`` rows are made.

    Args:
        block: frames that are drawn together, as neighbours in a circle: 1 for independent frames; for video the
            length over which frames resemble each other (Politis and Romano, 1992, circular block bootstrap).
    """
    left, portion = resamples, max(1, _AT_ONCE // max(1, frames))
    blocks = -(-frames // block)
    while left > 0:
        rows = np.empty((min(left, portion), frames))
        for row in rows:
            starts = random.integers(frames, size=blocks)
            chosen = (starts[:, None] + np.arange(block)).reshape(-1)[:frames] % frames
            row[:] = np.bincount(chosen, minlength=frames)
        yield rows
        left -= len(rows)


def intervals(samples: Mapping[str, Array], confidence: float) -> dict[str, tuple[float, float] | None]:
    """The middle ``confidence`` of the samples by name; None where a score is undefined in too many draws.

    A class that occurs in few frames is missing from some draws; an interval of the others would be too narrow to
    believe once these are more than one in twenty.
    """
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found: dict[str, tuple[float, float] | None] = {}
    for name, values in samples.items():
        known = values[np.isfinite(values)]
        low, high = np.quantile(known, tails) if known.size >= 0.95 * values.size > 0 else (np.nan, np.nan)
        found[name] = (float(low), float(high)) if np.isfinite(low) else None
    return found


def _ratio(above: Array, below: Array) -> Array:
    ratio = np.full(above.shape, np.nan)
    np.divide(above, below, out=ratio, where=below > 0)
    return ratio


def _f1(outlines: Array) -> Array:
    """(..., 4) hit, predicted, found, true to F1 (...); NaN where nothing is there and nothing predicted."""
    hit, predicted, found, true = np.moveaxis(outlines, -1, 0)
    precision, recall = (np.nan_to_num(_ratio(*pair)) for pair in ((hit, predicted), (found, true)))
    empty = np.where(predicted + true > 0, 0.0, np.nan)
    f1: Array = empty + np.nan_to_num(_ratio(2 * precision * recall, precision + recall))
    return f1


def _mean(values: Array) -> Array:
    """Mean over the classes (axis 1) of those that are defined."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))
