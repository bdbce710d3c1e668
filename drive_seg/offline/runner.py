"""Every frame of a source through the pipeline into a sink, in order, none dropped for want of time."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from drive_seg.decode import decode
from drive_seg.errors import DriveSegError, EngineError, MalformedImage
from drive_seg.frame import CompressedImage, Frame, PanopticResult
from drive_seg.offline.interrupts import Interrupts
from drive_seg.offline.passage import Passage
from drive_seg.offline.prefetch import prefetch
from drive_seg.offline.sinks import Carrier, Sink
from drive_seg.offline.sources import Source, Unreadable, origin_of
from drive_seg.offline.summary import Summary
from drive_seg.pipeline import Pending, Pipeline
from drive_seg.telemetry import FrameLedger, LatencyLog, Stopwatch

if TYPE_CHECKING:
    from drive_seg.offline.bags import BagCopy

_AHEAD = 2
"""Frames that may wait between two of the threads: stalls are evened out, and few enough stay in the cache."""

_LATENCIES = 1 << 17
"""Most frames whose latencies are kept; of a longer run the last ones."""

Entry: TypeAlias = "Frame | Unreadable | Passage"
Progress = Callable[[int], None]
Warn = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to. ``error`` is what ended it early; everything before it is in the sink.

    ``interrupted``: Ctrl-C cut it short. ``told_to_end``: it came, maybe too late for that.
    """

    summary: Summary
    error: DriveSegError | None = None
    interrupted: bool = False
    told_to_end: bool = False


def run(
    source: Source | BagCopy,
    sink: Sink,
    pipeline: Pipeline,
    model_name: str,
    limit: int | None = None,
    progress: Progress = lambda done: None,
    warn: Warn = lambda message: None,
    threads: bool = True,
) -> Outcome:
    """Read and decode in one thread, post-process in this one, write in a third; then write the summary.

    As many frames are in flight as the pipeline has slots; what is written keeps the order of the source.
    The sink is closed in any case. Ctrl-C ends the run cleanly: what is in flight is still written.

    Args:
        model_name: for the summary.
        limit: stop after so many images of the source.
        progress: called with the number of frames written, on the thread that writes; what it raises ends the run and
            is raised here.
        warn: called with a line about each image that is left out.
        threads: without them all is done in this one while the engine computes: for what is read and written quickly.
    """
    pipeline.forget_tracks()
    log = LatencyLog(float("inf"), min(source.count or _LATENCIES, limit or _LATENCIES, _LATENCIES))
    ledger = FrameLedger()
    watch = Stopwatch()
    error: DriveSegError | None = None
    interrupted = False
    with Interrupts() as interrupts:
        entries = _entries(source, limit, interrupts)
        entries = prefetch(entries, _AHEAD, lambda: interrupts.requested) if threads else entries
        writer = _Writer(sink, ledger, log, progress, threads)
        flight = _Flight(pipeline, writer, ledger, warn)
        try:
            try:
                for entry in entries:
                    if not flight.take(entry):
                        break
                else:
                    interrupted = interrupts.requested
            except DriveSegError as cut:
                error = cut
            flight.land()
        except KeyboardInterrupt:
            interrupted = True
        finally:
            entries.close()
            flight.abandon()
            writer.finish()
    for _ in range(ledger.counts().in_flight):
        ledger.drop("interrupted")
    seconds, engine = watch.lap() / 1e3, pipeline.engine.info
    summary = Summary.of(ledger.counts(), seconds, log.percentiles(), engine, model_name, pipeline.slots)
    if sink.summary_path.parent.is_dir():
        summary.write(sink.summary_path)
    told_to_end = interrupted or interrupts.requested
    return Outcome(summary, writer.error or error or flight.error, interrupted, told_to_end)


