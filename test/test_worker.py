"""Frame conservation, newest frame wins and faults of the worker, on a real pipeline with a function engine."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import road_everywhere

from drive_seg.engines import FunctionEngine
from drive_seg.engines.function import FunctionSlot
from drive_seg.errors import DriveSegError, EngineError, ModelError
from drive_seg.frame import CameraImage, CompressedImage, Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline, decode
from drive_seg.telemetry import Stopwatch
from drive_seg.worker import Worker

SIZE = (64, 32)


class Gate:
    """A network that waits until it is let through, frame by frame."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Semaphore(0)
        self.batches: list[int] = []

    def __call__(self, batch: NDArray[np.uint8]) -> RawOutputs:
        self.batches.append(len(batch))
        self.entered.release()
        assert self.release.acquire(timeout=10)
        return road_everywhere(batch)


class Harness:
    def __init__(
        self,
        network: object = road_everywhere,
        cameras: tuple[str, ...] = ("front",),
        max_age_ms: float = 0.0,
        max_batch: int = 0,
    ) -> None:
        self.published: list[PanopticResult] = []
        self.finished: list[PanopticResult] = []
        self.errors: list[tuple[str, DriveSegError]] = []
        self.done = threading.Condition()
        engine = FunctionEngine(network, SIZE, max_batch=max_batch or len(cameras))  # type: ignore[arg-type]
        self.worker = Worker(
            lambda: Pipeline(engine, DRIVING),
            cameras,
            self.publish,
            self.finish,
            self.report,
            lambda: max_age_ms,
        )
        self.worker.start()
        self.worker.resume()

    def publish(self, result: PanopticResult) -> None:
        self.published.append(result)

    def finish(self, result: PanopticResult) -> None:
        with self.done:
            self.finished.append(result)
            self.done.notify_all()

    def report(self, camera: str, error: DriveSegError) -> None:
        with self.done:
            self.errors.append((camera, error))
            self.done.notify_all()

    def wait(self, finished: int = 0, errors: int = 0) -> None:
        with self.done:
            assert self.done.wait_for(lambda: len(self.finished) >= finished and len(self.errors) >= errors, timeout=10)


def frame(stamp: int, camera: str = "front", **fields: object) -> Frame:
    image = CameraImage("mono8", 40, 30, 40, np.zeros(1200, np.uint8))
    return Frame(**{"image": image, "camera": camera, "stamp_ns": stamp, "received_ns": time.monotonic_ns(), **fields})  # type: ignore[arg-type]


def test_newest_frame_wins_and_every_frame_is_accounted_for() -> None:
    gate = Gate()
    harness = Harness(gate)
    harness.worker.offer(frame(1))
    assert gate.entered.acquire(timeout=10)
    for stamp in (2, 3, 4):
        harness.worker.offer(frame(stamp))
    counts = harness.worker.ledgers["front"].counts()
    assert (counts.received, counts.in_flight, dict(counts.dropped)) == (4, 2, {"superseded": 2})
    gate.release.release(2)
    harness.wait(finished=2)
    assert [result.frame.stamp_ns for result in harness.published] == [1, 4]
    harness.worker.stop()
    counts = harness.worker.ledgers["front"].counts()
    assert (counts.published, counts.failed, counts.in_flight) == (2, 0, 0)


def test_frames_of_several_cameras_share_a_batch() -> None:
    gate = Gate()
    harness = Harness(gate, ("left", "front", "right"))
    harness.worker.offer(frame(1, "front"))
    assert gate.entered.acquire(timeout=10)
    for camera in ("right", "left", "front"):
        harness.worker.offer(frame(2, camera))
    gate.release.release(2)
    harness.wait(finished=4)
    harness.worker.stop()
    assert gate.batches == [1, 3]
    assert sorted(result.frame.camera for result in harness.published[1:]) == ["front", "left", "right"]


def test_an_engine_that_fails_loses_its_frame_only() -> None:
    calls: list[int] = []

    def flaky(batch: NDArray[np.uint8]) -> RawOutputs:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("device lost")
        return road_everywhere(batch)

    harness = Harness(flaky)
    harness.worker.offer(frame(1))
    harness.wait(errors=1)
    harness.worker.offer(frame(2))
    harness.wait(finished=1)
    harness.worker.stop()
    counts = harness.worker.ledgers["front"].counts()
    assert (counts.failed, counts.published, counts.in_flight) == (1, 1, 0)
    assert isinstance(harness.errors[0][1], EngineError) and "device lost" in str(harness.errors[0][1])
    assert harness.worker.lost is None


def test_an_image_that_cannot_be_decoded_for_another_reason_loses_its_frame_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(image: CompressedImage) -> CameraImage:
        raise MemoryError("no room for the pixels")

    monkeypatch.setattr("drive_seg.worker.decode", exhausted)
    harness = Harness()
    harness.worker.offer(frame(1, image=CompressedImage(np.zeros(8, np.uint8), "jpeg")))
    harness.wait(errors=1)
    harness.worker.offer(frame(2))
    harness.wait(finished=1)
    harness.worker.stop()
    counts = harness.worker.ledgers["front"].counts()
    assert (counts.received, counts.failed, counts.published, counts.in_flight) == (2, 1, 1, 0)
    assert "MemoryError: no room" in str(harness.errors[0][1])


