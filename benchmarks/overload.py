"""Cameras that send five times as many frames as the engine can serve: what becomes of latency, accounts and fairness.

    python benchmarks/overload.py --seconds 600                    # the shipped model, six cameras
    python benchmarks/overload.py --seconds 20 --engine-ms 50      # an engine that only sleeps: the rest of the node

First the cameras flood the node for a moment, which tells the rate of the engine; then they send five times that. It
fails unless every frame is accounted for, the best served camera had at most 1.2 times the frames of the worst served,
no frame was served although a newer one of its camera was there, and p99 of the latency is at most that of transport
plus one frame interval plus one batch in the engine. Needs Linux and ROS 2.
"""

from __future__ import annotations

import argparse
import array
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from observed import Accounts, ObservedNode, Sample, Served, cores_used, percentiles
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from drive_seg.demo.children import Child
from drive_seg.errors import DriveSegError
from drive_seg.ros.process import StopSignals
from drive_seg.ros.qos import profile
from drive_seg.ros.transport import prepare_process

FACTOR = 5.0
FAIR = 1.2

SLEEPING_NODE = """
import sys, time
import numpy as np
from drive_seg.engines import FunctionEngine
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.pipeline import Pipeline
from drive_seg.ros.node import SegmentationNode
from drive_seg.ros.process import run

def network(batch):
    time.sleep(float(sys.argv[1]) / 1e3)
    n, h, w, _ = batch.shape
    road = np.ones((n, h, w), np.uint8)
    heat, offsets = (np.zeros((n, c, h // 4, w // 4), np.float32) for c in (3, 2))
    return RawOutputs(road, road, heat, offsets)

def opener(config, allocate):
    return Pipeline(FunctionEngine(network, (64, 32), int(sys.argv[2])), DRIVING, allocate=allocate)

sys.exit(run(lambda: SegmentationNode(opener=opener), sys.argv))
"""


def flood(cameras: Sequence[str], rate: float, width: int, height: int) -> int:
    """The process of all cameras: in turn each sends ``rate`` images per second, until it is told to end."""
    prepare_process()
    stop = StopSignals()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("flood")
    publishers = [node.create_publisher(Image, f"/{name}/image_raw", profile("SENSOR_DATA", 1)) for name in cameras]
    message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    message.data = array.array("B", bytes(width * 3 * height))
    clock, started = node.get_clock(), time.monotonic()
    for number in itertools.count():
        if stop.requested:
            break
        time.sleep(max(0.0, started + number / (rate * len(cameras)) - time.monotonic()))
        message.header.stamp = clock.now().to_msg()
        publishers[number % len(cameras)].publish(message)
    print(f"{number / (time.monotonic() - started) / len(cameras):.3f} images per second and camera", flush=True)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


def node_arguments(given: argparse.Namespace, cameras: Sequence[str]) -> list[str]:
    listed = f"[{', '.join(cameras)}]"
    names = [pair for name in cameras for pair in ("-p", f"{name}.image_topic:=/{name}/image_raw")]
    ros = ["--ros-args", "-p", f"cameras:={listed}", *names]
    if given.engine_ms:
        return ["-c", SLEEPING_NODE, str(given.engine_ms), str(given.batch or len(cameras)), *ros]
    return ["-m", "drive_seg.ros.node", *ros, "-p", f"model:={given.model}", "-p", f"backend:={given.backend}"]


class Flood:
    """The cameras' process for a while.

    Args:
        rate: images per second and camera that are asked for; ``sent`` is what it came to.
    """

    def __init__(self, observed: ObservedNode, given: argparse.Namespace, rate: float) -> None:
        self._observed = observed
        size = (str(given.width), str(given.height))
        self._arguments = [str(Path(__file__).resolve()), "--flood", str(rate), *observed.cameras, "--size", *size]
        self.sent = 0.0

    def __enter__(self) -> Child:
        observed = self._observed
        before = {name: len(frames) for name, frames in observed.served.items()}
        self._child = Child("camera", self._arguments)
        flowing = lambda: all(len(frames) > before[name] for name, frames in observed.served.items())  # noqa: E731
        observed.until(flowing, "a frame of every camera", [self._child])
        return self._child

    def __exit__(self, *error: object) -> None:
        self._child.stop()
        rates = [float(line.split()[0]) for line in self._child.lines if "images per second" in line]
        self.sent = rates[-1] if rates else 0.0


def superseded_but_served(frames: Sequence[Served]) -> int:
    """How many frames the engine got when the next one that it got had come already."""
    picked = [frame.stamp + (frame.transport + frame.queue) / 1e3 for frame in frames]
    came = [frame.stamp + frame.transport / 1e3 for frame in frames]
    return sum(following < pick for pick, following in zip(picked, came[1:], strict=False))


