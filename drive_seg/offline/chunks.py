"""An evaluation in pieces that any process can do: whole bags, or some seconds of one.

``plan`` cuts, ``evaluate_chunk`` does one piece, ``evaluate_chunks`` adds them up. Counts are whole numbers, a piece is
shown the frame before its first, and tracking is gone through in order (``identities``), so that the figures are those
of one pass, to the last digit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from drive_seg.decode import decode
from drive_seg.engines import EngineInfo
from drive_seg.errors import DriveSegError, MalformedImage, SourceError, counted
from drive_seg.frame import Frame, PanopticResult
from drive_seg.model import open_model
from drive_seg.offline.bags import BagSource, is_bag
from drive_seg.offline.evaluate import EvaluationOptions, Judge, Judged, Tally, score_source
from drive_seg.offline.evaluation import FrameScore
from drive_seg.offline.identities import Note, Replay, Witness
from drive_seg.offline.interrupts import Interrupts
from drive_seg.offline.opening import open_offline
from drive_seg.offline.report_frames import WorstFrames
from drive_seg.offline.runner import Progress, Warn
from drive_seg.offline.scoring import Truth
from drive_seg.offline.summary import SUMMARY_FILE, Summary
from drive_seg.offline.truth_bags import BagTruth
from drive_seg.pipeline import Pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.resources import at_home
from drive_seg.telemetry import FrameCounts
from drive_seg.tracking import TrackingOptions

_NUMBERED = re.compile(r"^(left out |failed |frame )(\d{6,})(?=:)")
"""A frame in what its worker says of it: its number in the chunk."""
_LOOK_BACK_NS = 2_000_000_000
"""How much earlier a frame may have been recorded than the next, to be compared with it, and than its own truth."""


@dataclass(frozen=True)
class Job:
    """What is the same for every chunk.

    Attributes:
        topic, truth_topic: None takes the one that the bag leaves no doubt about.
        carla: the truth is that of CARLA's tag cameras.
        threads: of an engine; 0 is one per core.
        worst: how many pictures of worst frames to keep.
        latency: one frame at a time.
        tracking: None does not track.
        network: (width, height) of the network's input; None is the model's own.
    """

    model: str
    backend: str
    precision: str
    fusion: FusionOptions
    options: EvaluationOptions
    topic: str | None = None
    truth_topic: str | None = None
    carla: bool = False
    threads: int = 0
    worst: int = 0
    latency: bool = False
    tracking: TrackingOptions | None = None
    network: tuple[int, int] | None = None


@dataclass(frozen=True)
class Chunk:
    """Some seconds of a bag.

    Attributes:
        window: recorded from the first to before the second, ns; None is the whole bag.
        prefix: of the names of its frames.
        first, last: the bag begins, ends with it.
    """

    bag: str
    window: tuple[int, int] | None
    prefix: str
    first: bool
    last: bool = True


@dataclass(frozen=True)
class ChunkResult:
    """What came of a chunk. Frames are numbered from 0; ``error`` is what ended it early.

    Attributes:
        counts: the fate of the images of the chunk, scored or not.
        in_flight: most frames in the pipeline of its worker at once.
        notes: of all its frames in order, where the bag has more chunks and is tracked.
        told_to_end: Ctrl-C came when nothing of it was left to do; no other is to be begun.
    """

    counts: FrameCounts
    tally: Tally
    scores: Sequence[FrameScore]
    gallery: WorstFrames
    engine: EngineInfo
    in_flight: int
    warnings: Sequence[str]
    error: str = ""
    notes: Sequence[Note] = ()
    told_to_end: bool = False


Work = Callable[[Chunk], ChunkResult]
Spread = Callable[[Work, Sequence[Chunk]], Iterable["ChunkResult | DriveSegError"]]
"""Does the work for every chunk; results in order, an error in the place of what cannot be done."""


def plan(bags: Sequence[str], topic: str | None = None, seconds: float | None = None) -> tuple[list[Chunk], int]:
    """Cut bags into chunks; returns them and the number of images.

    Args:
        seconds: of recording per chunk; None, and bags that are damaged or have no image: each as a whole.

    Raises:
        SourceError: one is no bag with images; the message says why.
    """
    chunks = []
    images = 0
    for bag in bags:
        if not Path(bag).exists() or not is_bag(Path(bag)):
            raise SourceError(f"{bag} is no bag; expected .mcap, .db3, .bag or a rosbag2 folder")
        prefix = f"{Path(bag).stem}/" if len(bags) > 1 else ""
        source = BagSource(Path(bag), topic)
        images += source.count or 0
        recorded = source.recorded
        if recorded is None or not seconds or not source.count:
            chunks.append(Chunk(bag, None, prefix, True))
            continue
        start, end = recorded
        for edge in range(start, end + 1, max(1, int(seconds * 1e9))):
            stop = min(edge + max(1, int(seconds * 1e9)), end + 1)
            chunks.append(Chunk(bag, (edge, stop), prefix, edge == start, stop > end))
    return chunks, images


@lru_cache(maxsize=1)
def _pipeline(job: Job) -> Pipeline:
    """The pipeline of this process: the chunks that come to it are of one job."""
    card = open_model(job.model)
    if job.network is not None:
        card = replace(card, width=job.network[0], height=job.network[1])
    return open_offline(card, job.backend, job.precision, job.fusion, job.latency, job.threads)


def evaluate_chunk(job: Job, chunk: Chunk) -> ChunkResult:
    """Run and score one chunk.

    Raises:
        DriveSegError: nothing of it can be done.
    """
    pipeline = _pipeline(job)
    before = around = None
    if chunk.window is not None:
        start, stop = chunk.window
        before = (start - _LOOK_BACK_NS, start)
        around = (start - 2 * _LOOK_BACK_NS, stop + _LOOK_BACK_NS)
    truth = BagTruth(Path(chunk.bag), pipeline.labels, job.truth_topic, job.carla, around)
    gallery = WorstFrames(job.worst)
    witness = None if job.tracking is None else Witness()
    warnings: list[str] = []
    options = replace(job.options, out=None)  # whoever adds the chunks up writes
    try:
        judge = Judge(truth, pipeline.labels, options, True, gallery.see, witness)
        if before is not None and not chunk.first:
            last = _last_with_truth(BagSource(Path(chunk.bag), job.topic, before), truth, pipeline)
            if last is not None:
                judge.prime(*last)
        source = BagSource(Path(chunk.bag), job.topic, chunk.window)
        outcome = score_source(source, judge, pipeline, job.model, options, warn=warnings.append)
        scores = list(judge.log)
        judge.log.close()
    finally:
        truth.close()
    if outcome.interrupted:
        raise KeyboardInterrupt
    counts = outcome.summary.counts
    error = str(outcome.error) if outcome.error is not None else ""
    info, in_flight = pipeline.engine.info, outcome.summary.in_flight
    notes: Sequence[Note] = witness.notes if witness is not None else ()
    if job.tracking is not None and chunk.first and chunk.last:
        replay = Replay(job.tracking)
        scores = replay.go_on(chunk.bag, scores, notes)
        judge.tally.totals.tracking += replay.counts()
        notes = ()
    told = outcome.told_to_end
    return ChunkResult(counts, judge.tally, scores, gallery, info, in_flight, warnings, error, notes, told)


def _last_with_truth(
    source: BagSource, truth: BagTruth, pipeline: Pipeline
) -> tuple[Frame, Truth, PanopticResult] | None:
    last: tuple[Frame, Truth] | None = None
    for entry in _readable(source):
        found = truth.find("", entry.stamp_ns)
        last = last if found is None else (entry, found)
    if last is None:
        return None
    result = pipeline(last[0])
    return result.frame, last[1], result


def _readable(source: BagSource) -> Iterator[Frame]:
    """The frames, decoded, but for those that cannot be read: whoever scores them tells of them."""
    try:
        for entry in source:
            if isinstance(entry, Frame):
                with suppress(MalformedImage):
                    yield replace(entry, image=decode(entry.image))
    except SourceError:
        return


def evaluate_chunks(
    job: Job,
    chunks: Sequence[Chunk],
    spread: Spread,
    environment: Mapping[str, Any],
    progress: Progress = lambda done: None,
    warn: Warn = lambda message: None,
) -> tuple[Judged, WorstFrames]:
    """Do all chunks, each counted once, and add them up in order.

    Args:
        progress: called with the number of images done.

    Raises:
        SourceError: no frame has a truth, or no chunk could be done.
        ConfigError: the label map does not fit.
    """
    started = time.monotonic()
    card = open_model(job.model)
    truth = BagTruth(Path(chunks[0].bag), card.labels, job.truth_topic, job.carla)
    judge = Judge(truth, card.labels, job.options)
    total = _Total(job, judge, warn)
    interrupted = False
    try:
        for chunk, result in zip(chunks, spread(partial(evaluate_chunk, job), chunks), strict=False):
            with Interrupts() as interrupts:  # a chunk that is added by half would spoil the figures
                total.add(chunk, result)
                progress(total.counts.received)
            if interrupts.requested or (isinstance(result, ChunkResult) and result.told_to_end):
                interrupted = chunk is not chunks[-1]
                break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        truth.close()
    tally, errors = judge.tally, total.errors
    if total.replay is not None:
        tally.totals.tracking += total.replay.counts()
    if total.engine is None:
        raise errors[0] if errors else DriveSegError("interrupted before the first chunk was done")
    seconds = time.monotonic() - started
    latency = tally.latency.percentiles()
    summary = Summary.of(total.counts, seconds, latency, total.engine, card.name, total.in_flight)
    if job.options.out is not None:
        summary.write(job.options.out / SUMMARY_FILE)
    around = {**summary.environment, **environment}
    evaluation = judge.evaluation(around, job.options.command, tally.totals.frames / seconds)
    error = errors[0] if errors else None
    if len(errors) > 1:
        error = DriveSegError(f"{errors[0]} (and {counted(len(errors) - 1, 'more chunk')} failed)")
    return Judged(evaluation, error, interrupted, tally.latency.samples), total.gallery


class _Total:
    """Adds chunks up in their order. Frames are numbered through each bag, as one pass would."""

    def __init__(self, job: Job, judge: Judge, warn: Warn) -> None:
        self.counts = FrameCounts(0, 0, {}, 0)
        self.gallery = WorstFrames(job.worst)
        self.replay = None if job.tracking is None else Replay(job.tracking)
        self.errors: list[DriveSegError] = []
        self.engine: EngineInfo | None = None
        self.in_flight = 1
        self._job, self._judge, self._warn = job, judge, warn
        self._ends: dict[str, int] = {}

    def add(self, chunk: Chunk, result: ChunkResult | DriveSegError) -> None:
        """What came of a chunk, or why nothing did."""
        if isinstance(result, DriveSegError):
            self._names(chunk, _images(self._job, chunk))
            self.errors.append(result)
            return
        whole = not result.error or chunk.last
        rename = self._names(chunk, result.counts.received if whole else _images(self._job, chunk))
        scores = result.scores
        if self.replay is not None and not (chunk.first and chunk.last):
            scores = self.replay.go_on(chunk.bag, scores, result.notes)
        for score in scores:
            self._judge.log.append(replace(score, frame=rename(score.frame)))
        self._judge.tally += result.tally
        result.gallery.rename(rename)
        self.gallery += result.gallery
        self.engine, self.in_flight = result.engine, result.in_flight
        self.counts += result.counts
        for line in result.warnings:
            self._warn(_renamed(line, rename))
        if result.error:
            self.errors.append(SourceError(_renamed(result.error, rename)))

    def _names(self, chunk: Chunk, images: int) -> Callable[[str], str]:
        """Those of the next ``images`` frames of the chunk's bag, from their numbers in the chunk."""
        begin = self._ends.get(chunk.bag, 0)
        self._ends[chunk.bag] = begin + images
        return lambda stem: f"{chunk.prefix}{begin + int(stem):06d}"


