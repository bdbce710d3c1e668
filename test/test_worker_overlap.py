"""A GPU works on the next batch while the results of the last are published; nothing else changes by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tiny_model import road_everywhere

from drive_seg.engines import EngineInfo, FunctionEngine
from drive_seg.errors import DriveSegError, EngineLost
from drive_seg.frame import CameraImage, Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.worker import Worker

SIZE = (64, 32)
LIMIT = 10.0
"""Seconds after which something will not happen any more."""


class Beside:
    """A slot whose batch is computed on a thread of its own, as a GPU's is."""

    def __init__(self, engine: EngineBeside, shape: tuple[int, int, int, int]) -> None:
        self.input = np.zeros(shape, np.uint8)
        self._engine = engine
        self._running: Future[RawOutputs] | None = None

    def submit(self, count: int) -> None:
        self._engine.check()
        pixels = self.input[:count].copy()
        self._running = self._engine.pool.submit(self._engine.run, pixels)

    def wait(self) -> RawOutputs:
        assert self._running is not None
        return self._running.result(LIMIT)


class EngineBeside(FunctionEngine):
    """Counts what it is given; ``network`` runs on its thread."""

    def __init__(
        self, network: Callable[[NDArray[np.uint8]], RawOutputs] = road_everywhere, max_batch: int = 1
    ) -> None:
        super().__init__(network, SIZE, max_batch)
        self.info = EngineInfo("function", "fp32", "a device", "1", on_gpu=True)
        self.network = network
        self.pool = ThreadPoolExecutor(1)
        self.slots: Any = [Beside(self, (max_batch, SIZE[1], SIZE[0], 3)) for _ in range(2)]
        self.given = 0
        self.is_lost = False
        self.changed = threading.Condition()

    def check(self) -> None:
        if self.is_lost:
            raise EngineLost("fell off the bus")
        with self.changed:
            self.given += 1
            self.changed.notify_all()

    def run(self, batch: NDArray[np.uint8]) -> RawOutputs:
        return self.network(batch)

    def was_given(self, batches: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.given >= batches, timeout=LIMIT)

    def close(self) -> None:
        self.pool.shutdown()


@dataclass
class Served:
    """A worker, and what came of its frames."""

    worker: Worker
    published: list[PanopticResult] = field(default_factory=list)
    finished: list[PanopticResult] = field(default_factory=list)
    errors: list[DriveSegError] = field(default_factory=list)
    on_publish: Callable[[PanopticResult], None] = lambda result: None

    def stamps(self) -> list[int]:
        return [result.frame.stamp_ns for result in self.published]

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.002)


@contextmanager
def serving(engine: FunctionEngine, *cameras: str) -> Iterator[Served]:
    def publish(result: PanopticResult) -> None:
        served.on_publish(result)
        served.published.append(result)

    worker = Worker(
        lambda: Pipeline(engine, DRIVING),
        cameras or ("front",),
        publish,
        lambda result: served.finished.append(result),
        lambda camera, error: served.errors.append(error),
    )
    served = Served(worker)
    worker.start()
    worker.resume()
    try:
        yield served
    finally:
        worker.stop()


def frame(stamp: int, camera: str = "front") -> Frame:
    pixels = CameraImage("mono8", 40, 30, 40, np.zeros(1200, np.uint8))
    return Frame(pixels, camera, stamp_ns=stamp, received_ns=time.monotonic_ns())


class Turnstile:
    """A network that lets one batch through whenever it is told to."""

    def __init__(self) -> None:
        self.open = threading.Semaphore(0)

    def __call__(self, batch: NDArray[np.uint8]) -> RawOutputs:
        assert self.open.acquire(timeout=LIMIT)
        return road_everywhere(batch)


def test_the_engine_has_the_next_batch_before_the_last_is_published() -> None:
    turnstile = Turnstile()
    engine = EngineBeside(turnstile)
    had = []
    with serving(engine) as served:
        served.on_publish = lambda result: had.append(engine.given)
        served.worker.offer(frame(1))
        assert engine.was_given(1)
        served.worker.offer(frame(2))
        begun = time.monotonic()
        turnstile.open.release()
        served.until(lambda: len(served.finished) == 1)
        assert had == [2] and served.stamps() == [1]
        served.until(lambda: time.monotonic() - begun > served.worker.busy_s)  # with the second batch, not with both
        turnstile.open.release()
        served.until(lambda: len(served.finished) == 2)
    assert had == [2, 2] and served.stamps() == [1, 2]
    counts = served.worker.ledgers["front"].counts()
    assert (counts.received, counts.published, counts.in_flight) == (2, 2, 0)


