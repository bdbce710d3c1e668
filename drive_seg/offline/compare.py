"""Two evaluations side by side: what changed, how sure that is, and whether it may pass."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import ConfigError, SourceError
from drive_seg.offline.bootstrap import Array, FrameCounts, draws, intervals, scores
from drive_seg.offline.evaluation import FRAMES_FILE, Evaluation, FrameLog
from drive_seg.resources import at_home

CONFIDENCE = 0.95
RESAMPLES = 1000
SHORT_NAMES = {
    "pq": "panoptic.all.pq",
    "sq": "panoptic.all.sq",
    "rq": "panoptic.all.rq",
    "miou": "semantic.miou",
    "lane_f1": "lane.f1",
    "lane_iou": "lane.iou",
    "lines_f1": "lane.lines.f1",
    "boundary_f1": "boundary.f1",
    "ap": "instance.ap",
    "flicker": "temporal.flicker",
    "idf1": "tracking.idf1",
    "mota": "tracking.mota",
}
"""What metrics may be called instead of their path in ``metrics.json``."""

LEAST_BLOCKS = 10
"""Below so many blocks of frames there are no intervals: drawn from a handful, they would promise too much."""

_FIRST_CLOCK = 10**17
"""Nanoseconds, in 1973. Stamps of folders, videos and simulations count from zero and are no times of a clock."""

_SAME = 1e-9
"""Scores from the frames and those of ``metrics.json`` differ by less: by rounding only."""


@dataclass(frozen=True)
class Limit:
    """A metric, by path or short name, and how much worse it may get in its own unit: a fraction of 1, ms, fps."""

    metric: str
    margin: float

    @classmethod
    def parse(cls, text: str) -> Limit:
        """``METRIC:MARGIN``, as ``miou:0.01``; raises ConfigError."""
        metric, colon, number = text.rpartition(":")
        try:
            margin = float(number)
        except ValueError:
            margin = math.nan
        if not colon or not metric or not (math.isfinite(margin) and margin >= 0):
            raise ConfigError(f"expected METRIC:MARGIN with a margin >= 0, such as miou:0.01, got '{text}'")
        return cls(metric, margin)


@dataclass(frozen=True)
class Difference:
    """One metric of both evaluations, None where undefined. ``interval`` is that of ``after - before``; None for
    metrics that do not follow from counts of frames (latency, average precision), and with too few frames."""

    metric: str
    before: float | None
    after: float | None
    interval: tuple[float, float] | None

    @property
    def change(self) -> float | None:
        """``after - before``."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def lower_is_better(self) -> bool:
        """Latency, flicker, identity switches."""
        return self.metric.startswith(("latency_ms.", "temporal.")) or self.metric.endswith("id_switches")

    @property
    def loss(self) -> float | None:
        """How much worse it became; negative where it became better."""
        return None if self.change is None else self.change if self.lower_is_better else -self.change

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval excludes zero, ``unclear`` where not, ``same`` where it is zero
        alone; empty without one."""
        if self.interval is None:
            return ""
        low, high = self.interval
        if low == high == self.change == 0:
            return "same"
        if low <= 0 <= high:
            return "unclear"
        return "better" if (high < 0) == self.lower_is_better else "worse"

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "metric": self.metric,
            "before": self.before,
            "after": self.after,
            "change": self.change,
            "interval": None if self.interval is None else list(self.interval),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Comparison:
    """``after`` against ``before``.

    Attributes:
        paired: both have the same frames, which were drawn together: the intervals are those of one set of frames.
        frames: how many each has.
        differences: by path in ``metrics.json``.
        block, seed, resamples: of the bootstrap.
    """

    before: str
    after: str
    paired: bool
    frames: tuple[int, int]
    differences: Mapping[str, Difference]
    block: int
    seed: int
    resamples: int

    def difference(self, metric: str) -> Difference:
        """By path (``.per_class`` may be left out), short name, or the path's end (``vehicle.pq``) if only one has it.

        Raises:
            ConfigError: there is none, or several.
        """
        path = SHORT_NAMES.get(metric, metric)
        by_path = {name.replace(".per_class.", "."): name for name in self.differences}
        if path in self.differences or path in by_path:  # a class may be called as a group is: all, things, stuff
            return self.differences[path if path in self.differences else by_path[path]]
        found = [name for name in self.differences if name.endswith("." + path)]
        if len(found) == 1:
            return self.differences[found[0]]
        if found:
            raise ConfigError(f"metric '{metric}' may be {', '.join(found)}; give one of these")
        near = difflib.get_close_matches(path, [*self.differences, *by_path], 4, cutoff=0.4)
        hint = f", or a path of metrics.json such as {', '.join(near)}" if near else ", or a path of metrics.json"
        raise ConfigError(f"there is no metric '{metric}'; expected one of {', '.join(SHORT_NAMES)}{hint}")

    def regressions(self, limits: Sequence[Limit]) -> list[str]:
        """A line for each limit that is not kept, or that cannot be judged; raises ConfigError for unknown metrics."""
        lines = []
        for limit, found in [(limit, self.difference(limit.metric)) for limit in limits]:
            if found.loss is None:
                values = f"{_text(found.before)} before, {_text(found.after)} after"
                lines.append(f"{found.metric} cannot be judged: {values}")
            elif found.loss > limit.margin:
                change = f"{_text(found.before)} -> {_text(found.after)}"
                lines.append(f"{found.metric} is worse by {found.loss:.6g}, more than {limit.margin:g} ({change})")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "before": self.before,
            "after": self.after,
            "paired": self.paired,
            "frames": list(self.frames),
            "bootstrap": {
                "confidence": CONFIDENCE,
                "resamples": self.resamples,
                "seed": self.seed,
                "block": self.block,
            },
            "differences": [difference.as_dict() for difference in self.differences.values()],
        }


def compare_files(
    before: Path, after: Path, *, seed: int = 0, block: int = 1, resamples: int = RESAMPLES
) -> Comparison:
    """Compare two ``metrics.json`` (or their folders) with the ``frames.jsonl`` beside each.

    Args:
        seed: equal seeds give equal intervals.
        block: consecutive frames that are drawn together, see ``bootstrap.draws``.

    Raises:
        SourceError: a file is missing, damaged or of another schema, or the two do not score the same thing.
    """
    (old, old_counts), (new, new_counts) = _read(before), _read(after)
    classes = _same_classes(old, new)
    _same_tolerances(old, new)
    theirs = [str(label["name"]) for label in new.metrics["labels"]]
    new_counts = new_counts.columns([theirs.index(name) for name, _ in classes])
    order = _pairing(old_counts.names, new_counts.names)
    names, things = [name for name, _ in classes], [thing for _, thing in classes]
    if order is not None:
        new_counts = new_counts.take(order)
        _same_truth(old_counts, new_counts)
    for path, evaluation, counts in ((before, old, old_counts), (after, new, new_counts)):
        _check_totals(path, evaluation, scores(counts, np.ones((1, len(counts))), names, things))
    found: dict[str, tuple[float, float] | None] = {}
    if min(len(old_counts), len(new_counts)) >= LEAST_BLOCKS * block:
        found = _intervals(old_counts, new_counts, order is not None, names, things, resamples, block, seed)
    left, right = dict(_leaves(old)), dict(_leaves(new))
    differences = {}
    for metric in {**left, **right}:
        was, now = left.get(metric), right.get(metric)
        interval = None if was is None or now is None else found.get(metric)
        differences[metric] = Difference(metric, was, now, interval)
    frames = (len(old_counts), len(new_counts))
    return Comparison(str(before), str(after), order is not None, frames, differences, block, seed, resamples)


def _intervals(
    old: FrameCounts,
    new: FrameCounts,
    paired: bool,
    classes: Sequence[str],
    things: Sequence[bool],
    resamples: int,
    block: int,
    seed: int,
) -> dict[str, tuple[float, float] | None]:
    """Intervals of the changes. Paired frames are drawn by the same random numbers, so that each draw has both."""
    drawn = [
        _sample(counts, draws(len(counts), resamples, block, np.random.default_rng([seed, stream])), classes, things)
        for counts, stream in ((old, 0), (new, 0 if paired else 1))
    ]
    both = [name for name in drawn[1] if name in drawn[0]]  # lane boundaries may be in one of the two only
    return intervals({name: drawn[1][name] - drawn[0][name] for name in both}, CONFIDENCE)


def _sample(
    counts: FrameCounts, weights: Iterator[Array], classes: Sequence[str], things: Sequence[bool]
) -> dict[str, Array]:
    """Every score of every draw, by name."""
    parts = [scores(counts, portion, classes, things) for portion in weights]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(path: Path) -> tuple[Evaluation, FrameCounts]:
    """An evaluation and the counts of its frames; raises SourceError where one of the files will not do."""
    path = at_home(path)
    try:
        evaluation = Evaluation.read(path)
        frames = evaluation.frames
        try:
            dict(_leaves(evaluation))  # a figure of another form is found here
            classes = [(label["name"], label["thing"]) for label in evaluation.metrics["labels"]]
            counts = FrameCounts.of(frames, [name for name, _ in classes])
        finally:
            if isinstance(frames, FrameLog):
                frames.close()
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise SourceError(
            f"{path} or {FRAMES_FILE} beside it is damaged ({type(error).__name__}: {error}); evaluate again"
        ) from error
    if not len(counts):
        raise SourceError(f"no frames beside {path}: a comparison needs {FRAMES_FILE}, which evaluate writes there too")
    return evaluation, counts


def _same_classes(old: Evaluation, new: Evaluation) -> list[tuple[str, bool]]:
    """Names of the scored classes and whether they are things; raises SourceError where the two differ."""
    left, right = (
        [(str(label["name"]), bool(label["thing"])) for label in evaluation.metrics["labels"]]
        for evaluation in (old, new)
    )
    if sorted(left) != sorted(right):
        lists = [", ".join(f"{name} (thing)" if thing else name for name, thing in side) for side in (left, right)]
        raise SourceError(
            f"the two score different classes, which cannot be compared: {lists[0]}; and {lists[1]}. "
            "Evaluate both with the same label map"
        )
    return left


def _same_tolerances(old: Evaluation, new: Evaluation) -> None:
    for part in ("lane", "boundary"):
        left, right = ((evaluation.metrics.get(part) or {}).get("tolerance_px") for evaluation in (old, new))
        if left != right:
            raise SourceError(
                f"{part}.tolerance_px is {left} in one and {right} in the other; evaluate both with the same tolerance"
            )


def _pairing(old: Sequence[str], new: Sequence[str]) -> NDArray[np.intp] | None:
    """Where each of the old frames is among the new ones; None where they are not the same frames.

    Names may occur twice, as those of several recordings do: then the order has to be the same too.
    """
    if list(old) == list(new):
        return np.arange(len(old))
    places = {name: number for number, name in enumerate(new)}
    if len(old) == len(new) == len(places) and set(old) == places.keys():
        return np.array([places[name] for name in old], np.intp)
    return None


def _same_truth(old: FrameCounts, new: FrameCounts) -> None:
    """Raise SourceError where frames of one name are not the same: every recording has a frame 000000."""
    timed = (old.stamps > _FIRST_CLOCK) & (new.stamps > _FIRST_CLOCK)
    bounded = (old.points >= 0) & (new.points >= 0)
    differ = (old.shown != new.shown).any(axis=1)
    differ |= (timed & (old.stamps != new.stamps)) | (bounded & (old.points != new.points))
    if differ.any():
        raise SourceError(
            f"the two do not score the same thing: {int(differ.sum())} of {len(old)} frames have equal names but "
            f"another truth or stamp, the first is {old.names[int(np.argmax(differ))]}; evaluate both on the same "
            "recording with the same ground truth"
        )


def _check_totals(path: Path, evaluation: Evaluation, totals: Mapping[str, Array]) -> None:
    """Raise SourceError where the frames do not come to what ``metrics.json`` says."""
    stated = dict(_leaves(evaluation))
    for metric, value in totals.items():
        expected = stated.get(metric)
        if expected is not None and not abs(float(value[0]) - expected) < _SAME:
            raise SourceError(
                f"{metric} is {expected} in {path}, but the frames beside it come to {float(value[0])}: "
                f"{FRAMES_FILE} is of another evaluation"
            )


def _leaves(evaluation: Evaluation) -> Iterator[tuple[str, float | None]]:
    """Every comparable figure by its path."""
    metrics = evaluation.metrics
    panoptic = metrics.get("panoptic") or {}
    for group in ("all", "things", "stuff"):
        yield from _pick(panoptic.get(group), f"panoptic.{group}", ("pq", "sq", "rq"))
    yield from _pick(metrics.get("semantic"), "semantic", ("miou",))
    yield from _pick(metrics.get("boundary"), "boundary", ("f1",))
    lane = metrics.get("lane") or {}
    yield from _pick(lane, "lane", ("f1", "iou"))
    yield from _pick(lane.get("lines"), "lane.lines", ("f1", "accuracy"))
    yield from _pick(metrics.get("instance"), "instance", ("ap", "ap50", "ap75"))
    yield from _pick(metrics.get("temporal"), "temporal", ("flicker",))
    yield from _pick(metrics.get("tracking"), "tracking", ("idf1", "mota", "id_switches"))
    yield from _pick(metrics, "", ("fps",))
    for stage, values in evaluation.latency.items():
        yield from _pick(values, f"latency_ms.{stage}", ("p50", "p95", "p99", "max"))
    for part, keys in (("panoptic", ("pq", "sq", "rq")), ("boundary", ("f1",)), ("instance", ("ap", "ap50", "ap75"))):
        for name, values in ((metrics.get(part) or {}).get("per_class") or {}).items():
            yield from _pick(values, f"{part}.per_class.{name}", keys)
    per_class = (metrics.get("semantic") or {}).get("per_class") or {}
    yield from _pick(per_class, "semantic.per_class", tuple(per_class))


def _pick(tree: Mapping[str, Any] | None, path: str, keys: Sequence[str]) -> Iterator[tuple[str, float | None]]:
    for key in keys:
        value = (tree or {}).get(key)
        yield f"{path}.{key}" if path else key, None if value is None else float(value)


def _text(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.6g}"