def _renamed(line: str, rename: Callable[[str], str]) -> str:
    return _NUMBERED.sub(lambda found: found[1] + rename(found[2]), line)


def _images(job: Job, chunk: Chunk) -> int:
    """How many there are in a chunk that was not gone through to its end."""
    number = 0
    with suppress(SourceError):
        for _ in BagSource(Path(chunk.bag), job.topic, chunk.window):
            number += 1
    return number


def read_list(path: Path) -> list[str]:
    """The bags that a text file names, one per line; relative to it; empty lines and ``#`` comments are left out.

    Raises:
        SourceError: it cannot be read, or names none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read the list of bags {path}: {error}") from error
    bags = [str(path.parent / at_home(line)) for line in lines if line and not line.startswith("#")]
    if not bags:
        raise SourceError(f"{path} names no bags; expected one per line")
    if len({Path(bag).stem for bag in bags}) < len(bags):
        raise SourceError(f"{path} has bags of equal names; frames are told apart by the names of their bags")
    return bags


def one_after_another(work: Work, chunks: Sequence[Chunk]) -> Iterator[ChunkResult | DriveSegError]:
    """The ``Spread`` of this process alone."""
    return map(partial(attempt, work), chunks)


def attempt(work: Work, chunk: Chunk) -> ChunkResult | DriveSegError:
    """What is wrong with the data stays so however often it is tried: an answer, not a failure of the worker."""
    try:
        return work(chunk)
    except DriveSegError as error:
        return error