def test_a_worker_that_ends_unexpectedly_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(pipeline: Pipeline, former: Pipeline) -> None:
        raise RuntimeError("tracks are damaged")

    monkeypatch.setattr(Pipeline, "continue_tracks", broken)
    harness = Harness()
    harness.worker.replace(Pipeline(FunctionEngine(road_everywhere, SIZE), DRIVING))
    deadline = time.monotonic() + 10
    while harness.worker.lost is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "tracks are damaged" in str(harness.worker.lost)

    class Closing(FunctionEngine):
        closed = False

        def close(self) -> None:
            self.closed = True

    late = Closing(road_everywhere, SIZE)
    harness.worker._thread.join(10)
    harness.worker.replace(Pipeline(late, DRIVING))
    assert late.closed, "nobody else would"
    harness.worker.offer(frame(1))
    harness.worker.stop()
    counts = harness.worker.ledgers["front"].counts()
    assert (counts.received, counts.in_flight) == (1, 0)


def test_where_an_unexpected_error_comes_from_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(Harness):
        def publish(self, result: PanopticResult) -> None:
            raise KeyError("mask")

    harness = Refusing()
    for stamp in (1, 2, 3):
        harness.worker.offer(frame(stamp))
        harness.wait(errors=stamp)
    harness.worker.stop()
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    assert len(harness.errors) == 3


def test_times_that_cannot_be_told_cost_no_frame(caplog: pytest.LogCaptureFixture) -> None:
    class Mute(Harness):
        def finish(self, result: PanopticResult) -> None:
            super().finish(result)
            raise OSError("socket closed")

    harness = Mute()
    for stamp in (1, 2):
        harness.worker.offer(frame(stamp))
        harness.wait(finished=stamp)
    harness.worker.stop()
    counts = harness.worker.ledgers["front"].counts()
    assert (counts.published, counts.failed, counts.in_flight) == (2, 0, 0)
    assert ["times" in said.message and said.exc_info is not None for said in caplog.records] == [True, True]


