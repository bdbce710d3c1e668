"""What happens in a demo, in order. ``run_demo`` is its table of contents."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import rclpy

from drive_seg.demo.children import Child
from drive_seg.demo.display import Display
from drive_seg.demo.render import plot_latency, render_video, require_matplotlib
from drive_seg.demo.spool import Spool
from drive_seg.demo.watch import IMAGE_TOPIC, PREFIX, NodeState, Watcher
from drive_seg.errors import DriveSegError
from drive_seg.frame import StageTimes
from drive_seg.machine import ros_distro
from drive_seg.model import Model
from drive_seg.offline.disk import require_writable
from drive_seg.offline.summary import Summary, versions
from drive_seg.ros.process import StopSignals, start_ros
from drive_seg.ros.transport import prepare_process

PRERENDERED = 90
"""Frames of the simulated drive that are drawn ahead: drawing them live would take the processor from the network."""
HELD = 180
"""Frames that are kept, 2.8 MB each: where drawing on in idle moments does not keep up, so much is played again."""

_CAMERA_READY_S = 180.0
_DISCOVERY_S = 20.0
"""How long the camera's node may run unseen: two processes of a machine find each other in less than a second."""
_NODE_READY_S = 120.0
_FIRST_MASK_S = 30.0
_SETTLE_S = 5.0
_NICE = 10
_SUBSCRIBERS = 2
"""The node and we: the camera begins when both listen, so that nobody misses its first image."""


Tick = Callable[[int], None]


@dataclass(frozen=True)
class DemoOptions:
    """What to show, and how long. ``rate`` 0 is the source's own; ``video_rate`` the most frames per second kept."""

    source: str
    seconds: float
    out: Path
    backend: str
    precision: str
    rate: float
    topic: str
    loop: bool
    seed: int
    weather: str
    video_rate: float


@dataclass(frozen=True)
class DemoResult:
    """What came of it.

    Attributes:
        first_mask_s: from the start of the node's process to its first mask.
        sent: images the camera says it sent, None where it did not say.
        rows: (``time.monotonic()``, times) of every frame.
        complaints: what the camera called an error, such as a recording that is cut short; that others published, too;
            that times were lost; that the node fell silent.
        video_frames: frames in the overlay video.
    """

    summary: Summary
    first_mask_s: float
    sent: int | None
    rows: Sequence[tuple[float, StageTimes]]
    complaints: tuple[str, ...] = ()
    video_frames: int = 0


def run_demo(
    options: DemoOptions, model: Model, display: Display, progress: Callable[[str, int], AbstractContextManager[Tick]]
) -> DemoResult:
    """Start camera and node, watch them, stop them, then write ``overlay.mp4``, ``latency.png``, ``summary.json``.

    Args:
        progress: (what, total) -> context that yields a function to be told how much of it is done.

    Raises:
        MissingDependency: matplotlib is not installed.
        DriveSegError: a process failed, or nothing came; its message has the process's last words.
    """
    require_matplotlib()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        require_writable(options.out)
    except OSError as error:
        raise DriveSegError(f"the folder {options.out} cannot be written: {error}") from error
    with Spool() as spool:
        with display:
            seen = _observe(options, model, display, spool)
        seen.summary.write(options.out / "summary.json")
        plot_latency(seen.rows, options.out / "latency.png")
        with progress("drawing overlay.mp4", len(spool)) as tick:
            drawn = render_video(spool, model.labels, options.out / "overlay.mp4", tick)
    return dataclasses.replace(seen, video_frames=drawn)


def _observe(options: DemoOptions, model: Model, display: Display, spool: Spool) -> DemoResult:
    """The part with ROS: every process that it starts has ended when it returns or raises."""
    display.phase(prepare_process())
    with ExitStack() as stack:
        stop = StopSignals()
        stack.callback(stop.give_back)  # or Ctrl-C would do nothing while the video is drawn
        start_ros([])
        stack.callback(rclpy.try_shutdown)
        node = rclpy.create_node("drive_seg_demo")
        stack.callback(node.destroy_node)
        watcher = Watcher(node, model.labels, at_most(options.video_rate), spool.add)
        stack.callback(watcher.close)
        show = _Show(options, model, watcher, display, stop, stack)
        camera = show.start_camera()
        segmentation = show.start_node()
        show.watch(camera)
        camera.stop()
        state = show.settle()
        segmentation.stop()
        spool.finish()
        return show.result(state, camera)


