"""Figures for a model: predictions, made here or before, beside their ground truth.

``evaluate_source`` runs the pipeline: one thread reads and decodes, one post-processes, one scores, one more reads the
truth of a bag; on two cores, where that is quick, one does it all. ``evaluate_predictions`` scores what
``drive_seg run`` wrote.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.decode import decode_rgb
from drive_seg.errors import ConfigError, DriveSegError, SourceError
from drive_seg.frame import CameraImage, Frame, PanopticResult
from drive_seg.labels import LabelSet
from drive_seg.lanes import LaneFinder
from drive_seg.offline.bags import BagSource
from drive_seg.offline.evaluation import FRAMES_FILE, Evaluation, FrameLog, FrameScore
from drive_seg.offline.identities import Witness
from drive_seg.offline.interrupts import Interrupts
from drive_seg.offline.label_map import LabelMap, bind, load_map, scored_ids
from drive_seg.offline.metrics import StageSamples
from drive_seg.offline.predictions import PredictionSource
from drive_seg.offline.prefetch import cores_to_spare, prefetch
from drive_seg.offline.runner import Outcome, Progress, Warn, run
from drive_seg.offline.scoring import TOLERANCE, Prediction, Scorer, Totals, Truth, tables_of
from drive_seg.offline.shared_pass import share
from drive_seg.offline.sources import Source, origin_of
from drive_seg.offline.summary import SUMMARY_FILE, versions
from drive_seg.offline.truth import TruthSource
from drive_seg.pipeline import Pipeline
from drive_seg.ranges import check_kind, check_number
from drive_seg.telemetry import Percentiles


@dataclass(frozen=True)
class Scored:
    """One scored frame, shown to whoever wants to look: a report keeps the worst.

    Attributes:
        truth, prediction: each in its own classes; ``maps`` has them in those that are scored.
        label_map: brings both to the scored classes.
        image: uint8 (H, W, 3) RGB, None where only the maps are known.
    """

    score: FrameScore
    truth: Truth
    prediction: Prediction
    label_map: LabelMap
    image: NDArray[np.uint8] | None

    def maps(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """int32 (H, W) truth and prediction in the scored classes, as ``scored_ids`` has them."""
        true_classes, predicted_classes = tables_of(self.label_map, self.truth)
        labels = self.label_map.labels
        return (
            scored_ids(self.truth.map, true_classes, labels),
            scored_ids(self.prediction.map, predicted_classes, labels),
        )


Observer = Callable[[Scored], None]


@dataclass(frozen=True)
class EvaluationOptions:
    """How to score.

    Attributes:
        label_map: name or path; None takes the truth's own, or else the model's classes.
        tolerance: pixels for outlines and lane markings.
        out: folder for ``frames.jsonl``; None keeps the frames in a temporary file.
        command: for the record.
        limit: at most so many frames.

    Raises:
        ConfigError: a value is of another kind or out of range.
    """

    label_map: str | None = None
    tolerance: int = TOLERANCE
    out: Path | None = None
    command: str = ""
    limit: int | None = None

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance, 0, whole=True)
        if self.limit is not None:
            check_number("limit", self.limit, 1, whole=True)
        if self.out is not None:
            check_kind("out", self.out, Path)


@dataclass
class Tally:
    """What scoring comes to; adds with ``+=``, so that a recording may be scored in chunks.

    Attributes:
        totals: all counts.
        latency: of the pipeline, where it ran.
        unmatched_predictions: frames without truth.
        truths: by name of what holds them, how many frames have a truth, None where that is unknown.
    """

    totals: Totals
    latency: StageSamples = field(default_factory=StageSamples)
    unmatched_predictions: int = 0
    truths: dict[str, int | None] = field(default_factory=dict)

    def __iadd__(self, other: Tally) -> Tally:
        self.totals += other.totals
        self.latency += other.latency
        self.unmatched_predictions += other.unmatched_predictions
        self.truths |= other.truths
        return self


class Judge:
    """Finds every frame's truth, scores it, keeps its record. Its ``tally`` is what the evaluation is made of."""

    def __init__(
        self,
        truth: TruthSource,
        labels: LabelSet,
        options: EvaluationOptions,
        predicted_instances: bool = True,
        observe: Observer | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.label_map = label_map_for(truth, labels, options.label_map)
        self.knows_lanes, self.knows_tracks = truth.lanes, truth.tracks
        self.truth = truth
        self._scorer = Scorer(self.label_map, options.tolerance, predicted_instances, witness)
        self._observe = observe
        self._witness = witness
        self.tally = Tally(self._scorer.totals, truths={truth.name: truth.count})
        self.log = FrameLog(_open_log(options.out))

    def prime(self, frame: Frame, truth: Truth, result: PanopticResult) -> None:
        """Show the scored frame before the first: it is compared with, not counted."""
        self._scorer.prime(frame.stamp_ns, truth, prediction_of(result), _rgb(frame))

    def hear(self, result: PanopticResult, image: Callable[[], NDArray[np.uint8] | None]) -> None:
        """Score one result of the pipeline, as ``see``."""
        prediction = prediction_of(result)
        if self._witness is not None:
            self._witness.look(result)
            prediction = replace(prediction, tracks={})
        origin = origin_of(result.frame)
        by_stamp = origin.numbered and self.truth.timed
        scored = self.see(origin.stem, result.frame.stamp_ns, prediction, image, by_stamp)
        if scored and self._witness is not None:
            self._witness.mark()

    def conclude(self) -> None:
        """The recording is over: what only its whole can tell goes into the totals. To be called once."""
        self.tally.totals.tracking += self._scorer.trajectories.counts()
        self.tally.truths[self.truth.name] = self.truth.count

    def see(
        self,
        stem: str,
        stamp_ns: int,
        prediction: Prediction,
        image: Callable[[], NDArray[np.uint8] | None],
        by_stamp: bool = False,
    ) -> bool:
        """Score one frame; False where it has no truth. ``image`` is asked only where there is.

        A frame without a stem is called by its stamp. ``by_stamp``: the stem is no name, the stamp finds the truth.
        """
        truth = self.truth.find("" if by_stamp else stem, stamp_ns)
        if truth is None:
            self.tally.unmatched_predictions += 1
            return False
        pixels = image()
        score = self._scorer.score(stem or str(stamp_ns), stamp_ns, truth, prediction, pixels)
        self.log.append(score)
        if self._observe is not None:
            self._observe(Scored(score, truth, prediction, self.label_map, pixels))
        return True

    def evaluation(self, environment: Mapping[str, Any], command: str, fps: float | None) -> Evaluation:
        """The outcome so far.

        Raises:
            SourceError: not one frame found its truth.
        """
        tally = self.tally
        self.log.flush()
        if not tally.totals.frames:
            raise SourceError(
                f"none of {tally.unmatched_predictions} frames has a truth in {self.truth.name}; "
                "frames and truth must have equal names, or equal stamps where one is a bag (those of a folder of "
                "truth are in its instances.jsonl and lanes.jsonl, or its files are called by them)"
            )
        latency = {stage: value.as_dict() for stage, value in tally.latency.percentiles().items()}
        truths = [count for count in tally.truths.values() if count is not None]
        known = len(truths) == len(tally.truths)
        unmatched = {
            "predictions": tally.unmatched_predictions,
            "truths": sum(truths) - tally.totals.frames if known else None,
        }
        figures = tally.totals.figures()
        metrics = {"frames": figures.pop("frames"), "unmatched": unmatched, **figures, "fps": fps}
        return Evaluation(metrics, self.log, latency, environment, command)


def label_map_for(truth: TruthSource, labels: LabelSet, name: str | None = None) -> LabelMap:
    """The label map of a truth and a model: ``name``, the truth's own, or the classes they share.

    Raises:
        ConfigError: it does not fit them.
    """
    chosen = name or truth.label_map
    if chosen is not None:
        try:
            bound = bind(load_map(chosen), labels, truth.classes)
        except ConfigError as error:
            if name:
                raise
            raise ConfigError(f"{error}; it is for the shipped models: give another with --label-map") from error
        instances = bound.instances and truth.instances
        return LabelMap(bound.labels, bound.truth, bound.predicted, instances)
    if dict(truth.classes) != {label.name: label.id for label in labels}:
        raise ConfigError(
            f"truth {truth.name} has the classes {list(truth.classes)}, the model {[label.name for label in labels]}; "
            "bring them together with --label-map"
        )
    return LabelMap.identity(labels, truth.instances)


@dataclass(frozen=True)
class Judged:
    """An evaluation. ``error`` is what ended it early, or what its predictions lack; the figures hold what came before.

    ``times_ms`` are the milliseconds of every frame by stage, where the pipeline ran.
    """

    evaluation: Evaluation
    error: DriveSegError | None = None
    interrupted: bool = False
    times_ms: Mapping[str, Sequence[float]] = field(default_factory=dict)


def evaluate_predictions(
    predictions: PredictionSource,
    truth: TruthSource,
    labels: LabelSet,
    options: EvaluationOptions = EvaluationOptions(),
    environment: Mapping[str, Any] | None = None,
    progress: Progress = lambda done: None,
    observe: Observer | None = None,
) -> Judged:
    """Score predictions that were made before.

    Raises:
        SourceError: something cannot be read, or no frame has a truth.
        ConfigError: the label map does not fit.
    """
    judge = Judge(truth, labels, options, predictions.instances, observe)
    with Interrupts() as interrupts:
        for number, answer in enumerate(prefetch(predictions), start=1):
            judge.see(answer.stem, answer.stamp_ns, answer.prediction, lambda: None)
            progress(number)
            if number == options.limit or interrupts.requested:
                break
    judge.conclude()
    made = predictions.summary
    known = {name: made[name] for name in ("backend", "precision", "model", "in_flight") if name in made}
    around = {**known, "versions": versions(), **(environment or {})}
    evaluation = judge.evaluation(around, options.command, None)
    evaluation = replace(evaluation, latency=_measured(made.get("latency_ms")))
    error = SourceError(predictions.damage) if predictions.damage else None
    return Judged(evaluation, error, interrupts.requested)


def _measured(latency: Any) -> dict[str, dict[str, float]]:
    """The stages in the ``latency_ms`` of a ``summary.json`` that have all their figures; whoever edited it may have
    spoilt some."""
    names = [part.name for part in fields(Percentiles)]
    found: dict[str, dict[str, float]] = {}
    for stage, row in latency.items() if isinstance(latency, dict) else ():
        values: list[Any] = [row.get(name) for name in names] if isinstance(row, dict) else [None]
        if all(type(value) in (int, float) and math.isfinite(value) for value in values):
            found[stage] = dict(zip(names, values, strict=True))
    return found


def evaluate_source(
    source: Source,
    truth: TruthSource,
    pipeline: Pipeline,
    model_name: str,
    options: EvaluationOptions = EvaluationOptions(),
    environment: Mapping[str, Any] | None = None,
    progress: Progress = lambda done: None,
    warn: Warn = lambda message: None,
    observe: Observer | None = None,
) -> Judged:
    """Run the pipeline over a source and score every frame that has a truth.

    Raises:
        SourceError: no frame has a truth, or a truth cannot be read.
        ConfigError: the label map does not fit.
    """
    judge = Judge(truth, pipeline.labels, options, True, observe)
    outcome = score_source(source, judge, pipeline, model_name, options, progress, warn)
    judge.conclude()
    if outcome.error is not None and not judge.tally.totals.frames:
        raise outcome.error
    around = {**outcome.summary.environment, **(environment or {})}
    evaluation = judge.evaluation(around, options.command, outcome.summary.fps)
    return Judged(evaluation, outcome.error, outcome.interrupted, judge.tally.latency.samples)


def score_source(
    source: Source,
    judge: Judge,
    pipeline: Pipeline,
    model_name: str,
    options: EvaluationOptions = EvaluationOptions(),
    progress: Progress = lambda done: None,
    warn: Warn = lambda message: None,
) -> Outcome:
    """Run the pipeline over a source and have every frame judged.

    What the truth cannot score (lane boundaries, tracks) the pipeline is not asked for meanwhile, nor for boundaries
    that its labels cannot show: they would count as missed.
    """
    before = pipeline.options, pipeline.tracking
    pipeline.options = replace(pipeline.options, lanes=judge.knows_lanes and LaneFinder(pipeline.labels).can_find)
    if not judge.knows_tracks:
        pipeline.tracking = None
    try:
        with tempfile.TemporaryDirectory(prefix="drive_seg_") as scratch:
            sink = _ScoringSink(judge, (options.out or Path(scratch)) / SUMMARY_FILE)
            threads = cores_to_spare() or not (isinstance(source, BagSource) and source.quick)
            source = source if threads else share(source, judge.truth)
            return run(source, sink, pipeline, model_name, options.limit, progress, warn, threads)
    finally:
        pipeline.options, pipeline.tracking = before


def prediction_of(result: PanopticResult) -> Prediction:
    """What is scored of a result."""
    scores = {one.panoptic_id: one.score for one in result.instances}
    tracks = {one.panoptic_id: one.track for one in result.instances if one.track is not None}
    # A frame without instances is tracked too: its objects are missed.
    known = tracks if len(tracks) == len(scores) else None
    return Prediction(result.panoptic, scores, result.mask, known, result.lanes)


class _ScoringSink:
    """The end of a run: results go to the judge."""

    def __init__(self, judge: Judge, summary_path: Path) -> None:
        self.summary_path = summary_path
        self._judge = judge

    def write(self, result: PanopticResult) -> None:
        frame = result.frame
        self._judge.hear(result, lambda: _rgb(frame))
        self._judge.tally.latency.add(result.times)

    def close(self) -> None:
        """Nothing is open."""


def _rgb(frame: Frame) -> NDArray[np.uint8] | None:
    return decode_rgb(frame.image) if isinstance(frame.image, CameraImage) else None


def _open_log(out: Path | None) -> IO[str]:
    if out is None:
        return tempfile.TemporaryFile("w+", encoding="utf-8", prefix="drive_seg_")
    try:
        out.mkdir(parents=True, exist_ok=True)
        return (out / FRAMES_FILE).open("w+", encoding="utf-8")
    except OSError as error:
        raise DriveSegError(f"cannot write {out}: {error}") from error
