"""The other side of the node in its tests: cameras, every subscriber, and the node's process, over real DDS.

Import it after ``pytest.importorskip`` of rclpy and vision_msgs.
"""

from __future__ import annotations

import array
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from drive_seg.resources import config_file
from drive_seg.ros.transport import PROFILE_VARIABLES

DOMAIN = 1 + os.getpid() % 100  # above 101 the ports of a domain are those the kernel hands out
TIMEOUT_S = 30.0
OUTPUTS = ("mask", "panoptic", "instances")


def stay_apart(environment: pytest.MonkeyPatch) -> None:
    """A domain of this run's own on this machine, and shared memory that an image fits into.

    Call it before any ``rclpy.init`` in the tests' own process: Fast DDS reads its profile once per process, and images
    sent without it through segments of half a megabyte are lost for all tests that follow.
    """
    environment.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    environment.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    environment.setenv("ROS_LOCALHOST_ONLY", "1")  # the same for Humble
    for variable in PROFILE_VARIABLES:
        environment.setenv(variable, str(config_file("fastdds.xml")))


class Feed:
    """One camera: what it sends, and what comes back for it, by the seconds of the stamps.

    Args:
        prefix: where the node publishes about it.
    """

    def __init__(self, node: Any, name: str, image_topic: str, prefix: str) -> None:
        self.name = name
        self.prefix = prefix
        self.masks: dict[int, Image] = {}
        self.panoptics: dict[int, Image] = {}
        self.instances: dict[int, Detection2DArray] = {}
        self.stamp = 0
        self.camera = node.create_publisher(Image, image_topic, 10)
        for kind, topic, store in (
            (Image, "mask", self.masks),
            (Image, "panoptic", self.panoptics),
            (Detection2DArray, "instances", self.instances),
        ):
            node.create_subscription(kind, f"{prefix}/{topic}", by_second(store), 50)

    def image(self, pixels: NDArray[np.uint8], **fields: Any) -> Image:
        """The next image message, with some fields spoilt."""
        self.stamp += 1
        height, width = pixels.shape[:2]
        message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
        message.header.stamp.sec, message.header.stamp.nanosec = self.stamp, 123456789
        message.header.frame_id = f"{self.name}_optical"
        message.data = array.array("B", pixels.tobytes())
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def send(self, pixels: NDArray[np.uint8], **fields: Any) -> int:
        """Publish the next image; returns its stamp."""
        self.camera.publish(self.image(pixels, **fields))
        return self.stamp

    def served(self) -> set[int]:
        """Stamps of which all three outputs are here."""
        return self.masks.keys() & self.panoptics.keys() & self.instances.keys()


def by_second(store: dict[int, Any]) -> Callable[[Any], None]:
    """A callback that keeps messages by the seconds of their stamps."""
    return lambda message: store.__setitem__(message.header.stamp.sec, message)