def at_most(rate: float) -> Callable[[int], bool]:
    """A function that says of each stamp (ns) whether its frame is kept, so that at most ``rate`` per second are."""
    last = -(1 << 62)

    def keep(stamp: int) -> bool:
        nonlocal last
        # A little early counts as in time: cameras jitter. A clock that was set back begins anew.
        if 0 <= stamp - last < 0.9e9 / rate:
            return False
        last = stamp
        return True

    return keep


def ros_arguments(parameters: Mapping[str, Any]) -> list[str]:
    """``--ros-args -p name:=value ...``; values are quoted as JSON, which the YAML parser of rcl reads as meant."""
    pairs = [["-p", f"{name}:={_quoted(value)}"] for name, value in parameters.items()]
    return ["--ros-args", *(part for pair in pairs for part in pair)]


def _quoted(value: Any) -> str:
    # YAML refuses the two halves that JSON writes a character beyond 16 bits with; it stands as it is.
    return re.sub(r"\\ud[89ab]..\\ud[c-f]..", lambda halves: str(json.loads(f'"{halves[0]}"')), json.dumps(value))


def _step_back() -> None:
    """Lower the priority of every thread of this process: from here on it only watches, others are measured."""
    cv2.setNumThreads(1)
    for thread in Path("/proc/self/task").iterdir() if sys.platform.startswith("linux") else ():
        with suppress(OSError):  # it has ended
            number = int(thread.name)
            # Who started us may have us step back further already, and only root may come forward again.
            os.setpriority(os.PRIO_PROCESS, number, max(_NICE, os.getpriority(os.PRIO_PROCESS, number)))