def judge(
    rate: float, served: dict[str, list[Served]], accounts: dict[str, Accounts], samples: Sequence[Sample]
) -> dict[str, Any]:
    frames = [frame for of_camera in served.values() for frame in of_camera]
    figures = {name: percentiles(getattr(f, name) for f in frames) for name in ("transport", "queue", "processing")}
    latency = percentiles(frame.end_to_end for frame in frames)
    bound = figures["transport"]["p99"] + 1e3 / rate + figures["processing"]["p99"]
    published = [account.published for account in accounts.values()]
    third = max(2, len(samples) // 3)
    late = sum(superseded_but_served(of_camera) for of_camera in served.values())
    dropped: dict[str, int] = {}
    for account in accounts.values():
        for reason, count in account.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    found: dict[str, Any] = {
        "rate_per_camera": round(rate, 2),
        "frames": {name: account.as_dict() for name, account in accounts.items()},
        "dropped": dropped,
        "overload": round(sum(a.received for a in accounts.values()) / sum(published), 2),
        "fairness": round(max(published) / min(published), 4),
        "latency_ms": {**figures, "end_to_end": latency},
        "bound_ms": round(bound, 2),
        "served_although_superseded": late,
        "cores": {"first third": cores_used(samples[:third]), "last third": cores_used(samples[-third:])},
        "rss_mb": {"first": round(samples[third - 1].rss_mb, 1), "last": round(samples[-1].rss_mb, 1)},
        "threads": sorted({sample.threads for sample in samples}),
    }
    found["verdict"] = {
        "conserved": all(account.exact for account in accounts.values()),
        "fair": found["fairness"] <= FAIR,
        "newest": late <= len(frames) // 100,  # a process that is put aside between two clocks looks like one
        "bounded": latency["p99"] <= bound,
    }
    return found


def sleeping_rate(given: argparse.Namespace) -> float:
    """Frames per second and camera of an engine that only sleeps."""
    rate: float = 1e3 / given.engine_ms * (given.batch or given.cameras) / given.cameras
    return rate


def engine_rate(observed: ObservedNode, given: argparse.Namespace) -> float:
    """Frames per second and camera while the cameras send more than that."""
    with Flood(observed, given, given.probe_rate) as child:
        before = sum(account.published for account in observed.accounts.values())
        started = time.monotonic()
        observed.spin(5.0, [child])
        seconds = time.monotonic() - started
    served = sum(account.published for account in observed.drain().values()) - before
    rate: float = served / seconds / given.cameras
    return rate


def least_served(observed: ObservedNode) -> int:
    """Frames of the camera that had the fewest."""
    return min(len(frames) for frames in observed.served.values())


def measure(given: argparse.Namespace) -> dict[str, Any]:
    cameras = [f"camera_{number}" for number in range(given.cameras)]
    with ObservedNode(node_arguments(given, cameras), cameras) as observed:
        rate = FACTOR * (engine_rate(observed, given) if not given.engine_ms else sleeping_rate(given))
        start = observed.drain()
        print(f"the engine serves {rate / FACTOR:.1f} frames/s of each of {given.cameras} cameras", flush=True)
        for frames in observed.served.values():
            frames.clear()
        observed.samples.clear()
        flooding = Flood(observed, given, rate)
        with flooding as child:
            if given.frames:
                enough = lambda: least_served(observed) >= given.frames and len(observed.samples) > 1  # noqa: E731
                observed.until(enough, "the least served camera", [child])
            else:
                observed.spin(given.seconds, [child])
        samples = list(observed.samples)
        accounts = {name: account.since(start[name]) for name, account in observed.drain().items()}
        served = {name: list(frames) for name, frames in observed.served.items()}
        with Flood(observed, given, rate):
            started = time.monotonic()
            code = observed.child.stop()
            ended = time.monotonic() - started
        found = judge(flooding.sent, served, accounts, samples)
        found["shutdown_s"], found["verdict"]["ends"] = round(ended, 2), code == 0
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--frames", type=int, default=0, help="instead: until every camera had so many frames served")
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--size", nargs=2, type=int, default=(640, 384), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument(
        "--engine-ms", type=float, default=0.0, help="an engine that sleeps so long per batch; 0: a real one"
    )
    parser.add_argument("--batch", type=int, default=0, help="images of a batch of the sleeping engine; 0: all cameras")
    parser.add_argument(
        "--probe-rate", type=float, default=60.0, help="images per second and camera to find its rate with"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--flood", nargs="+", metavar=("RATE", "CAMERA"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.width, given.height = given.size
    if given.flood:
        return flood(given.flood[1:], float(given.flood[0]), given.width, given.height)
    try:
        found = measure(given)
    except DriveSegError as error:
        print(f"overload: error: {error}", file=sys.stderr)
        return 2
    found["load_average"] = [round(load, 1) for load in os.getloadavg()]
    for name, value in found.items():
        print(f"{name:28} {value}")
    if given.json:
        print(json.dumps(found))
    return 0 if all(found["verdict"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
