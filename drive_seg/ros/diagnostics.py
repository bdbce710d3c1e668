"""/diagnostics once a second: one status per camera, one for the engine, one for the GPU where that computes.

Every camera's rate has a watchdog.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType

from drive_seg.config import Config
from drive_seg.engines.gpu_watch import GpuWatch
from drive_seg.errors import DriveSegError, counted
from drive_seg.ros.cameras import CameraInput
from drive_seg.ros.creation import creating
from drive_seg.ros.session import Session
from drive_seg.telemetry import FrameCounts, FrameLedger

if TYPE_CHECKING:
    from drive_seg.ros.node import SegmentationNode

_PERIOD_S = 1.0
_SILENCE_PERIODS = 2.0
_WATCH_FRAMES = 10.0
_STUCK_S = 2.0

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Verdict:
    """A level of diagnostic_msgs with its reason."""

    level: bytes
    message: str


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The most severe of them; the first where levels are equal."""
    return max(verdicts, key=lambda verdict: verdict.level[0])


def watch(
    name: str,
    rate: float | None,
    idle_s: float | None,
    expected: float,
    tolerance: float,
    waited_s: float = math.inf,
) -> Verdict:
    """Judge a rate in Hz against ``expected``; 0 expects nothing.

    Args:
        name: what the rate is of, for the message.
        rate: over the last few frames; None where there was only one so far.
        idle_s: seconds since the last one, None when there never was one.
        waited_s: where there never was one, seconds since one could have come.
    """
    if expected <= 0:
        return Verdict(OK, "running" if idle_s is not None else f"no {name} frame yet")
    longest = max(_SILENCE_PERIODS / expected, _PERIOD_S)
    if idle_s is None:
        level = ERROR if waited_s > longest else OK  # who has just been activated has missed nothing
        return Verdict(level, f"no {name} frame yet, expected {expected:g} Hz")
    if idle_s > longest:
        return Verdict(ERROR, f"no {name} frame for {idle_s:.1f} s, expected {expected:g} Hz")
    if rate is None:
        return Verdict(OK, f"one {name} frame so far, expected {expected:g} Hz")
    if not expected * (1 - tolerance) <= rate <= expected * (1 + tolerance):
        return Verdict(WARN, f"{name} rate is {rate:.1f} Hz, expected {expected:g} Hz +/- {tolerance:.0%}")
    return Verdict(OK, f"{name} rate is {rate:.1f} Hz")


