"""The node in a process of its own under a real camera, and what can be seen of it from outside.

Its latency topic tells the times of every frame, /diagnostics its accounts, /proc its memory and processor time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from drive_seg.demo.children import Child
from drive_seg.errors import DriveSegError
from drive_seg.ros.convert import stamp_ns
from drive_seg.ros.transport import prepare_process
from drive_seg.telemetry import Percentiles

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Served:
    """One frame as the node tells it: seconds of its clock, then milliseconds."""

    stamp: float
    transport: float
    queue: float
    processing: float
    end_to_end: float


@dataclass(frozen=True)
class Sample:
    """One look at the process: when (monotonic seconds), resident heap in MB, processor seconds so far, threads."""

    at: float
    rss_mb: float
    cpu_s: float
    threads: int


@dataclass(frozen=True)
class Accounts:
    """The ledger of one camera."""

    received: int
    published: int
    failed: int
    in_flight: int
    dropped: Mapping[str, int]

    @property
    def exact(self) -> bool:
        """Whether every frame is accounted for and none is in work."""
        told = self.published + self.failed + sum(self.dropped.values())
        return self.in_flight == 0 and self.received == told

    def since(self, before: Accounts) -> Accounts:
        """What came after ``before``."""
        dropped = {reason: count - before.dropped.get(reason, 0) for reason, count in self.dropped.items()}
        return Accounts(
            self.received - before.received, self.published - before.published, self.failed - before.failed,
            self.in_flight, dropped,
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        return {"received": self.received, "published": self.published, "dropped": self.dropped, "failed": self.failed}


def look_at(pid: int) -> Sample:
    """What /proc says of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    rss, threads = (int(re.findall(rf"^{key}:\s+(\d+)", status, re.MULTILINE)[0]) for key in ("RssAnon", "Threads"))
    return Sample(time.monotonic(), rss / 1024, (int(stat[11]) + int(stat[12])) / _TICKS, threads)


def machine_busy_s() -> float:
    """Processor seconds that all processes together have used since the machine started."""
    user, nice, system, _, _, irq, softirq = (int(word) for word in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / _TICKS


@dataclass
class ObservedNode:
    """Starts the node; a context manager that ends it.

    Args:
        arguments: of Python, to start the node.
        cameras: their names; several have topics of their own.
    """

    arguments: Sequence[str]
    cameras: Sequence[str]
    served: dict[str, list[Served]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    accounts: dict[str, Accounts] = field(default_factory=dict)
    reports: int = 0

    def __enter__(self) -> ObservedNode:
        for name, value in (
            ("ROS_DOMAIN_ID", str(1 + os.getpid() % 100)),
            ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"),
        ):
            os.environ.setdefault(name, value)
        prepare_process()
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("observer")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 10)
        for camera in self.cameras:
            prefix = f"/segmentation/{camera}" if len(self.cameras) > 1 else "/segmentation"
            frames = self.served.setdefault(camera, [])
            self.node.create_subscription(
                DiagnosticArray, f"{prefix}/latency", lambda m, f=frames: f.append(_served(m)), QoSProfile(depth=100)
            )
            # Somebody must want the masks, or they are not sent.
            self.node.create_subscription(Image, f"{prefix}/mask", lambda _: None, QoSProfile(depth=1), raw=True)
        self.child = Child("node", self.arguments)
        self.until(lambda: self.accounts, "the node's first report on its cameras")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.child.stop()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    @property
    def pid(self) -> int:
        """The node's process."""
        return self.child.pid

    def until(self, done: Callable[[], Any], what: str, others: Iterable[Child] = ()) -> None:
        """Take messages until ``done()``."""
        end = time.monotonic() + _PATIENCE_S
        while not done():
            self.spin(0.1, others)
            if time.monotonic() > end:
                raise DriveSegError(f"waited {_PATIENCE_S:g} s for {what}")

    def spin(self, seconds: float, others: Iterable[Child] = ()) -> None:
        """Take messages for so long; raises DriveSegError when a process has failed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)
        for child in (self.child, *others):
            child.check()

    def drain(self) -> dict[str, Accounts]:
        """The accounts, as soon as nothing is in work; the cameras have ended."""
        seen = self.reports
        self.until(lambda: self.reports > seen + 1, "the node's reports")
        self.until(lambda: all(a.in_flight == 0 for a in self.accounts.values()), "the last frames")
        return dict(self.accounts)

    def _on_report(self, message: DiagnosticArray) -> None:
        for status in message.status:
            camera = status.name.rpartition("camera ")[2]
            if camera in self.served:
                self.accounts[camera] = _accounts({pair.key: pair.value for pair in status.values})
        self.reports += 1
        self.samples.append(look_at(self.pid))


def _served(message: DiagnosticArray) -> Served:
    values = {pair.key: float("nan") if pair.value == "n/a" else float(pair.value) for pair in message.status[0].values}
    names = ("transport", "queue", "processing", "end_to_end")
    return Served(stamp_ns(message.header) / 1e9, *(values[name] for name in names))


def _accounts(values: Mapping[str, str]) -> Accounts:
    dropped = {key.partition(".")[2]: int(value) for key, value in values.items() if key.startswith("dropped.")}
    counts = {key: int(values[key]) for key in ("received", "published", "failed", "in_flight")}
    return Accounts(**counts, dropped=dropped)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """p50, p99 and max of those that are known."""
    known = np.array([value for value in values if value == value])
    found = Percentiles.of(known)
    if found is None:
        raise DriveSegError("no frame has a latency: do camera and node share a clock?")
    return {name: round(getattr(found, name), 2) for name in ("p50", "p99", "max")}


def cores_used(samples: Sequence[Sample]) -> float:
    """Processor seconds per second between the first and the last sample."""
    first, last = samples[0], samples[-1]
    return round((last.cpu_s - first.cpu_s) / (last.at - first.at), 3)