class _Show:
    """The phases with ROS; ``stack`` ends the children whatever happens."""

    def __init__(
        self,
        options: DemoOptions,
        model: Model,
        watcher: Watcher,
        display: Display,
        stop: StopSignals,
        stack: ExitStack,
    ) -> None:
        self._options = options
        self._model = model
        self._watcher = watcher
        self._display = display
        self._stack = stack
        self._stop = stop
        self._children: list[Child] = []
        self._camera_up = math.inf
        self._node_started = 0.0
        self._mixed = ""
        self._silent = False

    def start_camera(self) -> Child:
        """The camera process; returns when its topic is there."""
        options = self._options
        if options.source == "sim":
            self._display.phase(f"camera: drawing {PRERENDERED} frames of the simulator ahead")
            module, arguments = "drive_seg.ros.sim_camera", self._simulator_arguments()
        else:
            self._display.phase(f"camera: {options.source}")
            module, arguments = "drive_seg.demo.player", [options.source, "--rate", str(options.rate)]
            arguments += ["--topic", options.topic] if options.topic else []
            arguments += ["--loop"] if options.loop else []
            arguments += ["--subscribers", str(_SUBSCRIBERS)]
        camera = self._start("camera", module, arguments)
        self._wait("the camera's topic", _CAMERA_READY_S, self._camera_found)
        others = self._others(nodes=0)
        if others:
            raise DriveSegError(others)
        return camera

    def _camera_found(self) -> bool:
        camera, now = self._children[0], time.monotonic()
        if any("DDS profile" in line for line in list(camera.lines)):  # said by a node that is there
            self._camera_up = min(self._camera_up, now)
        if now - self._camera_up > _DISCOVERY_S and self._watcher.alone():
            chosen = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
            raise DriveSegError(
                f"the camera runs, and for {_DISCOVERY_S:g} s this process has seen no other node: ROS processes "
                "of this machine do not find each other. They need a network interface that is up (ip link set lo "
                "up), and ROS_AUTOMATIC_DISCOVERY_RANGE must not be OFF; it is "
                f"{chosen or 'not set'}"
            )
        return self._watcher.publishers(IMAGE_TOPIC) > 0

    def _others(self, nodes: int) -> str:
        """That there are more publishers than our camera and so many nodes of ours; empty where there are not."""
        for topic, ours in ((IMAGE_TOPIC, 1), (f"{PREFIX}/mask", nodes)):
            if self._watcher.publishers(topic) > ours:
                domain = os.environ.get("ROS_DOMAIN_ID", "0")
                return (
                    f"somebody else publishes {topic} on ROS domain {domain}; stop it, or give the demo a domain of "
                    "its own: ROS_DOMAIN_ID=42 drive_seg demo"
                )
        return ""

    def _simulator_arguments(self) -> list[str]:
        options = self._options
        given = {"rate": options.rate or 30.0, "seed": options.seed, "weather": options.weather}
        return ros_arguments({**given, "prerender": PRERENDERED, "hold": HELD, "wait_for_subscribers": _SUBSCRIBERS})

    def start_node(self) -> Child:
        """The segmentation node's process; returns with its first mask."""
        options = self._options
        self._display.phase(f"node: model {self._model.name}, backend {options.backend}")
        self._node_started = time.monotonic()
        given = {"model": str(self._model.path), "backend": options.backend, "precision": options.precision}
        node = self._start("node", "drive_seg.ros.node", ros_arguments(given))
        _step_back()
        self._wait("the node to become active", _NODE_READY_S, lambda: self._watcher.camera_subscribers >= _SUBSCRIBERS)
        self._wait("the first mask", _FIRST_MASK_S, lambda: self._watcher.first_mask is not None)
        self._display.phase(f"first mask {self._first_mask_s:.1f} s after the node was started")
        return node

    @property
    def _first_mask_s(self) -> float:
        return (self._watcher.first_mask or self._node_started) - self._node_started

    def _start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        child = self._stack.enter_context(Child(name, ["-m", module, *arguments]))
        self._children.append(child)
        return child

    def _wait(self, what: str, limit: float, done: Callable[[], bool]) -> None:
        end = time.monotonic() + limit
        while not done():
            self._watcher.spin(0.05)
            self._display.wait(what)
            self._check()
            if self._stop.requested:
                raise DriveSegError(f"interrupted while waiting for {what}")
            if time.monotonic() > end:
                words = [f"{child.name}: {child.lines[-1]}" for child in self._children if child.lines]
                raise DriveSegError("\n  ".join([f"waited {limit:g} s for {what}", *words]))

    def _check(self) -> None:
        """Raise what a process died of, or what the node complains about."""
        for child in self._children:
            child.check()
        state = self._watcher.state
        if state is not None and state.trouble:
            raise DriveSegError(f"the node cannot work: {state.trouble}")

    def watch(self, camera: Child) -> None:
        """Until the time is up, the recording ends or the user interrupts."""
        started = time.monotonic()
        while camera.exit_code is None and not self._stop.requested:
            elapsed = time.monotonic() - started
            if elapsed >= self._options.seconds:
                break
            self._watcher.spin(0.1)
            self._display.update(self._watcher, elapsed, self._options.seconds)
            self._check()
            # Who was there before our camera, or came at the same moment, could not be told from it.
            self._mixed = self._mixed or self._others(nodes=1)
        camera.check()

    def settle(self) -> NodeState:
        """What the node reports once the last frame is through: two reports a second apart that agree."""
        end = time.monotonic() + _SETTLE_S
        before: NodeState | None = None
        old = self._watcher.state
        while time.monotonic() < end:
            self._watcher.spin(0.1)
            self._display.wait("the last frames")
            state = self._watcher.state
            if state is not before:
                if before is not None and state is not None and state.counts() == before.counts():
                    return state
                before = state
        if before is None:
            raise DriveSegError("the node never published /diagnostics")
        self._silent = before is old
        return before

    def result(self, state: NodeState, camera: Child) -> DemoResult:
        """Everything but the video."""
        rows = list(self._watcher.times)
        # The time in which the camera went on and nothing more was published counts, too.
        span = max(rows[-1][0], self._watcher.arrivals["image"].last) - rows[0][0] if len(rows) > 1 else 0.0
        counts = state.counts()
        missed = max(0, counts.published - self._watcher.arrivals["latency"].count)
        backend = state.engine.get("backend", "unknown")
        software = {**versions(), backend: state.engine.get("version", "unknown"), "ros": ros_distro()}
        said = [match for line in camera.lines if (match := re.search(r"(\d+) images? sent", line))]
        sent = int(said[-1].group(1)) if said else None
        complaints = [f"camera: {line.rpartition(']: ')[2]}" for line in camera.lines if "[ERROR]" in line]
        if self._mixed:
            complaints.append(f"the figures are not of this demo alone: {self._mixed}")
        if missed > 2 + 0.01 * counts.published:  # the first few may be published before the two know of each other
            complaints.append(f"the times of {missed} of {counts.published} frames were lost on their way to the demo")
        if self._silent:
            complaints.append(
                f"the node has said nothing for {_SETTLE_S:g} s: the counts are those of its last report, and frames "
                "that it has not published are in no latency"
            )
        summary = Summary(
            counts=counts,
            fps=(len(rows) + missed - 1) / span if span > 0 else 0.0,
            latency=self._watcher.percentiles(),
            backend=backend,
            precision=state.engine.get("precision", "unknown"),
            model=self._model.name,
            versions=software,
            warnings=complaints,
        )
        return DemoResult(summary, self._first_mask_s, sent, rows, tuple(complaints))