class Diagnostics:
    """Publishes the state of the node, configured or not."""

    def __init__(self, node: SegmentationNode) -> None:
        self._node = node
        with creating("a publisher of /diagnostics"):
            self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Simulated time may stand still; a node that says nothing then looks dead.
        self._timer = node.create_timer(_PERIOD_S, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._of: Session | None = None
        self._before: dict[str, FrameCounts] = {}
        # Monitors tell statuses apart by their names alone: nodes of one name in two namespaces must not share them.
        self._prefix = node.get_name() if node.get_namespace() == "/" else node.get_fully_qualified_name()
        self._namesakes = 0
        self._watch: GpuWatch | DriveSegError | None = None

    def publish(self) -> None:
        """Send one array now; nothing any more once ROS is shut down, which may be before the node is destroyed."""
        if not self._node.context.ok():
            return
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        session = self._node.session
        array.status.append(self._identity())
        array.status.append(self._engine(session))
        if session is not self._of:
            self._of, self._before, self._watch = session, {}, None
        if session is not None:
            if session.pipeline.engine.info.on_gpu:
                array.status.append(self._gpu(self._node.config.gpu_id))
            array.status.extend(self._camera(session, camera.name) for camera in session.cameras)
        self._publisher.publish(array)

    def _status(self, name: str, hardware: str, verdict: Verdict, values: dict[str, object]) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=verdict.level,
            name=f"{self._prefix}: {name}",
            message=verdict.message,
            hardware_id=hardware,
            values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
        )

    def _engine(self, session: Session | None) -> DiagnosticStatus:
        config = self._node.config
        asked = {"model": config.model, "asked_backend": config.backend, "asked_precision": config.precision}
        if session is None:
            trouble, since = self._node.trouble, self._node.opening_since
            verdict = Verdict(ERROR, trouble) if trouble else Verdict(OK, "not configured")
            if since is not None:
                verdict = Verdict(OK, f"opening the engine, {time.monotonic() - since:.0f} s so far")
            return self._status("engine", platform.node(), verdict, {"configured": False, **asked})
        info = session.pipeline.engine.info
        width, height = session.pipeline.network_size
        values = {
            "configured": True,
            **asked,
            "backend": info.backend,
            "precision": info.precision,
            "device": info.device,
            "version": info.version,
            "reason": info.reason,
            "engine_key": info.key or f"{config.model} {width}x{height} {info.backend} {info.version} {info.precision}",
            "batch": session.pipeline.max_batch,
        }
        verdict = Verdict(OK, f"{info.backend} {info.precision} on {info.device}")
        if session.upgrade is not None:
            progress = session.upgrade.progress
            values["upgrade"] = progress.text
            if not progress.done:
                verdict = Verdict(WARN if progress.trouble else OK, f"{verdict.message}; {progress.text}")
        busy = session.worker.busy_s
        if busy > _STUCK_S:
            verdict = Verdict(ERROR, f"the engine has been at work on one batch for {busy:.0f} s")
        return self._status("engine", info.device, verdict, values)

    def _gpu(self, gpu_id: int) -> DiagnosticStatus:
        """What the GPU says of itself; that nobody can ask it is no fault of the GPU."""
        name = f"gpu {gpu_id}"
        if self._watch is None:
            try:
                self._watch = GpuWatch(gpu_id)
            except DriveSegError as error:
                self._watch = error
        if isinstance(self._watch, DriveSegError):
            return self._status(name, "", Verdict(OK, f"not watched: {self._watch}"), {})
        gpu = self._watch.gpu
        try:
            state = self._watch.look()
        except DriveSegError as error:
            return self._status(name, gpu.pci, Verdict(ERROR, str(error)), {"name": gpu.name})
        verdict = Verdict(OK, gpu.name)
        if state.slowed_by:
            verdict = Verdict(WARN, f"{gpu.name} is slowed down by {' and '.join(state.slowed_by)}")
        values = {"name": gpu.name, **vars(state), "slowed_by": ", ".join(state.slowed_by)}
        return self._status(name, gpu.pci, verdict, values)

    def _identity(self) -> DiagnosticStatus:
        """Whether the name is this node's alone: ROS lets two have it and then mixes what they say."""
        own = (self._node.get_name(), self._node.get_namespace())
        others = self._node.get_node_names_and_namespaces().count(own) - 1
        name = self._node.get_fully_qualified_name()
        verdict = Verdict(OK, f"{name} is one node")
        if others > 0:
            verdict = Verdict(
                WARN,
                f"{others + 1} nodes are called {name} and publish to the same topics; "
                # Results lie below the namespace; another name alone would leave them mixed.
                "give one of them another namespace: --ros-args -r __ns:=/NAME",
            )
            if others > self._namesakes:
                self._node.get_logger().warning(verdict.message)
        self._namesakes = others
        return self._status("node", platform.node(), verdict, {"pid": os.getpid(), "namesakes": max(others, 0)})

    def _camera(self, session: Session, camera: str) -> DiagnosticStatus:
        config = self._node.config
        counts = session.worker.ledgers[camera].counts()
        source = session.inputs.get(camera)
        latencies = session.latencies[camera].percentiles()
        newest = session.newest.get(camera) if latencies else None  # older than the window, it is no current one
        values: dict[str, object] = {
            "frame_rate_node": source.arrivals.rate() if source else 0.0,
            "frame_rate_msg": source.arrivals.stamp_rate() if source else 0.0,
            "current_delay_from_realtime_ms": newest.end_to_end if newest else None,
            "total_dropped_frames": counts.total_dropped,
            "expected_frequency": config.expected_frequency,
            "tolerance": config.tolerance,
            "received": counts.received,
            "published": counts.published,
            "failed": counts.failed,
            "in_flight": counts.in_flight,
        }
        values.update({f"dropped.{reason}": count for reason, count in sorted(counts.dropped.items())})
        for stage, found in latencies.items():
            for statistic in ("p50", "p95", "p99", "max"):
                values[f"{stage}_ms.{statistic}"] = getattr(found, statistic)
        verdict = self._judge(camera, source, counts, config)
        self._before[camera] = counts
        given = next(item.image_topic for item in session.cameras if item.name == camera)
        topic = source.topic if source else given  # what ROS cannot resolve is refused when the node is activated
        return self._status(f"camera {camera}", topic, verdict, values)

    def _judge(self, camera: str, source: CameraInput | None, counts: FrameCounts, config: Config) -> Verdict:
        if source is None or not source.listening:
            trouble = self._node.trouble  # it could not be activated
            return Verdict(ERROR, trouble) if trouble else Verdict(OK, "inactive")
        before = self._before.get(camera, FrameLedger().counts())
        expected = config.expected_frequency
        seconds = max(2.0, _WATCH_FRAMES / expected) if expected else None
        seen = source.arrivals
        rate = None if seen.only_one else seen.rate(seconds)
        verdicts = [watch("camera", rate, seen.idle_s(), expected, config.tolerance, seen.quiet_s())]
        failed = counts.failed - before.failed
        malformed = counts.dropped.get("malformed", 0) - before.dropped.get("malformed", 0)
        if failed > 0:
            verdicts.append(Verdict(ERROR, f"{counted(failed, 'frame')} failed in the last second"))
        if malformed > 0:
            verdicts.append(Verdict(WARN, f"{counted(malformed, 'malformed image')} in the last second"))
        return worst(verdicts)


def _text(value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3f}" if isinstance(value, float) else str(value)