def test_a_batch_that_fails_takes_no_other_with_it() -> None:
    turnstile = Turnstile()
    batches = []

    def flaky(batch: NDArray[np.uint8]) -> RawOutputs:
        batches.append(len(batch))
        result = turnstile(batch)
        if len(batches) == 2:
            raise RuntimeError("an illegal address")
        return result

    engine = EngineBeside(flaky)
    with serving(engine) as served:
        for stamp in (1, 2, 3):
            served.worker.offer(frame(stamp))
            if stamp > 1:
                turnstile.open.release()  # the batch before, while this one waits
            assert engine.was_given(stamp)
        turnstile.open.release()
        served.until(lambda: len(served.finished) == 2)
    counts = served.worker.ledgers["front"].counts()
    assert (counts.failed, counts.published, counts.in_flight) == (1, 2, 0)
    assert "an illegal address" in str(served.errors[0]) and served.stamps() == [1, 3]


def test_an_engine_lost_with_two_batches_accounts_for_both() -> None:
    turnstile = Turnstile()

    def dying(batch: NDArray[np.uint8]) -> RawOutputs:
        turnstile(batch)
        engine.is_lost = True
        raise EngineLost("fell off the bus")

    engine = EngineBeside(dying)
    with serving(engine) as served:
        served.worker.offer(frame(1))
        assert engine.was_given(1)
        served.worker.offer(frame(2))
        turnstile.open.release()
        served.until(lambda: len(served.errors) == 2)
        assert served.worker.lost is not None and "fell off" in str(served.worker.lost)
        assert served.worker.busy_s == 0.0 or served.worker.ledgers["front"].counts().in_flight == 0
    counts = served.worker.ledgers["front"].counts()
    assert (counts.received, counts.failed, counts.in_flight) == (2, 2, 0)


@contextmanager
def never_idle(served: Served) -> Iterator[None]:
    """Frames come faster than they are served."""
    stop = threading.Event()

    def offer() -> None:
        stamp = 0
        while not stop.is_set():
            served.worker.offer(frame(stamp := stamp + 1))
            time.sleep(0.0005)

    def slow(result: PanopticResult) -> None:
        time.sleep(0.003)

    served.on_publish = slow
    thread = threading.Thread(target=offer)
    thread.start()
    try:
        served.until(lambda: len(served.finished) > 5)
        yield
    finally:
        stop.set()
        thread.join()


def test_another_engine_takes_over_although_frames_wait() -> None:
    turnstile = Turnstile()
    first, second = EngineBeside(turnstile), EngineBeside()
    with serving(first) as served:
        served.worker.offer(frame(1))
        assert first.was_given(1)
        served.worker.replace(Pipeline(second, DRIVING))
        served.worker.offer(frame(2))
        turnstile.open.release(2)
        served.until(lambda: len(served.finished) == 2)
        assert (first.given, second.given) == (1, 1), "the first is not fed as long as frames wait"
        with never_idle(served):
            third = EngineBeside()
            served.worker.replace(Pipeline(third, DRIVING))
            assert third.was_given(5)
    counts = served.worker.ledgers["front"].counts()
    assert counts.failed == 0 and served.stamps()[:2] == [1, 2]


def test_pausing_under_load_returns_with_nothing_in_flight() -> None:
    engine = EngineBeside()
    with serving(engine) as served, never_idle(served):
        served.worker.pause()
        given, published = engine.given, len(served.published)
        assert given == published
        time.sleep(0.05)
        assert (engine.given, len(served.published)) == (given, published)
        served.worker.resume()
        served.until(lambda: len(served.published) > published)


def test_results_of_cameras_keep_their_order_and_their_own_pixels() -> None:
    def shade(batch: NDArray[np.uint8]) -> RawOutputs:
        result = road_everywhere(batch)
        result.semantic[:] = batch.max(axis=(1, 2, 3))[:, None, None] % 3
        return result

    engine = EngineBeside(shade, max_batch=2)
    with serving(engine, "left", "right") as served:
        for stamp in range(200):
            for offset, camera in enumerate(("left", "right")):
                pixels = np.full(1200, 120 + (stamp + offset) % 100, np.uint8)
                image = CameraImage("mono8", 40, 30, 40, pixels)
                served.worker.offer(Frame(image, camera, stamp_ns=stamp, received_ns=time.monotonic_ns()))
            time.sleep(0.0005)
        served.until(lambda: all(not served.worker.ledgers[c].counts().in_flight for c in ("left", "right")))
    for offset, camera in enumerate(("left", "right")):
        mine = [result for result in served.published if result.frame.camera == camera]
        assert [r.frame.stamp_ns for r in mine] == sorted({r.frame.stamp_ns for r in mine})
        for result in mine:
            value = int(np.asarray(result.frame.image.data)[0])
            assert value == 120 + (result.frame.stamp_ns + offset) % 100, "brighter than the letterbox's bars"
            assert set(np.unique(result.mask)) == {value % 3}