class Peer:
    """Cameras and every subscriber in one, and the node's process.

    Args:
        command: what Python runs.
        cameras: image topic by camera name; several have prefixes of their own.
    """

    def __init__(self, *command: str, cameras: dict[str, str] | None = None) -> None:
        cameras = cameras or {"front": "/camera/image_raw"}
        self._environment = pytest.MonkeyPatch()
        stay_apart(self._environment)
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self.diagnostics: list[DiagnosticArray] = []
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, 10)
        several = len(cameras) > 1
        self.feeds = {
            name: Feed(self.node, name, topic, f"/segmentation/{name}" if several else "/segmentation")
            for name, topic in cameras.items()
        }
        self.process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)

    @property
    def front(self) -> Feed:
        """The only camera."""
        (feed,) = self.feeds.values()
        return feed

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Serve callbacks until ``condition()`` is true; returns what it returned."""
        end = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert time.monotonic() < end, f"waited {TIMEOUT_S} s for {what}"
            self.executor.spin_once(timeout_sec=0.05)
        return found

    def pace(self, seconds: float) -> None:
        """Serve callbacks for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.005)

    def wait_for_node(self) -> None:
        """Until every camera and output has found its other end."""
        for feed in self.feeds.values():
            self.until(feed.camera.get_subscription_count, f"the node to subscribe to {feed.name}")
            for topic in OUTPUTS:
                name = f"{feed.prefix}/{topic}"
                self.until(lambda name=name: self.node.count_publishers(name), name)

    def send_until(self, pixels: NDArray[np.uint8], condition: Callable[[], Any], what: str, feed: Feed) -> Any:
        """Best effort may lose an image: send anew until ``condition()`` is true; returns what it returned."""

        def attempt() -> Any:
            feed.send(pixels)
            end = time.monotonic() + 2.0
            while not (found := condition()) and time.monotonic() < end:
                self.executor.spin_once(timeout_sec=0.05)
            return found

        return self.until(attempt, what)

    def send_until_served(self, pixels: NDArray[np.uint8], feed: Feed | None = None) -> int:
        """Send until all three outputs of an image sent from now on are here; returns its stamp."""
        feed = feed or self.front
        before = feed.stamp
        return self.send_until(
            pixels, lambda: max((s for s in feed.served() if s > before), default=0), f"{feed.name} to be served", feed
        )

    def status(self, name: str) -> DiagnosticStatus | None:
        """The last status of this name."""
        for message in reversed(self.diagnostics):
            for status in message.status:
                if status.name.endswith(name):
                    return status
        return None

    def values(self, name: str) -> dict[str, str]:
        """Keys and values of the last status of this name; empty before the first."""
        status = self.status(name)
        return {} if status is None else {item.key: item.value for item in status.values}

    def counts(self, camera: str = "front") -> dict[str, int]:
        """The ledger of a camera."""
        wanted = ("received", "published", "failed", "in_flight", "total_dropped_frames")
        values = self.values(f"camera {camera}")
        return {key: int(value) for key, value in values.items() if key in wanted or key.startswith("dropped.")}

    def await_drained(self) -> None:
        """Until the node has reported, after what was sent so far, that nothing is in work and all of it is here."""
        seen = len(self.diagnostics)
        self.until(lambda: len(self.diagnostics) > seen + 1, "/diagnostics after the last frame")

        def drained(feed: Feed) -> bool:
            counts = self.counts(feed.name)
            return bool(counts) and counts["in_flight"] == 0 and len(feed.masks) == counts["published"]

        for feed in self.feeds.values():
            self.until(lambda feed=feed: drained(feed), f"{feed.name} to drain")

    def call(self, kind: Any, service: str, request: Any) -> Any:
        """The answer of a service. One client for all calls: an answer to one that DDS has not matched yet is lost."""
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        self.until(client.service_is_ready, service)
        future = client.call_async(request)
        self.until(future.done, f"an answer of {service}")
        return future.result()

    def set_parameter(self, name: str, value: Any, node: str = "drive_seg") -> Any:
        """The node's answer."""
        kinds = {
            bool: ("bool_value", ParameterType.PARAMETER_BOOL),
            float: ("double_value", ParameterType.PARAMETER_DOUBLE),
            int: ("integer_value", ParameterType.PARAMETER_INTEGER),
            str: ("string_value", ParameterType.PARAMETER_STRING),
            list: ("string_array_value", ParameterType.PARAMETER_STRING_ARRAY),
        }
        field, number = kinds[type(value)]
        parameter = ParameterMsg(name=name, value=ParameterValue(type=number, **{field: value}))
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, f"/{node}/set_parameters", request).results[0]

    def change_state(self, *transitions: str) -> None:
        """Go through these lifecycle transitions: ``deactivate``, ``cleanup``, ..."""
        for transition in transitions:
            assert self.request_state(transition), transition

    def request_state(self, transition: str) -> bool:
        """Whether the node has gone through a lifecycle transition."""
        number = getattr(Transition, f"TRANSITION_{transition.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return bool(self.call(ChangeState, "/drive_seg/change_state", request).success)

    def state(self) -> str:
        """The node's lifecycle state."""
        return str(self.call(GetState, "/drive_seg/get_state", GetState.Request()).current_state.label)

    def threads(self) -> int:
        """How many the node has."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def close(self) -> None:
        """End the node and us."""
        self.process.terminate()  # a killed process leaves its shared memory behind, tens of megabytes
        try:
            self.process.communicate(timeout=TIMEOUT_S / 3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate(timeout=TIMEOUT_S)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        self._environment.undo()


@contextmanager
def serving(*command: str, cameras: dict[str, str] | None = None) -> Iterator[Peer]:
    """A peer whose node is ready for images."""
    with closing(Peer(*command, cameras=cameras)) as peer:
        peer.wait_for_node()
        yield peer


def node_command(model: Path | str, *parameters: str) -> list[str]:
    """The node with a model and further ``name:=value``."""
    given = [f"model:={model}", "backend:=onnxruntime", *parameters]
    return ["-m", "drive_seg.ros.node", "--ros-args", *(word for item in given for word in ("-p", item))]


def pixels_of(message: Image) -> NDArray[Any]:
    """A map as an array."""
    kind, shape = {"mono8": (np.uint8, ()), "16UC1": (np.uint16, ()), "rgb8": (np.uint8, (3,))}[message.encoding]
    return np.frombuffer(message.data, kind).reshape(message.height, message.width, *shape)
