"""The node's surface: its topics and services are those of the SROS 2 policy, its sockets those of DDS."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from peer import Peer, node_command
from tiny_model import paint, write_tiny_model

from drive_seg.resources import share_dir

NAME = "drive_seg"
ONLY_SOMETIMES = {"/clock"}
"""Under simulated time."""
NOT_HERE = set() if find_spec("type_description_interfaces") else {f"/{NAME}/get_type_description"}
"""Nodes have it from Jazzy on."""
EMPTY_NODE = """
import rclpy, sys
from drive_seg.ros.transport import prepare_process
prepare_process()
rclpy.init()
node = rclpy.create_node("empty")
print("up", flush=True)
sys.stdin.read()
"""


def allowed(kind: str, direction: str) -> set[str]:
    """Full names of the policy's topics or services with this permission."""
    profile = ElementTree.parse(share_dir() / "config/security/policy.xml").find(".//profile")
    assert profile is not None and (profile.get("ns"), profile.get("node")) == ("/", NAME)
    return {
        resolved(entry.text or "")
        for group in profile.findall(kind)
        if group.get(direction) == "ALLOW"
        for entry in group
    }


def resolved(name: str) -> str:
    """As ROS does for this node."""
    return name.replace("~", f"/{NAME}", 1) if name.startswith("~") else name if name.startswith("/") else f"/{name}"


def sockets(pid: int) -> Counter[str]:
    """Number of a process's sockets by kind; TCP only where it listens."""
    links = [link.readlink().as_posix() for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    found: Counter[str] = Counter()
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        rows = [line.split() for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]]
        found[kind] += sum(row[9] in own and (kind[:3] == "udp" or row[3] == "0A") for row in rows)
    rows = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]]
    found["unix"] += sum(row[6] in own and len(row) > 7 for row in rows)
    return found


def test_the_policy_and_the_sockets_are_those_of_the_running_node(tmp_path: Path) -> None:
    peer = Peer(*node_command(write_tiny_model(tmp_path), "front.camera_info_topic:=/camera/camera_info"))
    empty = subprocess.Popen(
        [sys.executable, "-c", EMPTY_NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        peer.wait_for_node()
        peer.send_until_served(paint(64, 48))
        graph = peer.node
        services = dict(graph.get_service_names_and_types_by_node(NAME, "/"))
        assert set(services) | NOT_HERE == allowed("services", "reply")
        assert set(dict(graph.get_publisher_names_and_types_by_node(NAME, "/"))) == allowed("topics", "publish")
        heard = set(dict(graph.get_subscriber_names_and_types_by_node(NAME, "/")))
        assert heard | ONLY_SOMETIMES == allowed("topics", "subscribe")
        assert graph.get_client_names_and_types_by_node(NAME, "/") == []

        assert empty.stdout is not None and empty.stdout.readline() == "up\n"
        ours = sockets(peer.process.pid)
        assert ours["tcp"] == ours["tcp6"] == ours["unix"] == 0
        assert ours == sockets(empty.pid), "more sockets than DDS opens for a node that does nothing"
    finally:
        empty.kill()
        empty.communicate()
        peer.close()
