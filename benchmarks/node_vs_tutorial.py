"""The node over DDS beside the node one writes after a tutorial: same camera, same model, one after the other.

``end to end`` is the same for both: from the camera's stamp to the arrival of the mask in a third process.
``processing`` is what each node says of itself: from the start of its work on a frame to everything published.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from std_msgs.msg import Float64

from drive_seg.demo.children import Child
from drive_seg.demo.session import ros_arguments
from drive_seg.errors import DriveSegError
from drive_seg.model import load_model
from drive_seg.resources import find_model
from drive_seg.ros.convert import stamp_ns
from drive_seg.ros.transport import PROFILE_VARIABLES, prepare_process
from drive_seg.telemetry import Percentiles

HERE = Path(__file__).resolve().parent
WARM_UP_FRAMES = 30
# An empty profile variable counts as chosen by the user, and Fast DDS then keeps its defaults.
DEFAULT_TRANSPORTS = dict.fromkeys(PROFILE_VARIABLES, "")


@dataclass
class Probe:
    """A third process that subscribes to the mask, as a planner would."""

    node: Any
    end_to_end: list[float] = field(default_factory=list)
    processing: list[float] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        qos = QoSProfile(depth=10)
        self.node.create_subscription(Image, "/segmentation/mask", self.on_mask, qos)
        self.node.create_subscription(DiagnosticArray, "/segmentation/latency", self.on_latency, qos)
        self.node.create_subscription(Float64, "/tutorial_node/processing_time_ms", self.on_time, qos)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def on_mask(self, message: Image) -> None:
        self.end_to_end.append((self.node.get_clock().now().nanoseconds - stamp_ns(message.header)) / 1e6)
        self.moments.append(time.monotonic())

    def on_latency(self, message: DiagnosticArray) -> None:
        values = {pair.key: pair.value for pair in message.status[0].values}
        self.processing.append(float(values["processing"]))

    def on_time(self, message: Float64) -> None:
        self.processing.append(message.data)

    def spin_until(self, done: Callable[[], bool], limit: float, children: Sequence[Child], what: str) -> None:
        end = time.monotonic() + limit
        while not done():
            self.executor.spin_once(timeout_sec=0.1)
            for child in children:
                child.check()
            if time.monotonic() > end:
                raise DriveSegError(f"waited {limit:g} s for {what}")


@dataclass(frozen=True)
class Figures:
    """What one node did with the camera's frames."""

    sent: int
    masks: int
    fps: float
    processing: Percentiles
    end_to_end: Percentiles

    def as_dict(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "masks": self.masks,
            "lost": self.sent - self.masks,
            "fps": round(self.fps, 2),
            "processing_ms": {"p50": round(self.processing.p50, 2), "p99": round(self.processing.p99, 2)},
            "end_to_end_ms": {"p50": round(self.end_to_end.p50, 2), "p99": round(self.end_to_end.p99, 2)},
        }


def measure(command: Sequence[str], environment: Mapping[str, str], rate: float, frames: int, seed: int) -> Figures:
    """Start the node, then the camera, which ends by itself; count what comes out."""
    node = rclpy.create_node("benchmark_probe")
    probe = Probe(node)
    camera_arguments = ros_arguments(
        {
            "rate": rate,
            "frames": frames,
            "seed": seed,
            "prerender": min(60, frames),
            "wait_for_subscribers": 1,
            "qos": "DEFAULT",
            "qos_depth": 10,
        }
    )
    try:
        with Child("node", command, environment) as segmentation:
            publishing = lambda: node.count_publishers("/segmentation/mask") > 0  # noqa: E731
            probe.spin_until(publishing, 60.0, [segmentation], "the node's mask topic")
            arguments = ["-m", "drive_seg.ros.sim_camera", *camera_arguments]
            with Child("camera", arguments, environment) as camera:
                children = [segmentation, camera]
                limit = 120.0 + frames / rate
                probe.spin_until(lambda: camera.exit_code is not None, limit, children, "the camera to end")
            drained = time.monotonic() + 2.0
            probe.spin_until(lambda: time.monotonic() > drained, 10.0, [segmentation], "the last masks")
    finally:
        probe.executor.shutdown()
        node.destroy_node()
    end_to_end = Percentiles.of(np.array(probe.end_to_end[WARM_UP_FRAMES:]))
    processing = Percentiles.of(np.array(probe.processing[WARM_UP_FRAMES:]))
    if end_to_end is None or processing is None:
        raise DriveSegError(f"only {len(probe.end_to_end)} masks came for {frames} images")
    fps = (len(probe.moments) - 1) / (probe.moments[-1] - probe.moments[0])
    return Figures(frames, len(probe.moments), fps, processing, end_to_end)


def compare(ours: Figures, tutorial: Figures) -> dict[str, float | None]:
    """How many times better than the tutorial's node we are; lost frames as a difference of shares."""
    return {
        "fps": round(ours.fps / tutorial.fps, 3),
        "processing_p99": round(tutorial.processing.p99 / ours.processing.p99, 3),
        "end_to_end_p50": round(tutorial.end_to_end.p50 / ours.end_to_end.p50, 3),
        "end_to_end_p99": round(tutorial.end_to_end.p99 / ours.end_to_end.p99, 3),
        "lost_ours_over_tutorial": _ratio(ours.sent - ours.masks, tutorial.sent - tutorial.masks),
    }


def _ratio(ours: int, theirs: int) -> float | None:
    return round(ours / theirs, 3) if theirs else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="end with one JSON object on stdout")
    given = parser.parse_args()
    notes = Console(stderr=True)
    sidecar = str(load_model(find_model(given.model)).path)
    frames = max(WARM_UP_FRAMES * 2, round(given.seconds * given.rate))
    notes.print(prepare_process())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        ours_command = ["-m", "drive_seg.ros.node", *ros_arguments({"model": sidecar})]
        notes.print(f"drive_seg: {frames} images at {given.rate:g} Hz")
        ours = measure(ours_command, {}, given.rate, frames, given.seed)
        notes.print("the tutorial's node, default transports")
        theirs_command = [str(HERE / "tutorial_node.py"), sidecar]
        tutorial = measure(theirs_command, DEFAULT_TRANSPORTS, given.rate, frames, given.seed)
    except DriveSegError as error:
        notes.print(f"error: {error}", markup=False)
        return 1
    finally:
        rclpy.try_shutdown()
    ratio = compare(ours, tutorial)
    table = Table("node", "fps", "processing p50 / p99", "end to end p50 / p99", "frames lost")
    for name, figures in (("drive_seg", ours), ("tutorial", tutorial)):
        processing, whole = figures.processing, figures.end_to_end
        lost = figures.sent - figures.masks
        table.add_row(
            name,
            f"{figures.fps:.1f}",
            f"{processing.p50:.1f} / {processing.p99:.1f} ms",
            f"{whole.p50:.1f} / {whole.p99:.1f} ms",
            f"{lost} of {figures.sent}",
        )
    Console(stderr=given.json).print(table)
    Console(stderr=given.json).print(f"times better: {ratio}", markup=False)
    if given.json:
        print(json.dumps({"drive_seg": ours.as_dict(), "tutorial": tutorial.as_dict(), "ratio": ratio}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