def test_an_error_that_cannot_be_reported_costs_no_other_frame(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(Harness):
        def publish(self, result: PanopticResult) -> None:
            if result.frame.camera == "left":
                raise OSError("socket closed")
            super().publish(result)

        def report(self, camera: str, error: DriveSegError) -> None:
            super().report(camera, error)
            raise OSError("the log is full")

    gate = Gate()
    harness = Deaf(gate, ("left", "right"))
    harness.worker.offer(frame(1, "right"))
    assert gate.entered.acquire(timeout=10)
    for camera in ("left", "right"):
        harness.worker.offer(frame(2, camera))
    gate.release.release(2)
    harness.wait(finished=2, errors=1)
    harness.worker.offer(frame(3, "right", image=CompressedImage(np.arange(100, dtype=np.uint8))))
    harness.wait(errors=2)
    harness.worker.stop()
    assert harness.worker.lost is None
    left, right = (harness.worker.ledgers[camera].counts() for camera in ("left", "right"))
    assert (left.failed, left.in_flight) == (1, 0)
    assert (right.published, dict(right.dropped), right.in_flight) == (2, {"malformed": 1}, 0)
    assert "camera left could not be reported: OSError: socket closed" in caplog.text


def test_an_engine_that_cannot_be_closed_at_the_end_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(FunctionEngine):
        def close(self) -> None:
            raise RuntimeError("the driver refuses")

    harness = Harness()
    harness.worker.replace(Pipeline(Stuck(road_everywhere, SIZE), DRIVING))
    harness.worker.stop()
    (said,) = caplog.records
    assert "could not be closed" in said.message and said.exc_info is not None


def test_every_stage_s_time_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage is made to last some milliseconds more: that is where they are found, and nowhere else twice."""

    def slow(seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        def late(*arguments: Any) -> Any:
            time.sleep(seconds)
            return call(*arguments)

        return late

    jpeg = CompressedImage(np.asarray(cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1]).reshape(-1))
    busy: list[float] = []
    late = slow(0.02, decode)
    monkeypatch.setattr("drive_seg.worker.decode", lambda image: (busy.append(harness.worker.busy_s), late(image))[1])
    monkeypatch.setattr(Harness, "publish", slow(0.01, Harness.publish))
    harness = Harness(slow(0.04, road_everywhere))
    for raw in (False, True):
        begun = time.monotonic()
        image = {} if raw else {"image": jpeg}
        harness.worker.offer(frame(1, received_ns=time.monotonic_ns() - 30_000_000, transport_ms=7.0, **image))
        harness.wait(finished=1 + raw)
        wall = 1e3 * (time.monotonic() - begun)
        times = harness.finished[-1].times
        least = {"queue": 30, "inference": 40, "publish": 10, "processing": 50, "transport": 7}
        least |= {} if raw else {"decode": 20}
        assert all(getattr(times, stage) >= ms for stage, ms in least.items()), times
        parts = (times.decode, times.preprocess, times.inference, times.postprocess, times.publish)
        assert sum(parts) <= times.processing * 1.001
        assert times.queue + times.processing <= times.end_to_end - 7 + 0.001
        assert times.end_to_end <= 7 + 30 + wall
    harness.worker.stop()
    assert busy[0] > 0, "a frame that is decoded is in work"


def test_whoever_is_held_up_between_two_looks_at_the_clock_finds_no_part_longer_than_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class HeldUp(Stopwatch):
        def lap(self) -> float:
            time.sleep(0.02)
            return super().lap()

    monkeypatch.setattr("drive_seg.worker.Stopwatch", HeldUp)
    harness = Harness()
    harness.worker.offer(frame(1))
    harness.wait(finished=1)
    harness.worker.stop()
    times = harness.finished[0].times
    parts = (times.decode, times.preprocess, times.inference, times.postprocess, times.publish)
    assert times.publish >= 20 and sum(parts) <= times.processing
    assert times.transport is None and times.end_to_end is None, "the camera's clock is not known"


def test_what_an_engine_does_before_it_lets_go_is_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of another make are given other pixels then, and an engine's threads may take this one's processor."""
    submit = FunctionSlot.submit
    monkeypatch.setattr(FunctionSlot, "submit", lambda slot, count: (time.sleep(0.03), submit(slot, count)))
    with Pipeline(FunctionEngine(road_everywhere, SIZE), DRIVING) as pipeline:
        assert pipeline(frame(1)).times.inference >= 30


def test_a_worker_without_frames_leaves_the_processor_alone() -> None:
    before = set(threading.enumerate())
    harness = Harness()
    harness.worker.offer(frame(1))
    harness.wait(finished=1)
    (thread,) = set(threading.enumerate()) - before
    clock = time.pthread_getcpuclockid(thread.ident)
    begun = time.clock_gettime(clock)
    time.sleep(0.2)
    assert time.clock_gettime(clock) - begun < 0.02
    harness.worker.stop()


def test_who_waits_for_an_engine_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drive_seg.worker._SIGN_OF_LIFE_S", 0.01)
    opens, gate, signs = threading.Event(), Gate(), Counter[str]()

    def sign(of: str, end: Callable[[], object]) -> None:
        signs[of] += 1
        if signs[of] == 3:
            end()

    def opened() -> Pipeline:
        opens.wait(10)
        return Pipeline(FunctionEngine(gate, SIZE), DRIVING)

    worker = Worker(opened, ["front"], lambda result: None, lambda result: None, lambda *lost: None)
    worker.start(lambda: sign("start", opens.set))
    worker.resume()
    worker.offer(frame(1))
    assert gate.entered.acquire(timeout=10)
    worker.pause(lambda: sign("pause", gate.release.release))
    assert min(signs["start"], signs["pause"]) >= 3 and worker.ledgers["front"].counts().published == 1
    worker.stop()


def test_start_raises_what_opening_raised_and_leaves_no_thread() -> None:
    def broken() -> Pipeline:
        raise ModelError("no such model")

    threads = threading.active_count()
    worker = Worker(broken, ["front"], lambda result: None, lambda result: None, lambda camera, error: None)
    with pytest.raises(ModelError, match="no such model"):
        worker.start()
    worker.stop()
    assert threading.active_count() == threads


def test_a_worker_that_was_never_started_can_be_stopped() -> None:
    """As where a topic of the node cannot be made: that is the error to be seen."""
    worker = Worker(lambda: pytest.fail("opened"), ["front"], print, print, print)
    worker.stop()


def test_cameras_that_share_no_batch_take_turns_and_the_newest_frame_of_each_is_served() -> None:
    gate = Gate()
    cameras = tuple("abcdef")
    harness = Harness(gate, cameras, max_batch=2)
    served: list[tuple[str, int]] = []
    for stamp in range(1, 31):
        for camera in cameras:
            harness.worker.offer(frame(stamp, camera))
        if stamp == 1:
            assert gate.entered.acquire(timeout=10)
            continue
        before = len(harness.finished)
        gate.release.release()
        harness.wait(finished=before + gate.batches[-1])
        assert gate.entered.acquire(timeout=10)
        served = [(result.frame.camera, result.frame.stamp_ns) for result in harness.finished]
    gate.release.release(100)
    harness.worker.stop()
    counts = {camera: [name for name, _ in served].count(camera) for camera in cameras}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert set(gate.batches[1:]) == {2}
    # What waits while others are served is replaced: nobody is served a frame older than the batch before.
    for number, (_, stamp) in enumerate(served[3:], start=3):
        assert stamp >= (number - 1) // 2


def test_a_batch_that_takes_long_shows() -> None:
    gate = Gate()
    harness = Harness(gate)
    assert harness.worker.busy_s == 0.0
    begun = time.monotonic()
    harness.worker.offer(frame(1))
    assert gate.entered.acquire(timeout=10)
    first = harness.worker.busy_s
    assert 0.0 < first < harness.worker.busy_s < time.monotonic() - begun
    gate.release.release()
    harness.wait(finished=1)
    harness.worker.stop()
    assert harness.worker.busy_s == 0.0
