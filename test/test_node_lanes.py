"""The lane boundaries of the node: a process of its own, real messages, and the rays through a calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")

from peer import by_second, node_command, serving
from roads import FlatRoad, orders_of, worst
from sensor_msgs.msg import CameraInfo, PointCloud2, RegionOfInterest
from std_msgs.msg import Header
from tiny_model import paint_mask, write_tiny_model

from drive_seg.frame import Lane
from drive_seg.lanes.table import RECORD, lanes_of
from drive_seg.ros.lanes import cloud, rays

ROAD = FlatRoad((-3.3, -1.1, 1.2))
K = [500.0, 0.0, 320.0, 0.0, 480.0, 180.0, 0.0, 0.0, 1.0]


def info(**fields: Any) -> CameraInfo:
    message = CameraInfo(width=640, height=360, distortion_model="plumb_bob", d=[0.0] * 5, k=K)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_boundaries_come_under_the_camera_s_header_once_somebody_subscribes(tmp_path: Path) -> None:
    image = paint_mask(ROAD.draw())
    model = write_tiny_model(tmp_path, size=(640, 384))
    with serving(*node_command(model, "front.camera_info_topic:=/camera/info")) as peer:
        calibration = peer.node.create_publisher(CameraInfo, "/camera/info", 1)
        seen: dict[int, PointCloud2] = {}
        peer.node.create_subscription(PointCloud2, "/segmentation/lanes", by_second(seen), 10)

        def calibrated() -> PointCloud2 | None:
            calibration.publish(info())
            return next((message for message in seen.values() if message.is_dense), None)

        message = peer.send_until(image, calibrated, "lanes with rays", peer.front)
    assert (message.header.frame_id, message.header.stamp.nanosec) == ("front_optical", 123456789)
    assert message.height == 1 and message.point_step * message.width == message.row_step == len(message.data)
    found = lanes_of(message)
    assert [lane.order for lane in found] == orders_of(ROAD.sides)
    for lane, side in zip(found, ROAD.sides, strict=True):
        assert worst(lane.points, ROAD, side, 1.0) <= 6
    records = np.frombuffer(message.data, RECORD)
    np.testing.assert_allclose(500 * records["x"] + 320, records["u"], atol=0.01)
    np.testing.assert_allclose(480 * records["y"] + 180, records["v"], atol=0.01)
    assert (records["z"] == 1).all()


@pytest.mark.parametrize(
    ("model", "lens"),
    [
        ("plumb_bob", [0.1, -0.05, 0.001, 0.002, 0.01]),
        ("rational_polynomial", [0.1, -0.05, 0.001, 0.002, 0.01, 0.02, 0.01, 0.001]),
        ("rational_polynomial", [0.1, -0.05, 0.001, 0.002, 0.01, 0.02, 0.01, 0.001, 0.01, 0.02, 0.01, 0.02]),
        ("plumb_bob", [0.1, -0.05, 0.001, 0.002]),
        ("plumb_bob", [0.1, -0.05, 0.001, 0.002, 0.01, *[0.0] * 7, 0.02, -0.01]),
        ("equidistant", [0.02, -0.01, 0.003, 0.001]),
        ("", []),
    ],
)
def test_a_lens_bends_the_rays_back(model: str, lens: list[float]) -> None:
    """The camera's own projection takes every ray to its pixel."""
    through = rays(info(distortion_model=model, d=lens), (640, 360))
    assert through is not None
    pixels = np.float32([[20, 30], [320, 180], [600, 300], [333, 222]])
    directions = np.hstack([through(pixels), np.ones((4, 1))])[:, None]
    matrix, still = np.reshape(K, (3, 3)), np.zeros(3)
    if model == "equidistant":
        back, _ = cv2.fisheye.projectPoints(directions, still, still, matrix, np.array(lens))
    else:
        back, _ = cv2.projectPoints(directions, still, still, matrix, np.array(lens))
    np.testing.assert_allclose(back[:, 0], pixels, atol=0.1)


@pytest.mark.parametrize(
    "fields",
    [
        {"k": [0.0] * 9},
        {"k": [*K[:4], 0.0, *K[5:]]},
        {"width": 1280},
        {"width": 0, "roi": RegionOfInterest(width=640, height=360)},
        {"distortion_model": "cubic"},
        {"distortion_model": "equidistant"},
        {"d": [0.1] * 3},
    ],
)
def test_a_calibration_that_does_not_fit_gives_no_rays(fields: dict[str, Any]) -> None:
    assert rays(info(**fields), (640, 360)) is None
    message = cloud([Lane(-1, np.float32([[1, 2], [3, 1]]))], Header(), None)
    assert not message.is_dense and np.isnan(np.frombuffer(message.data, RECORD)["x"]).all()
