"""Messages to the vocabulary and back. Pixels are viewed, never copied: in on the way in, in place on the way out."""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

from drive_seg import frame as core
from drive_seg.labels import LabelSet

ENCODING_OF = {"mask": "mono8", "panoptic": "16UC1", "confidence": "mono8", "overlay": "rgb8"}
"""The image encoding of every map we publish."""


def camera_image(message: Image) -> core.CameraImage:
    """View a raw image message; valid as long as the message lives.

    Raises:
        MalformedImage: its fields contradict each other or its encoding is not accepted.
    """
    return core.CameraImage(
        encoding=message.encoding,
        width=message.width,
        height=message.height,
        step=message.step,
        data=_bytes_of(message.data),
        big_endian=bool(message.is_bigendian),
    )


def compressed_image(message: CompressedImage) -> core.CompressedImage:
    """View a compressed image message; whether it can be decoded shows later."""
    return core.CompressedImage(_bytes_of(message.data), message.format)


def stamp_ns(header: Header) -> int:
    """Nanoseconds of a header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _bytes_of(data: Any) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)


class ImageBuffer:
    """An Image message that is filled in place, sent, and filled again.

    The pixels live in an ``array('B')``, the type rclpy keeps and serialises as it is: what is written into the
    array of ``pixels`` is in the message already. Owned by the thread that publishes; publishing serialises before
    it returns, so the next frame may overwrite it.
    """

    def __init__(self, encoding: str) -> None:
        try:
            # Checked fields sound slower, but only their setter takes an array without copying it.
            self._message = Image(check_fields=True)
        except AssertionError:  # Humble's messages are always checked and refuse the argument
            self._message = Image()
        self._message.encoding = encoding
        self._buffer = array.array("B")
        self._view: NDArray[Any] = np.empty(0, np.uint8)

    def pixels(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """The writable, C-contiguous array behind the message, (H, W) or (H, W, channels); the content is stale."""
        dtype = np.dtype(dtype)
        if self._view.shape != shape or self._view.dtype != dtype:
            count = int(np.prod(shape))
            self._buffer = array.array("B", bytes(count * dtype.itemsize))
            self._view = np.frombuffer(self._buffer, dtype).reshape(shape)
            self._message.height, self._message.width = shape[:2]
            self._message.step = count * dtype.itemsize // shape[0]
            self._message.is_bigendian = int(sys.byteorder == "big")
        return self._view

    def message(self, header: Header) -> Image:
        """The message with the pixels written last."""
        self._message.header = header
        self._message.data = self._buffer  # free where rclpy keeps the array, and still right where it copies
        return self._message


def detections(instances: Sequence[core.Instance], header: Header) -> Detection2DArray:
    """One detection per thing segment.

    A box spans whole pixels: its centre is ``x + width / 2`` with pixel edges on integers (pixel i covers i .. i + 1),
    its size is the number of columns and rows, all in the camera's pixels.
    """
    message = Detection2DArray(header=header)
    for instance in instances:
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = instance.class_name
        hypothesis.hypothesis.score = instance.score
        detection = Detection2D(header=header, id=instance.id, results=[hypothesis])
        box, area = instance.box, detection.bbox
        area.center.position.x = box.x + box.width / 2
        area.center.position.y = box.y + box.height / 2
        area.size_x, area.size_y = float(box.width), float(box.height)
        message.detections.append(detection)
    return message


def label_info(labels: LabelSet, threshold: float, header: Header) -> LabelInfo:
    """Every class by id and name, and the score below which instances are left out."""
    classes = [VisionClass(class_id=label.id, class_name=label.name) for label in labels]
    return LabelInfo(header=header, class_map=classes, threshold=threshold)
