"""One thread that owns the pipeline and always works on the newest frame of every camera."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from drive_seg.decode import decode
from drive_seg.errors import DriveSegError, EngineLost, MalformedImage
from drive_seg.frame import CompressedImage, Frame, PanopticResult
from drive_seg.pipeline import Pending, Pipeline
from drive_seg.telemetry import FrameLedger, Stopwatch

Publish = Callable[[PanopticResult], None]
Report = Callable[[str, DriveSegError], None]

_SIGN_OF_LIFE_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flight:
    """A batch that the engine has: its frames, and when they were picked up."""

    frames: Sequence[Frame]
    picked_up: int
    pending: Pending


class Worker:
    """Takes the latest frame of each camera, runs them as one batch, hands every result to ``publish``.

    The engine has one batch at a time. Where frames wait when a GPU is done, it gets them before the results of the
    batch are made and published, so that neither it nor this thread waits for the other. An engine on the CPU would
    gain nothing: both want the same cores (six cameras on two of them: as many frames, 6 % later).

    Frames are offered from any thread and never wait behind older ones: each camera has one place, and a frame
    that is still in it when the next arrives is dropped as ``superseded``. Every frame ends in its camera's ledger.
    Where a batch does not hold all cameras, those go first that have waited longest.

    Args:
        open_pipeline: called on the worker's thread, which owns the engine's context from then on.
        cameras: names.
        publish: called on the worker's thread with each result, ``times`` filled up to ``postprocess``;
            what it raises counts the frame as failed and is reported.
        finished: called after ``publish`` with the complete times (``publish``, ``processing``).
        report: called with (camera, error) for every frame lost to an error; what it raises is logged.
        max_age_ms: current age limit of a frame at pick-up; 0 is off.
        prepare: called on the worker's thread with the pipeline before it is given a batch.
    """

    def __init__(
        self,
        open_pipeline: Callable[[], Pipeline],
        cameras: Sequence[str],
        publish: Publish,
        finished: Publish,
        report: Report,
        max_age_ms: Callable[[], float] = lambda: 0.0,
        prepare: Callable[[Pipeline], None] = lambda pipeline: None,
    ) -> None:
        self._open_pipeline = open_pipeline
        self._publish = publish
        self._finished = finished
        self._report = report
        self._max_age_ms = max_age_ms
        self._prepare = prepare
        self._ledgers = {camera: FrameLedger() for camera in cameras}
        self._latest: dict[str, Frame] = {}
        self._picked_up: int | None = None
        self._wake = threading.Condition()
        self._busy = threading.Lock()
        self._accepting = False
        self._stopping = False
        self._opened = threading.Event()
        self._error: Exception | None = None
        self._successor: Pipeline | None = None
        self._unexpected = ""
        self.lost: EngineLost | None = None
        """Why no frame can be processed any more; None while all is well."""
        self.pipeline: Pipeline | None = None
        """The one that serves."""
        self._thread = threading.Thread(target=self._run, name="drive_seg_worker", daemon=True)

    @property
    def ledgers(self) -> Mapping[str, FrameLedger]:
        """The frame ledger of every camera."""
        return self._ledgers

    @property
    def busy_s(self) -> float:
        """For how long the batch in work has been in work, in seconds; 0 when there is none."""
        since = self._picked_up
        return 0.0 if since is None else (time.monotonic_ns() - since) / 1e9

    def start(self, meanwhile: Callable[[], None] = lambda: None) -> Pipeline:
        """Start the thread and wait until the pipeline is open.

        Args:
            meanwhile: called every second of that, on this thread: an engine that has to be built takes minutes.

        Raises:
            DriveSegError: what opening it raised.
        """
        self._thread.start()
        while not self._opened.wait(_SIGN_OF_LIFE_S):
            meanwhile()
        if self._error is not None:
            self._thread.join()
            raise self._error
        assert self.pipeline is not None
        return self.pipeline

    def replace(self, pipeline: Pipeline) -> None:
        """Serve with ``pipeline`` from the next frames on, with options and tracks of the former one, which is closed.

        Called on any thread; no frame is lost by it. A worker that is stopping closes ``pipeline`` at once.
        """
        with self._wake:
            refused, self._successor = (pipeline, None) if self._stopping else (self._successor, pipeline)
            self._wake.notify()
        if refused is not None:
            self._close(refused)

    def resume(self) -> None:
        """Accept frames."""
        with self._wake:
            self._accepting = True

    def pause(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Drop what waits and refuse frames from now on (reason ``inactive``); returns when the worker is idle. Neither
        this nor ``stop`` is for the worker's own callbacks, which would wait for themselves.

        Args:
            meanwhile: called every second until then, on this thread: an engine may be stuck.
        """
        with self._wake:
            self._accepting = False
            for camera in self._latest:
                self._ledgers[camera].drop("inactive")
            self._latest.clear()
        while not self._busy.acquire(timeout=_SIGN_OF_LIFE_S):
            meanwhile()
        self._busy.release()

    def offer(self, frame: Frame) -> None:
        """Make ``frame`` its camera's newest; what it replaces is dropped as ``superseded``."""
        ledger = self._ledgers[frame.camera]
        ledger.receive()
        with self._wake:
            if not self._accepting:
                ledger.drop("inactive")
                return
            if frame.camera in self._latest:
                ledger.drop("superseded")
            self._latest[frame.camera] = frame
            self._wake.notify()

    def stop(self) -> None:
        """Finish the batch in flight, drop what waits, close the pipeline and join the thread."""
        self.pause()
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            pipeline = self._open_pipeline()
        except Exception as error:  # noqa: BLE001 - handed to start(), which raises it on the caller's thread
            self._error = error
            self._opened.set()
            return
        self.pipeline = pipeline
        self._opened.set()
        try:
            while self._wait_for_work():
                with self._busy:
                    pipeline = self._newest(pipeline)
                    self._serve(pipeline)
        except Exception as error:  # noqa: BLE001 - without this thread nothing is served: that must not go unseen
            _log.error("the worker has ended unexpectedly", exc_info=error)
            self.lost = EngineLost(f"the worker has ended unexpectedly: {type(error).__name__}: {error}")
        finally:
            with self._wake:
                self._stopping = True  # what replace() is given from now on nobody would take and close
            self._close(self._newest(pipeline))

    def _wait_for_work(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._latest or self._successor or self._stopping)
            return not self._stopping

    def _newest(self, pipeline: Pipeline) -> Pipeline:
        """The successor where there is one; ``pipeline`` is closed then."""
        with self._wake:
            successor, self._successor = self._successor, None
        if successor is None:
            return pipeline
        successor.options = pipeline.options
        successor.continue_tracks(pipeline)
        self.pipeline = successor
        self._close(pipeline)
        return successor

    @staticmethod
    def _close(pipeline: Pipeline) -> None:
        try:
            pipeline.close()
        except Exception as error:  # noqa: BLE001 - neither what serves from now on nor the end is touched by it
            _log.error("an engine could not be closed", exc_info=error)

    def _serve(self, pipeline: Pipeline) -> None:
        """Batch after batch for as long as frames wait."""
        flight = self._launch(pipeline, self._take(pipeline.max_batch))
        while flight is not None:
            self._picked_up = flight.picked_up
            flight.pending.collect()
            ahead = self._launch(pipeline, self._take_ahead(pipeline))
            self._land(flight)
            flight = ahead
        self._picked_up = None

    def _take(self, limit: int) -> list[Frame]:
        # No more than one batch: what waits for the next must still be replaced by newer frames. A dict keeps the order
        # in which its keys came, so those cameras go first that have waited longest.
        with self._wake:
            return [self._latest.pop(camera) for camera in list(self._latest)[:limit]]

    def _take_ahead(self, pipeline: Pipeline) -> list[Frame]:
        """What the engine may have while the results of the last batch are made: nothing that takes longer to decode
        than those take to publish, and nothing that another pipeline shall have."""
        with self._wake:
            compressed = any(isinstance(frame.image, CompressedImage) for frame in self._latest.values())
            room = pipeline.slots > 1 and pipeline.engine.info.on_gpu
            wanted = room and self._successor is None and not compressed
        return self._take(pipeline.max_batch) if wanted else []

    def _launch(self, pipeline: Pipeline, frames: Sequence[Frame]) -> Flight | None:
        """Give the engine those that are neither stale nor damaged; None where none are left."""
        picked_up = time.monotonic_ns()
        if self._picked_up is None:
            self._picked_up = picked_up
        admitted = (self._admit(frame, picked_up) for frame in frames)
        batch = [frame for frame in admitted if frame is not None]
        if not batch:
            return None
        try:
            self._prepare(pipeline)
            return Flight(batch, picked_up, pipeline.submit(batch))
        except Exception as error:  # noqa: BLE001 - see _lose
            self._lose_all(batch, error)
            return None

    def _land(self, flight: Flight) -> None:
        """Publish the results of a batch."""
        try:
            results = flight.pending.wait()
        except Exception as error:  # noqa: BLE001 - see _lose
            self._lose_all(flight.frames, error)
            return
        for result in results:
            self._deliver(result, flight.picked_up)

    def _admit(self, frame: Frame, picked_up: int) -> Frame | None:
        """The frame with its pixels decoded and its queue time, or None when it is dropped."""
        queue_ms = (picked_up - frame.received_ns) / 1e6
        try:
            limit = self._max_age_ms()
            if limit and (frame.transport_ms or 0.0) + queue_ms > limit:
                self._ledgers[frame.camera].drop("stale")
                return None
            frame = dataclasses.replace(frame, queue_ms=queue_ms)
            if not isinstance(frame.image, CompressedImage):
                return frame
            watch = Stopwatch()
            return dataclasses.replace(frame, image=decode(frame.image), decode_ms=watch.lap())
        except MalformedImage as error:
            self._ledgers[frame.camera].drop("malformed")
            self._tell(frame.camera, error)
        except Exception as error:  # noqa: BLE001 - see _lose
            self._lose(frame, error)
        return None

    def _deliver(self, result: PanopticResult, picked_up: int) -> None:
        watch = Stopwatch()
        frame = result.frame
        try:
            self._publish(result)
        except Exception as error:  # noqa: BLE001 - see _lose
            self._lose(frame, error)
            return
        published = watch.lap()
        now = time.monotonic_ns()  # after the lap, so that no part is longer than the whole
        self._ledgers[frame.camera].publish()
        own = (now - frame.received_ns) / 1e6
        times = dataclasses.replace(
            result.times,
            transport=frame.transport_ms,
            queue=frame.queue_ms,
            publish=published,
            processing=(now - picked_up) / 1e6,
            end_to_end=None if frame.transport_ms is None else frame.transport_ms + own,
        )
        try:
            self._finished(dataclasses.replace(result, times=times))
        except Exception as error:  # noqa: BLE001 - the frame is out and counted; its times must not end the thread
            _log.error("the times of a frame of camera %s are lost", frame.camera, exc_info=error)

    def _lose_all(self, frames: Sequence[Frame], error: Exception) -> None:
        if isinstance(error, EngineLost):
            self.lost = error
        for frame in frames:
            self._lose(frame, error)

    def _lose(self, frame: Frame, error: Exception) -> None:
        """One bad frame must not end the thread that serves all the others: count it, report it, go on."""
        if not isinstance(error, DriveSegError):
            known = DriveSegError(f"{type(error).__name__}: {error}")
            if str(known) != self._unexpected:  # where it comes from is said once, not with every frame
                _log.error("a frame of camera %s failed unexpectedly", frame.camera, exc_info=error)
            self._unexpected = str(known)
            error = known
        self._ledgers[frame.camera].fail()
        self._tell(frame.camera, error)

    def _tell(self, camera: str, error: DriveSegError) -> None:
        try:
            self._report(camera, error)
        except Exception as broken:  # noqa: BLE001 - the frame is counted; the others of its batch must not go with it
            _log.error("an error of camera %s could not be reported: %s", camera, error, exc_info=broken)
