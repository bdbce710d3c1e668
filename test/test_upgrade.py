"""From the CPU engine to a better one in mid-stream: nothing is lost, nothing is mixed, and what fails is said."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg.engines import FunctionEngine
from drive_seg.errors import EngineError, EngineLost
from drive_seg.frame import CameraImage, Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.tracking import TrackingOptions
from drive_seg.upgrade import Progress, Step, Upgrade
from drive_seg.worker import Worker

SIZE = (64, 32)


class Saying(FunctionEngine):
    """A network that sees one class everywhere, and remembers that it was closed."""

    def __init__(self, class_id: int, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.closed = 0
        self.batches = 0

        def network(batch: NDArray[np.uint8]) -> RawOutputs:
            assert not self.closed, "used after it was closed"
            self.batches += 1
            time.sleep(seconds)
            if error is not None:
                raise error
            n, height, width, _ = batch.shape
            semantic = np.full((n, height, width), class_id, np.uint8)
            heat, offsets = (np.zeros((n, c, height // 4, width // 4), np.float32) for c in (3, 2))
            return RawOutputs(semantic, semantic, heat, offsets)

        super().__init__(network, SIZE, max_batch=2)

    def close(self) -> None:
        self.closed += 1


class Served:
    """A worker and all it published."""

    def __init__(self, engine: FunctionEngine, tracking: TrackingOptions | None = None) -> None:
        self.results: list[PanopticResult] = []
        self.errors: list[Exception] = []
        self.done = threading.Condition()
        self.worker = Worker(
            lambda: Pipeline(engine, DRIVING, tracking=tracking),
            ("front", "rear"),
            lambda result: None,
            self._finish,
            lambda camera, error: self.errors.append(error),
        )
        self.worker.start()
        self.worker.resume()

    def _finish(self, result: PanopticResult) -> None:
        with self.done:
            self.results.append(result)
            self.done.notify_all()

    def offer(self, stamp: int, camera: str = "front") -> None:
        image = CameraImage("mono8", 40, 30, 40, np.zeros(1200, np.uint8))
        self.worker.offer(Frame(image, camera, stamp, time.monotonic_ns()))

    def await_results(self, count: int) -> None:
        with self.done:
            assert self.done.wait_for(lambda: len(self.results) >= count, timeout=20)

    def classes(self) -> list[int]:
        return [int(result.mask[0, 0]) for result in self.results]


def slow(engine: FunctionEngine, ready: threading.Event) -> Callable[[Step, Callable[[], bool]], Pipeline]:
    """A builder that takes until ``ready``, and can be cancelled."""

    def make(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
        step("tactics", 1, 4)
        while not ready.wait(0.01):
            if cancelled():
                raise EngineError("the engine build was cancelled")
        return Pipeline(engine, DRIVING)

    return make


def test_every_frame_of_a_camera_that_waits_its_turn_is_served_across_the_change() -> None:
    cpu, gpu, ready = Saying(1), Saying(2), threading.Event()
    served = Served(cpu)
    upgrade = Upgrade("building", slow(gpu, ready), served.worker.replace)
    for stamp in range(400):
        if stamp == 150:
            assert upgrade.progress.text.startswith("building: tactics 1/4")
            ready.set()
        served.offer(stamp)
        served.await_results(stamp + 1)
        if stamp == 300:
            upgrade.stop()
            ended = upgrade.progress
            assert ended.done and ended.seconds > 0
    served.worker.stop()
    assert upgrade.progress == ended, "its clock has stopped"
    classes = served.classes()
    change = classes.index(2)
    assert 150 <= change <= 302 and classes == [1] * change + [2] * (400 - change)
    assert [result.frame.stamp_ns for result in served.results] == list(range(400))
    counts = served.worker.ledgers["front"].counts()
    assert (counts.published, counts.failed, dict(counts.dropped), counts.in_flight) == (400, 0, {}, 0)
    assert (cpu.closed, gpu.closed) == (1, 1)


def test_under_load_from_two_cameras_every_frame_is_accounted_for() -> None:
    engines = [Saying(class_id, 0.002) for class_id in (1, 2, 1, 2)]
    served = Served(engines[0])
    stop = threading.Event()

    def feed(camera: str) -> None:
        stamp = 0
        while not stop.is_set():
            served.offer(stamp, camera)
            stamp += 1
            time.sleep(0.0005)

    feeders = [threading.Thread(target=feed, args=(camera,)) for camera in ("front", "rear")]
    for feeder in feeders:
        feeder.start()
    for number, engine in enumerate(engines[1:], start=1):
        served.await_results(60 * number)
        served.worker.replace(Pipeline(engine, DRIVING))
    served.await_results(240)
    stop.set()
    for feeder in feeders:
        feeder.join()
    served.worker.stop()
    for camera, ledger in served.worker.ledgers.items():
        counts = ledger.counts()
        assert counts.received == counts.published + counts.total_dropped and counts.failed == 0
        stamps = [result.frame.stamp_ns for result in served.results if result.frame.camera == camera]
        assert stamps == sorted(stamps) and len(stamps) == counts.published
        assert set(counts.dropped) <= {"superseded", "inactive"}
    assert [engine.closed for engine in engines] == [1, 1, 1, 1] and all(engine.batches for engine in engines)
    classes = served.classes()
    assert 1 + sum(a != b for a, b in itertools.pairwise(classes)) == 4, "they serve one after the other"
    assert not served.errors


def test_the_better_engine_takes_the_options_that_hold_now() -> None:
    served = Served(Saying(1))
    assert served.worker.pipeline is not None
    served.worker.pipeline.options = FusionOptions(output_resolution="network")
    served.worker.replace(Pipeline(Saying(2), DRIVING))
    served.offer(1)
    served.await_results(1)
    served.worker.stop()
    assert served.results[0].mask.shape[1] != 40 and served.classes() == [2]


def test_the_better_engine_goes_on_with_the_tracks() -> None:
    served = Served(Saying(3), TrackingOptions())
    assert served.worker.pipeline is not None
    served.worker.pipeline.options = FusionOptions(score_threshold=0.0)
    for number, stamp in enumerate((5, 1), start=1):  # time that runs back begins anew
        served.offer(stamp)
        served.await_results(number)
    served.worker.replace(Pipeline(Saying(3), DRIVING, tracking=TrackingOptions()))
    served.offer(2)
    served.await_results(3)
    served.worker.stop()
    assert [[instance.track for instance in result.instances] for result in served.results] == [[1], [2], [2]]


@pytest.mark.parametrize(
    ("error", "said"),
    [(EngineError("no room on the GPU"), "no room on the GPU"), (ValueError("a bug"), "ValueError: a bug")],
)
def test_a_failed_build_is_said_and_the_first_engine_goes_on(error: Exception, said: str) -> None:
    cpu = Saying(1)
    served = Served(cpu)

    def make(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
        raise error

    upgrade = Upgrade("building", make, served.worker.replace)
    upgrade.stop()
    assert upgrade.progress.trouble == said and upgrade.progress.text == f"building: {said}"
    served.offer(1)
    served.await_results(1)
    served.worker.stop()
    assert served.classes() == [1] and cpu.closed == 1


def test_where_there_is_no_thread_for_a_build_that_is_said_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    upgrade = Upgrade("building", slow(Saying(2), threading.Event()), lambda pipeline: pytest.fail("never made"))
    ended = upgrade.progress
    assert ended.text == "building: can't start new thread"
    upgrade.stop()
    assert upgrade.progress == ended


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress("building"), "building: starting, 0 s"),
        (Progress("building", "tactics", 1, 0, 7.6), "building: tactics, 8 s"),
        (Progress("building", "tactics", 1, 4, 7.6), "building: tactics 1/4, 8 s"),
        (Progress("building", seconds=7.6, done=True), "building: serves since 8 s after the start"),
    ],
)
def test_progress_is_a_line_for_people(progress: Progress, text: str) -> None:
    assert progress.text == text


def test_stopping_cancels_the_build() -> None:
    gpu = Saying(2)
    upgrade = Upgrade("building", slow(gpu, threading.Event()), lambda pipeline: pytest.fail("not wanted any more"))
    upgrade.stop()
    assert "cancelled" in upgrade.progress.trouble


def test_a_build_that_does_not_notice_that_it_is_stopped_is_not_handed_over() -> None:
    gpu = Saying(2)

    def make(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
        while not cancelled():
            time.sleep(0.01)
        return Pipeline(gpu, DRIVING)

    upgrade = Upgrade("building", make, lambda pipeline: pytest.fail("not wanted any more"))
    assert 0 <= upgrade.progress.seconds < 20
    upgrade.stop()
    assert gpu.closed == 1 and not upgrade.progress.done


def test_who_waits_for_the_end_of_a_build_is_called_now_and_then() -> None:
    enough = threading.Event()
    calls: list[float] = []

    def make(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
        assert enough.wait(20)
        raise EngineError("cancelled")

    def meanwhile() -> None:
        calls.append(time.monotonic())
        enough.set()

    upgrade = Upgrade("building", make, lambda pipeline: pytest.fail("not wanted any more"))
    upgrade.stop(meanwhile)
    assert calls and upgrade.progress.trouble == "cancelled"


def test_a_pipeline_that_comes_too_late_is_closed() -> None:
    cpu, first, second, late = Saying(1), Saying(2), Saying(2), Saying(2)
    served = Served(cpu)
    served.offer(1)
    served.await_results(1)
    with served.worker._busy:  # the worker cannot change over now
        served.worker.replace(Pipeline(first, DRIVING))
        served.worker.replace(Pipeline(second, DRIVING))
    served.worker.stop()
    served.worker.replace(Pipeline(late, DRIVING))
    assert [engine.closed for engine in (cpu, first, second, late)] == [1, 1, 1, 1]


def test_a_lost_device_is_remembered_and_a_failed_frame_is_not() -> None:
    failing = Served(Saying(1, error=EngineError("one bad frame")))
    failing.offer(1)
    while not failing.errors:
        time.sleep(0.01)
    failing.worker.stop()
    assert failing.worker.lost is None
    losing = Served(Saying(1, error=EngineLost("GPU 0 is lost")))
    losing.offer(1)
    while losing.worker.lost is None:
        time.sleep(0.01)
    losing.worker.stop()
    assert str(losing.worker.lost) == "GPU 0 is lost"
    assert losing.worker.ledgers["front"].counts().failed == 1


NODE = """
import sys, time
import numpy as np
from drive_seg.engines import EngineInfo, FunctionEngine
from drive_seg.errors import EngineError, EngineLost
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.ros.node import SegmentationNode
from drive_seg.ros.process import run
from drive_seg.upgrade import Better