class _Flight:
    """What is between the reader and the writer: as many frames as the pipeline has slots, first in, first out.

    An engine that computes several frames side by side is kept busy while one is post-processed.
    """

    def __init__(self, pipeline: Pipeline, writer: _Writer, ledger: FrameLedger, warn: Warn) -> None:
        self._pipeline = pipeline
        self._writer = writer
        self._ledger = ledger
        self._warn = warn
        self._waiting: deque[tuple[Frame, Pending] | Passage] = deque()
        self._frames = 0
        self.error: EngineError | None = None

    def take(self, entry: Entry) -> bool:
        """Start on a frame, or let a message follow those ahead of it; False once the writer takes nothing more."""
        if isinstance(entry, Passage):
            self._waiting.append(entry)
        else:
            self._ledger.receive()
            self._start(entry)
        while self._waiting and self._crowded():
            if not self._hand_over():
                return False
        return True

    def _start(self, entry: Frame | Unreadable) -> None:
        if isinstance(entry, Unreadable):
            self._ledger.drop("malformed")
            self._warn(f"left out {entry.stem}: {entry.error}")
            return
        try:
            self._waiting.append((entry, self._pipeline.submit([entry])))
            self._frames += 1
        except EngineError as lost:
            self._fail(entry, lost)

    def _crowded(self) -> bool:
        """Whether the oldest should go: a message waits for nothing, and a bag may have many between two images."""
        slots = self._pipeline.slots
        return isinstance(self._waiting[0], Passage) or self._frames == slots or len(self._waiting) > slots + _AHEAD

    def land(self) -> None:
        """Hand over all that is in flight, as far as the writer takes it."""
        while self._waiting and self._hand_over():
            pass

    def abandon(self) -> None:
        """Give back the slots of the frames that nobody waits for any more; they count as failed with the writer, and
        else as whatever ended the run."""
        while self._waiting:
            item = self._waiting.popleft()
            if isinstance(item, Passage):
                continue
            try:
                item[1].wait()
            except EngineError as lost:
                self._fail(item[0], lost)
                continue
            if self._writer.error is not None:
                self._ledger.fail()

    def _hand_over(self) -> bool:
        """The oldest one, to the writer; False where it takes nothing more."""
        item = self._waiting.popleft()
        if isinstance(item, Passage):
            return self._writer.put(item)
        frame, pending = item
        self._frames -= 1
        try:
            result = pending.wait()[0]
        except EngineError as lost:
            self._fail(frame, lost)
            return True
        if self._writer.put(result):
            return True
        self._ledger.fail()
        return False

    def _fail(self, frame: Frame, lost: EngineError) -> None:
        self._ledger.fail()
        self._warn(f"failed {origin_of(frame).stem}: {lost}")
        self.error = lost


def _entries(source: Source | BagCopy, limit: int | None, interrupts: Interrupts) -> Generator[Entry, None, None]:
    """What the source has, decoded, up to so many images."""
    images = 0
    for entry in source:
        images += not isinstance(entry, Passage)
        yield _decoded(entry)
        if images == limit or interrupts.requested:
            return


def _decoded(entry: Entry) -> Entry:
    if not isinstance(entry, Frame) or not isinstance(entry.image, CompressedImage):
        return entry
    watch = Stopwatch()
    try:
        return dataclasses.replace(entry, image=decode(entry.image), decode_ms=watch.lap())
    except MalformedImage as error:
        return Unreadable(origin_of(entry).stem, error)


class _Writer:
    """Feeds the sink, with ``thread`` on its own, and closes it; completes the times and counts."""

    def __init__(self, sink: Sink, ledger: FrameLedger, log: LatencyLog, progress: Progress, thread: bool) -> None:
        self._sink = sink
        self._ledger = ledger
        self._log = log
        self._progress = progress
        self._done = 0
        self._queue: queue.Queue[PanopticResult | Passage | None] = queue.Queue(_AHEAD)
        self.error: DriveSegError | None = None
        self._broken: Exception | None = None
        self._thread: threading.Thread | None = None
        if thread:
            self._thread = threading.Thread(target=self._write_all, name="drive_seg_writer", daemon=True)
            self._thread.start()

    def put(self, result: PanopticResult | Passage) -> bool:
        """Hand over a result or a message to copy; False, and not taken, once the sink has failed."""
        if self.error is not None or self._broken is not None:
            return False
        if self._thread is None:
            self._write(result)
        else:
            self._queue.put(result)
        return True

    def _write_all(self) -> None:
        while (result := self._queue.get()) is not None:
            try:
                self._write(result)
            except Exception as error:  # noqa: BLE001 - of progress: raised by finish(), as without a thread it is here
                self._broken = self._broken or error
        self._attempt(self._sink.close)  # here: some files are bound to the thread that opened them

    def _write(self, result: PanopticResult | Passage) -> None:
        if isinstance(result, Passage):
            if self.error is None:
                self._attempt(partial(self._carry, result))
        elif self.error is None and self._attempt(partial(self._store, result)):
            self._ledger.publish()
            self._done += 1
            self._progress(self._done)
        else:
            self._ledger.fail()

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except DriveSegError as error:
            self.error = self.error or error
            return False
        except Exception as error:  # noqa: BLE001 - of the file system or an encoder: it ends the run
            self.error = self.error or DriveSegError(f"cannot write: {type(error).__name__}: {error}")
            return False
        return True

    def _carry(self, passage: Passage) -> None:
        if not isinstance(self._sink, Carrier):
            raise DriveSegError(f"only a bag can take the messages of {passage.channel.topic}")
        self._sink.carry(passage)

    def _store(self, result: PanopticResult) -> None:
        times = result.times
        own = (times.decode, times.preprocess, times.inference, times.postprocess)
        so_far = sum(ms for ms in own if ms is not None)
        watch = Stopwatch()
        self._sink.write(dataclasses.replace(result, times=dataclasses.replace(times, processing=so_far)))
        publish = watch.lap()
        self._log.add(dataclasses.replace(times, publish=publish, processing=so_far + publish))

    def finish(self) -> None:
        """Write what waits, close the sink and end the thread; raises what ``progress`` raised there."""
        if self._thread is None:
            self._attempt(self._sink.close)
        else:
            self._queue.put(None)
            self._thread.join()
            if self._broken is not None:
                raise self._broken
