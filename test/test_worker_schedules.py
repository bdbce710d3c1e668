"""The rules of the worker, written down a second time and played through in schedules drawn by chance.

The engine answers when it is told to, so that what must come of every frame is known before it comes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import road_everywhere

from drive_seg.engines import EngineInfo, FunctionEngine
from drive_seg.errors import DriveSegError, EngineError, EngineLost
from drive_seg.frame import CameraImage, CompressedImage, Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.tracking import TrackingOptions
from drive_seg.worker import Worker

SIZE = (64, 32)
LIMIT_S = 10.0
MAX_AGE_MS = 60_000.0
JPEG = np.asarray(cv2.imencode(".jpg", np.zeros((30, 40, 3), np.uint8))[1]).reshape(-1)
KINDS = ("raw", "jpeg", "damaged", "stale", "unpublished", "untimed")
SHARES = (0.55, 0.12, 0.08, 0.08, 0.09, 0.08)
MEASURED = ("queue", "decode", "preprocess", "inference", "postprocess", "publish", "processing")


class Place:
    """A slot that is answered by the test."""

    def __init__(self, engine: Answered, shape: tuple[int, int, int, int]) -> None:
        self.input = np.zeros(shape, np.uint8)
        self._engine = engine
        self.answer: Future[RawOutputs] = Future()

    def submit(self, count: int) -> None:
        assert not self._engine.closed
        if self._engine.refuses:
            raise EngineError("the queue is full")
        self.answer = Future()
        self._engine.given.append((self, self.input[:count]))

    def wait(self) -> RawOutputs:
        assert not self._engine.closed
        return self.answer.result(LIMIT_S)


class Answered(FunctionEngine):
    """Has what it was given in ``given`` until ``end`` is called."""

    def __init__(self, slots: int, max_batch: int, on_gpu: bool, closes: bool) -> None:
        super().__init__(road_everywhere, SIZE, max_batch)
        self.info = EngineInfo("function", "fp32", "a device", "1", on_gpu=on_gpu)
        self.slots: Any = [Place(self, (max_batch, SIZE[1], SIZE[0], 3)) for _ in range(slots)]
        self.given: list[tuple[Place, NDArray[np.uint8]]] = []
        self.refuses = False
        self.closed = 0
        self._closes = closes

    def end(self, error: Exception | None) -> None:
        """Answer the batch that it has."""
        place, pixels = self.given.pop(0)
        if error is None:
            place.answer.set_result(road_everywhere(pixels))
        else:
            place.answer.set_exception(error)

    def close(self) -> None:
        self.closed += 1
        if not self._closes:
            raise RuntimeError("the driver refuses")


@dataclass
class Rules:
    """What has become of every frame, told in one thread."""

    engine: Answered
    received: Counter[str] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    reported: Counter[str] = field(default_factory=Counter)
    sent: list[tuple[str, int, int]] = field(default_factory=list)
    """Camera, stamp, and how many batches the engine had when the result was published."""
    waiting: dict[str, tuple[int, str]] = field(default_factory=dict)
    flight: list[tuple[str, int, str]] = field(default_factory=list)
    successor: Answered | None = None
    accepting: bool = True

    def offer(self, camera: str, stamp: int, kind: str) -> None:
        self.received[camera] += 1
        if not self.accepting:
            self.dropped[camera, "inactive"] += 1
            return
        if camera in self.waiting:
            self.dropped[camera, "superseded"] += 1
        self.waiting[camera] = (stamp, kind)
        if not self.flight:
            self.flight = self._launched()

    def pause(self) -> None:
        self.accepting = False
        for camera in self.waiting:
            self.dropped[camera, "inactive"] += 1
        self.waiting.clear()

    def replace(self, engine: Answered) -> None:
        self.successor = engine
        if not self.flight:
            self._change_over()

    def end(self, fails: bool) -> None:
        """The engine is done with its batch."""
        compressed = any(kind in ("jpeg", "damaged") for _, kind in self.waiting.values())
        ahead = len(self.engine.slots) > 1 and self.engine.info.on_gpu and not compressed and self.successor is None
        next_flight = self._launched() if ahead else []
        for camera, stamp, kind in self.flight:
            if fails or kind == "unpublished":
                self._lose(camera)
            else:
                self.published[camera] += 1
            if not fails:
                self.sent.append((camera, stamp, int(bool(next_flight))))
        self.flight = next_flight
        if not self.flight:
            self._change_over()
        while not self.flight and self.waiting:
            self.flight = self._launched()

    def _change_over(self) -> None:
        self.engine, self.successor = self.successor or self.engine, None

    def _launched(self) -> list[tuple[str, int, str]]:
        """The frames of cameras that have waited longest, without those that the engine is not given."""
        cameras = list(self.waiting)[: self.engine.slots[0].input.shape[0]]
        taken = [(camera, *self.waiting.pop(camera)) for camera in cameras]
        for camera, _, kind in taken:
            if kind == "stale":
                self.dropped[camera, "stale"] += 1
            elif kind == "damaged":
                self.dropped[camera, "malformed"] += 1
                self.reported[camera] += 1
        batch = [item for item in taken if item[2] not in ("stale", "damaged")]
        if batch and self.engine.refuses:
            for camera, _, _ in batch:
                self._lose(camera)
            return []
        return batch

    def _lose(self, camera: str) -> None:
        self.failed[camera] += 1
        self.reported[camera] += 1


class Play:
    """One schedule: a worker, the rules, and what is done to both."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.cameras = [f"camera{number}" for number in range(self.random.integers(1, 5))]
        self.engines: list[Answered] = []
        self.kinds: dict[tuple[str, int], str] = {}
        self.sent: list[tuple[str, int, int]] = []
        self.finished: list[PanopticResult] = []
        self.reported: Counter[str] = Counter()
        self.stamp = 0
        first = self.pipeline()
        self.worker = Worker(
            lambda: first, self.cameras, self.publish, self.finish, self.report, lambda: MAX_AGE_MS, self.prepare
        )
        self.worker.start()
        self.worker.resume()
        self.rules = Rules(self.engines[0])

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pipeline(self) -> Pipeline:
        slots, batch = (int(self.random.integers(1, top + 1)) for top in (3, len(self.cameras)))
        self.engines.append(Answered(slots, batch, on_gpu=self.chance(0.7), closes=self.chance(0.8)))
        return Pipeline(self.engines[-1], DRIVING)

    def publish(self, result: PanopticResult) -> None:
        camera, stamp = result.frame.camera, result.frame.stamp_ns
        has = sum(len(engine.given) for engine in self.engines)
        self.sent.append((camera, stamp, has))
        if self.kinds[camera, stamp] == "unpublished":
            raise OSError("socket closed")

    def finish(self, result: PanopticResult) -> None:
        self.finished.append(result)
        if self.kinds[result.frame.camera, result.frame.stamp_ns] == "untimed":
            raise OSError("socket closed")

    def report(self, camera: str, error: DriveSegError) -> None:
        self.reported[camera] += 1
        if self.reported[camera] % 2:
            raise OSError("the log is full")

    def prepare(self, pipeline: Pipeline) -> None:
        pipeline.tracking = [None, TrackingOptions(), TrackingOptions(1.0)][self.stamp % 3]

    def step(self) -> None:
        """Do one thing, and see that the worker does what the rules say."""
        choice = self.random.random()
        if choice < 0.45:
            self.offer(str(self.random.choice(self.cameras)))
        elif choice < 0.85 and self.rules.flight:
            self.end()
        elif choice < 0.9:
            self.pause()
        elif choice < 0.95:
            self.replace()
        else:
            self.rules.engine.refuses = self.chance(0.3)
        self.agree()

    def offer(self, camera: str) -> None:
        self.stamp += 1
        kind = str(self.random.choice(KINDS, p=SHARES))
        self.kinds[camera, self.stamp] = kind
        image: CameraImage | CompressedImage = CameraImage("mono8", 40, 30, 40, np.zeros(1200, np.uint8))
        if kind in ("jpeg", "damaged"):
            image = CompressedImage(JPEG if kind == "jpeg" else JPEG[:50])
        age = 2 * MAX_AGE_MS if kind == "stale" else None
        frame = Frame(image, camera, self.stamp, time.monotonic_ns(), age)
        self.rules.offer(camera, self.stamp, kind)
        self.worker.offer(frame)

    def end(self) -> None:
        chance = self.random.random()
        error = EngineLost("fell off the bus") if chance < 0.05 else RuntimeError("nan") if chance < 0.2 else None
        engine = self.rules.engine
        self.rules.end(fails=error is not None)
        engine.end(error)

    def pause(self) -> None:
        """Between two batches; or in one, if it shows that it has begun: what waits is dropped."""
        if self.rules.flight and not self.rules.waiting:
            return
        self.rules.pause()
        pausing = threading.Thread(target=self.worker.pause)
        pausing.start()
        if self.rules.flight:
            self.agree()
            assert pausing.is_alive(), "a frame is in work"
            self.end()
        pausing.join(LIMIT_S)
        assert not pausing.is_alive()
        self.agree(idle=True)
        self.offer(self.cameras[0])
        self.agree(idle=True)
        self.rules.accepting = True
        self.worker.resume()

    def replace(self) -> None:
        for _ in range(self.random.integers(1, 3)):
            pipeline = self.pipeline()
            self.rules.replace(self.engines[-1])
            self.worker.replace(pipeline)
            self.agree()

    def agree(self, idle: bool = False) -> None:
        """Until the worker has come to what the rules say; whether it goes beyond shows the next time."""
        self._until(lambda: self._state() == self._expected())
        assert self.worker.lost is None or "unexpectedly" not in str(self.worker.lost)
        if idle:
            assert not any(ledger.counts().in_flight for ledger in self.worker.ledgers.values())

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, f"{self._state()}, expected {self._expected()}"
            time.sleep(0.0002)

    def _state(self) -> Any:
        counts = {camera: ledger.counts() for camera, ledger in self.worker.ledgers.items()}
        for found in counts.values():
            assert found.in_flight >= 0 and found.total_dropped == sum(found.dropped.values())
        serving = self.worker.pipeline.engine if self.worker.pipeline else None
        return (
            {camera: (c.received, c.published, c.failed, dict(c.dropped)) for camera, c in counts.items()},
            self.reported,
            self.sent,
            [len(engine.given) for engine in self.engines],
            [engine.closed for engine in self.engines],
            self.engines.index(serving),  # type: ignore[arg-type]
        )

    def _expected(self) -> Any:
        rules = self.rules
        dropped: dict[str, dict[str, int]] = {camera: {} for camera in self.cameras}
        for (camera, reason), count in rules.dropped.items():
            dropped[camera][reason] = count
        kept = [rules.engine, rules.successor]
        return (
            {c: (rules.received[c], rules.published[c], rules.failed[c], dropped[c]) for c in self.cameras},
            rules.reported,
            rules.sent,
            [int(engine is rules.engine and bool(rules.flight)) for engine in self.engines],
            [int(engine not in kept) for engine in self.engines],
            self.engines.index(rules.engine),
        )

    def close(self) -> None:
        """End the worker, twice at once, with frames in work and waiting where that can be."""
        for _ in range(2):
            self.offer(self.cameras[-1])
            self.agree()
        self.rules.pause()
        engine, had = self.rules.engine, bool(self.rules.flight)
        stopping = [threading.Thread(target=self.worker.stop) for _ in range(2)]
        for thread in stopping:
            thread.start()
        if had:
            self._until(lambda: self._state()[0] == self._expected()[0])
            self.rules.end(fails=False)
            engine.end(None)
        for thread in stopping:
            thread.join(LIMIT_S)
            assert not thread.is_alive()
        self.offer(self.cameras[0])
        assert self._state()[:3] == self._expected()[:3]
        late = self.pipeline()
        self.worker.replace(late)
        assert [engine.closed for engine in self.engines] == [1] * len(self.engines)


@pytest.mark.parametrize("seed", range(25))
def test_every_frame_has_the_fate_that_the_rules_give_it(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    play = Play(seed)
    for _ in range(60):
        play.step()
    play.close()
    for camera in play.cameras:
        stamps = [stamp for name, stamp, _ in play.sent if name == camera]
        assert stamps == sorted(set(stamps)), "an older frame after a newer one"
    for result in play.finished:
        assert all(getattr(result.times, stage) >= 0 for stage in MEASURED)