def pipeline(name, class_id, allocate):
    frames = SERVED[name] = [0]
    def network(batch):
        frames[0] += 1
        if name == "lost" and frames[0] > 12:
            raise EngineLost("GPU 0 is lost: Xid 79")
        n, h, w, _ = batch.shape
        labels = np.full((n, h, w), class_id, np.uint8)
        heat, offsets = (np.zeros((n, c, h // 4, w // 4), np.float32) for c in (3, 2))
        return RawOutputs(labels, labels, heat, offsets)
    engine = FunctionEngine(network, (64, 32))
    engine.info = EngineInfo(name, "fp16", "a device", "1", key=f"{name} key")
    return Pipeline(engine, DRIVING, allocate=allocate)

def improver(config, serving, allocate, sizes):
    def make(step, cancelled):
        while MODE == "works" and SERVED["first"][0] < 30:  # until so many frames were served meanwhile
            step("tactics", 1, 2)
            time.sleep(0.02)
            if cancelled():
                raise EngineError("cancelled")
        if MODE == "lost":
            raise EngineError("refused: equal labels 42.00% < 99.50%")
        return pipeline("better", 2, allocate)
    return None if serving.engine.info.backend == "better" else Better("building the tensorrt engine", make)

MODE, SERVED = sys.argv.pop(1), {}
first = "lost" if MODE == "lost" else "first"
opener = lambda config, allocate: pipeline(first, 1, allocate)
sys.exit(run(lambda: SegmentationNode(opener=opener, improver=improver)))
"""


class TestNode:
    @pytest.fixture
    def peer(self, request: pytest.FixtureRequest) -> Any:
        pytest.importorskip("rclpy", reason="rclpy is not installed")
        pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")
        from peer import serving

        with serving("-c", NODE, request.param) as peer:
            yield peer

    @pytest.mark.parametrize("peer", ["works"], indirect=True)
    def test_it_serves_meanwhile_says_so_and_changes_without_losing_a_frame(self, peer: Any) -> None:
        pixels = np.zeros((30, 40, 3), np.uint8)
        front, status = peer.front, lambda: peer.status("engine")
        peer.send_until_served(pixels)
        peer.until(lambda: (s := status()) and "tactics 1/2" in s.message, "the build in /diagnostics")
        assert peer.values("engine")["backend"] == "first"
        first = front.stamp + 1
        # One frame after another, each awaited: whatever does not come out now is lost by the change, or never came in
        # (best effort), and the node's own count tells these apart.
        while peer.values("engine").get("backend") != "better" or front.stamp < first + 50:
            stamp, end = front.send(pixels), time.monotonic() + 2.0
            while stamp not in front.served() and time.monotonic() < end:
                peer.executor.spin_once(timeout_sec=0.05)

        def all_out() -> bool:
            counts = peer.counts()
            return counts["received"] == counts["published"] >= len(front.masks)  # the way to us may lose some

        peer.until(all_out, "every frame that came in to have come out")
        classes = [front.masks[stamp].data[0] for stamp in sorted(front.masks) if stamp >= first]
        change = classes.index(2)
        assert classes == [1] * change + [2] * (len(classes) - change) and change > 0
        counts = peer.counts()
        assert counts["failed"] == counts["total_dropped_frames"] == 0
        assert peer.values("engine")["engine_key"] == "better key"
        assert "serves since" in peer.values("engine")["upgrade"]

    @pytest.mark.parametrize("peer", ["lost"], indirect=True)
    def test_a_refused_engine_is_a_warning_and_a_lost_device_an_error_state_to_come_back_from(self, peer: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus

        pixels = np.zeros((30, 40, 3), np.uint8)
        peer.until(
            lambda: (s := peer.status("engine")) and s.level == DiagnosticStatus.WARN and "42.00%" in s.message,
            "the warning about the engine that was refused",
        )
        peer.send_until_served(pixels)

        def in_error() -> bool:
            peer.front.send(pixels)
            peer.pace(0.1)
            status = peer.status("engine")
            return status is not None and status.level == DiagnosticStatus.ERROR and "Xid 79" in status.message

        peer.until(in_error, "the error in /diagnostics")
        assert peer.state() == "unconfigured" and peer.process.poll() is None
        peer.change_state("configure", "activate")
        peer.wait_for_node()
        peer.send_until_served(pixels)
