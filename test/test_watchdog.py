"""What /diagnostics says of a camera, by when its frames came and by their stamps: no node, a clock that is set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray

from drive_seg.config import load
from drive_seg.engines import EngineInfo
from drive_seg.errors import EngineError
from drive_seg.frame import StageTimes
from drive_seg.ros import diagnostics
from drive_seg.ros.cameras import Arrivals, transport_ms
from drive_seg.ros.diagnostics import ERROR, OK, WARN, Diagnostics, Verdict, watch, worst
from drive_seg.telemetry import FrameLedger, LatencyLog
from drive_seg.upgrade import Progress


@dataclass
class Clock:
    """Of a node: simulated or not."""

    nanoseconds: int = 0
    ros_time_is_active: bool = False

    def now(self) -> Clock:
        return self


@pytest.mark.parametrize("seed", range(10))
def test_rates_are_those_of_the_frames_in_the_window(seed: int) -> None:
    random = np.random.default_rng(seed)
    now, stamp = 100.0, 10**9
    arrivals = Arrivals(seconds=5.0, clock=lambda: now)
    seen: list[tuple[float, int]] = []
    quiet_since: float | None = None
    assert arrivals.idle_s() is None and arrivals.rate() == arrivals.stamp_rate() == 0.0
    for _ in range(200):
        now += float(random.choice([0.125, 0.5, 2.0, 7.0, -30.0], p=[0.5, 0.3, 0.15, 0.04, 0.01]))
        if quiet_since is not None and now < quiet_since:
            seen, quiet_since = [], now
        if random.random() < 0.7:
            steps = [50_000_000, 100_000_000, 0, -(10**9), 4_900_000_000, 5_000_000_001]
            stamp += int(random.choice(steps, p=[0.47, 0.4, 0.04, 0.04, 0.02, 0.03]))
            seen.append((now, stamp))
            quiet_since = now
            arrivals.add(stamp)
        assert arrivals.idle_s() == (None if quiet_since is None else now - quiet_since)
        for seconds in (None, 2.0):
            times = [at for at, _ in seen if at >= now - (seconds or 5.0)]
            span = times[-1] - times[0] if times else 0
            if span:  # a silence that is longer than their usual step is time in which none came
                span += max(0.0, now - times[-1] - span / (len(times) - 1))
            assert arrivals.rate(seconds) == (pytest.approx((len(times) - 1) / span) if span else 0.0)
        since: list[int] = []
        fresh = [value for at, value in seen if at >= now - 5.0]
        longest = max(5e9, 10 * float(np.median(np.diff(fresh)))) if len(fresh) > 1 else 0
        for value in fresh:
            since = [*since, value] if since and 0 <= value - since[-1] <= longest else [value]
        length = since[-1] - since[0] if since else 0
        assert arrivals.stamp_rate() == (pytest.approx((len(since) - 1) / length * 1e9) if length else 0.0)


def test_the_rate_of_a_camera_that_has_stopped_falls() -> None:
    now = 0.0
    arrivals = Arrivals(clock=lambda: now)
    for number in range(201):
        now = number / 20
        arrivals.add(number)
    assert arrivals.rate() == pytest.approx(20.0)
    for at, rate in ((10.05, 20.0), (12.0, 16.0), (15.0, 10.0), (19.0, 2.0)):
        now = at
        assert arrivals.rate() == pytest.approx(rate, abs=0.3), "what came in the last ten seconds"


def test_a_camera_that_does_not_return_after_simulated_time_began_anew_is_missed() -> None:
    now = 1000.0
    arrivals = Arrivals(clock=lambda: now)
    for _ in range(30):
        now += 0.1
        arrivals.add(int(now * 1e9))

    def verdict() -> Verdict:
        return watch("camera", arrivals.rate(2.0), arrivals.idle_s(), 10.0, 0.2)

    assert verdict().level == OK
    now = 0.0
    assert verdict().level != ERROR  # it has its time to return
    now = 1.5
    assert verdict() == Verdict(ERROR, "no camera frame for 1.5 s, expected 10 Hz")
    for _ in range(30):
        now += 0.1
        arrivals.add(int(now * 1e9))
    assert verdict().level == OK


def test_a_camera_that_has_just_been_listened_to_is_not_missed_yet() -> None:
    now = 50.0
    arrivals = Arrivals(clock=lambda: now)

    def verdict(expected: float) -> Verdict:
        return watch("camera", arrivals.rate(2.0), arrivals.idle_s(), expected, 0.2, arrivals.quiet_s())

    for at, expected, level in ((50.1, 30.0, OK), (51.1, 30.0, ERROR), (53.0, 0.5, OK), (54.1, 0.5, ERROR)):
        now = at
        assert verdict(expected) == Verdict(level, f"no camera frame yet, expected {expected:g} Hz")
    now = 10.0  # simulated time began anew
    assert verdict(30.0).level == OK
    now = 11.5
    assert verdict(30.0).level == ERROR


def test_a_camera_whose_clock_is_set_shows_its_rate_at_once() -> None:
    now = 0.0
    arrivals = Arrivals(clock=lambda: now)
    for number in range(60):
        now = number / 30
        arrivals.add(round((now + (1.7e9 if number >= 57 else 0)) * 1e9))
    assert arrivals.stamp_rate() == pytest.approx(30.0, rel=1e-3)
    for number in range(5):
        now = 100.0 + number
        arrivals.add(int(60e9) * number + int(2e18))
    assert arrivals.stamp_rate() == pytest.approx(1 / 60), "a time lapse"


def test_the_last_frames_of_too_many_make_the_rate() -> None:
    now = 0.0
    arrivals = Arrivals(capacity=5, clock=lambda: now)
    for number in range(20):
        now = number / 10 if number < 15 else 1.5 + (number - 15) / 50
        arrivals.add(round(now * 1e9))
    assert arrivals.rate() == pytest.approx(50.0) and arrivals.stamp_rate() == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("clock", "stamp", "age"),
    [
        (Clock(5_000_000), 2_000_000, 3.0),
        (Clock(5_000_000), 5_000_000, 0.0),
        (Clock(5_000_000), 5_000_001, None),
        (Clock(60_000_000_001), 1, 60_000.0),
        (Clock(60_000_000_002), 1, None),
        (Clock(5_000_000), 0, None),
        (Clock(5_000_000, ros_time_is_active=True), 2_000_000, None),
    ],
)
def test_only_a_stamp_of_this_clock_has_an_age(clock: Clock, stamp: int, age: float | None) -> None:
    assert transport_ms(clock, stamp) == age


@pytest.mark.parametrize(
    ("rate", "idle_s", "expected", "level", "says"),
    [
        (0.0, None, 0.0, OK, "no camera frame yet"),
        (3.0, 99.0, 0.0, OK, "running"),
        (0.0, None, 10.0, ERROR, "no camera frame yet, expected 10 Hz"),
        (None, 0.1, 10.0, OK, "one camera frame so far, expected 10 Hz"),
        (None, 1.1, 10.0, ERROR, "for 1.1 s, expected 10 Hz"),
        (0.0, 0.1, 10.0, WARN, "0.0 Hz, expected 10 Hz"),
        (8.0, 0.1, 10.0, OK, "8.0 Hz"),
        (12.0, 0.1, 10.0, OK, "12.0 Hz"),
        (7.9, 0.1, 10.0, WARN, "7.9 Hz, expected 10 Hz +/- 20%"),
        (12.1, 0.1, 10.0, WARN, "12.1 Hz"),
        (10.0, 1.0, 10.0, OK, "10.0 Hz"),
        (10.0, 1.1, 10.0, ERROR, "for 1.1 s, expected 10 Hz"),
        (0.5, 4.0, 0.5, OK, "0.5 Hz"),
        (0.5, 4.1, 0.5, ERROR, "for 4.1 s"),
    ],
)
def test_a_camera_is_judged_by_its_rate_and_its_silence(
    rate: float | None, idle_s: float | None, expected: float, level: bytes, says: str
) -> None:
    verdict = watch("camera", rate, idle_s, expected, 0.2)
    assert verdict.level == level and says in verdict.message


def session(**changes: Any) -> SimpleNamespace:
    """Of a node with one camera."""
    engine = SimpleNamespace(info=EngineInfo("function", "fp32", "CPU", "1"))
    usual = {
        "pipeline": SimpleNamespace(engine=engine, network_size=(64, 32), max_batch=1),
        "upgrade": None,
        "worker": SimpleNamespace(busy_s=0.0, ledgers={"front": FrameLedger()}),
        "cameras": [SimpleNamespace(name="front", image_topic="/a")],
        "inputs": {},
        "latencies": {"front": LatencyLog()},
        "newest": {},
    }
    return SimpleNamespace(**{**usual, **changes})


def node_of(session: SimpleNamespace, sent: list[DiagnosticArray]) -> Any:
    return SimpleNamespace(
        create_publisher=lambda *_: SimpleNamespace(publish=sent.append),
        create_timer=lambda *_, **__: None,
        get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time)),
        get_name=lambda: "drive_seg",
        get_namespace=lambda: "/",
        get_fully_qualified_name=lambda: "/drive_seg",
        get_node_names_and_namespaces=list,
        context=SimpleNamespace(ok=lambda: True),
        session=session,
        config=load(lambda parameter: parameter.default),
        trouble="",
        opening_since=None,
    )


@pytest.mark.parametrize(("seconds", "delay"), [(math.inf, "30.500"), (0.0, "n/a")])
def test_the_delay_of_a_frame_that_has_left_the_window_is_no_current_one(seconds: float, delay: str) -> None:
    sent: list[DiagnosticArray] = []
    times = StageTimes(processing=20.0, end_to_end=30.5)
    latencies = LatencyLog(seconds)
    latencies.add(times)
    Diagnostics(node_of(session(latencies={"front": latencies}, newest={"front": times}), sent)).publish()
    camera = {item.key: item.value for item in sent[0].status[-1].values}
    assert camera["current_delay_from_realtime_ms"] == delay
    assert camera.get("end_to_end_ms.p50", "n/a") == delay, "both are of the same frames"


def test_a_camera_s_lost_frames_are_told_for_as_long_as_they_are_news() -> None:
    sent: list[DiagnosticArray] = []
    arrivals = Arrivals()
    arrivals.add(1)
    inputs = {"front": SimpleNamespace(arrivals=arrivals, listening=True, topic="/a")}
    node = node_of(session(inputs=inputs), sent)
    told = Diagnostics(node)

    def said(malformed: int = 0, failed: int = 0) -> tuple[bytes, str]:
        ledger = node.session.worker.ledgers["front"]
        for _ in range(malformed):
            ledger.drop("malformed")
        for _ in range(failed):
            ledger.fail()
        told.publish()
        return sent[-1].status[-1].level, sent[-1].status[-1].message

    assert said() == (OK, "running")
    assert said(malformed=2) == (WARN, "2 malformed images in the last second")
    assert said(malformed=1, failed=3) == (ERROR, "3 frames failed in the last second")
    assert said() == (OK, "running")
    node.session = session(inputs=inputs)  # configured anew, and it counts anew
    assert said(failed=1) == (ERROR, "1 frame failed in the last second")


def test_a_gpu_that_nobody_can_ask_is_no_faulty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def watch(gpu_id: int) -> None:
        asked.append(gpu_id)
        raise EngineError("no NVML")

    monkeypatch.setattr(diagnostics, "GpuWatch", watch)
    sent: list[DiagnosticArray] = []
    serving = session()
    serving.pipeline.engine.info = EngineInfo("function", "fp32", "a GPU", "1", on_gpu=True)
    said = Diagnostics(node_of(serving, sent))
    for _ in range(2):
        said.publish()
        (gpu,) = (status for status in sent[-1].status if status.name == "drive_seg: gpu 0")
        assert (gpu.level, gpu.message, asked) == (OK, "not watched: no NVML", [0])


@pytest.mark.parametrize(
    ("progress", "level", "also"),
    [
        (Progress("building"), OK, "; building: starting, 0 s"),
        (Progress("building", trouble="no room"), WARN, "; building: no room"),
        (Progress("building", done=True), OK, ""),
    ],
)
def test_a_better_engine_is_told_of_until_it_serves(progress: Progress, level: bytes, also: str) -> None:
    sent: list[DiagnosticArray] = []
    Diagnostics(node_of(session(upgrade=SimpleNamespace(progress=progress)), sent)).publish()
    (engine,) = (status for status in sent[0].status if status.name == "drive_seg: engine")
    assert (engine.level, engine.message) == (level, f"function fp32 on CPU{also}")


def test_one_frame_makes_no_rate() -> None:
    now = 0.0
    arrivals = Arrivals(clock=lambda: now)
    only = [arrivals.only_one]
    for now in (1.0, 2.0, 300.0):
        arrivals.add(int(now * 1e9))
        only.append(arrivals.only_one)
    assert only == [False, True, False, False]
    now = 5.0  # simulated time began anew
    arrivals.add(int(now * 1e9))
    assert arrivals.only_one


def test_of_verdicts_the_most_severe_counts_and_of_equals_the_first() -> None:
    verdicts = [Verdict(OK, "a"), Verdict(WARN, "b"), Verdict(ERROR, "c"), Verdict(ERROR, "d"), Verdict(WARN, "e")]
    assert worst(verdicts) == verdicts[2] and worst(verdicts[:2]) == verdicts[1] and worst(verdicts[:1]) == verdicts[0]
