"""Small recordings for tests, written without the code under test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from tiny_model import paint

WIDTH, HEIGHT = 320, 192
FPS = 10.0


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """What the tiny network takes for road with one vehicle, which moves 8 pixels per frame: uint8 (H, W, 3) RGB."""
    left = 16 + 8 * (number % 20)
    image = paint(width, height, [(3, left, 80, 48, 40)])
    image[96:100, left + 20 : left + 24, 2] = 255
    return image


def write_images(folder: Path, names: list[str]) -> None:
    """One picture per name."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))


def put(path: Path, pixels: ArrayLike, kind: type = np.uint8) -> None:
    """An image file of these values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.asarray(pixels, kind))


def write_video(path: Path, count: int, fps: float = FPS) -> None:
    """An MPEG-4 video of the pictures."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(count):
        writer.write(cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))
    writer.release()


def stamp_of(number: int) -> int:
    """Header stamp of frame ``number`` of a bag, ns: an uneven one, so that nothing can make it up."""
    return 1_700_000_000_123_456_789 + number * 100_000_007


class Recording:
    """A rosbag2 folder in the making."""

    def __init__(self, path: Path, storage: str = "mcap", packed: str = "none") -> None:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        from drive_seg.offline.vision_msgs import DEFINITIONS

        self.store: Any = get_typestore(Stores.ROS2_HUMBLE)
        for name, text in DEFINITIONS.items():
            self.store.register(get_types_from_msg(text, name))
        self._topics: dict[str, Any] = {}
        self._writer = Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
        self._writer.set_compression(CompressionMode[packed.upper()], CompressionFormat.ZSTD)

    def __enter__(self) -> Recording:
        self._writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def message(self, kind: str, *values: Any) -> Any:
        """A message of ``package/Name``."""
        package, _, name = kind.partition("/")
        return self.store.types[f"{package}/msg/{name}"](*values)

    def header(self, stamp_ns: int) -> Any:
        time = self.message("builtin_interfaces/Time", *divmod(stamp_ns, 10**9))
        return self.message("std_msgs/Header", time, "optical")

    def image(self, header: Any, encoding: str, pixels: NDArray[Any], step: int = 0) -> Any:
        data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        height, width = pixels.shape[:2]
        return self.message("sensor_msgs/Image", header, height, width, encoding, 0, step or data.size // height, data)

    def vehicles(self, header: Any, *names: str) -> Any:
        """A Detection2DArray of vehicles somewhere, each with the id that it is called by."""
        vector, turn = self.message("geometry_msgs/Point", 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
        pose = self.message("geometry_msgs/Pose", vector, self.message("geometry_msgs/Quaternion", *turn))
        pose = self.message("geometry_msgs/PoseWithCovariance", pose, np.zeros(36))
        known = self.message("vision_msgs/ObjectHypothesis", "vehicle", 1.0)
        result = self.message("vision_msgs/ObjectHypothesisWithPose", known, pose)
        centre = self.message("vision_msgs/Pose2D", self.message("vision_msgs/Point2D", 1.0, 1.0), 0.0)
        box = self.message("vision_msgs/BoundingBox2D", centre, 1.0, 1.0)
        detections = [self.message("vision_msgs/Detection2D", header, [result], box, name) for name in names]
        return self.message("vision_msgs/Detection2DArray", header, detections)

    def add(self, topic: str, kind: str) -> None:
        """A topic that may stay without messages."""
        self._topics[topic] = self._writer.add_connection(topic, kind, typestore=self.store)

    def write(self, topic: str, message: Any, recorded: int) -> None:
        kind = message.__msgtype__
        if topic not in self._topics:
            self.add(topic, kind)
        self._writer.write(self._topics[topic], recorded, self.store.serialize_cdr(message, kind))


def write_bag(
    path: Path,
    count: int,
    storage: str = "mcap",
    topic: str = "/front/image_raw",
    compressed: bool = False,
    broken: int | None = None,
    others: tuple[str, ...] = (),
    packed: str = "none",
    first: int = 0,
) -> Path:
    """A rosbag2 folder of the pictures; returns its storage file.

    Args:
        storage: ``mcap`` or ``sqlite3``.
        compressed: PNG in CompressedImage instead of raw images.
        broken: this frame's data is one byte short.
        others: further image topics with the same content.
        packed: what zstd compresses: ``none``, ``file``, ``message``, or ``storage`` (the chunks of MCAP).
        first: number of the first picture; those before it are missing.
    """
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    with Recording(path, storage, packed) as bag:
        for name in (topic, *others):
            bag.add(name, kind)
        for number in range(first, first + count):
            message = image_message(bag.store, kind, number, cut=number == broken)
            for name in (topic, *others):
                bag.write(name, message, stamp_of(number) + 5_000_000)
    (file,) = [file for file in path.iterdir() if file.suffix != ".yaml"]
    return file


def image_message(store: Any, kind: str, number: int, cut: bool = False) -> Any:
    """Picture ``number`` as a message of ``kind``, of ROS 1 or ROS 2 by the ``store``; ``cut``: one byte is missing."""
    seconds, nanoseconds = divmod(stamp_of(number), 10**9)
    time = store.types["builtin_interfaces/msg/Time"](seconds, nanoseconds)
    ros1 = [number] if "seq" in dict(store.fielddefs["std_msgs/msg/Header"][1]) else []
    header = store.types["std_msgs/msg/Header"](*ros1, time, "front_optical")
    image = picture(number)
    if kind.endswith("CompressedImage"):
        data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].reshape(-1)
        return store.types[kind](header, "png", data)
    data = image.reshape(-1)[: -1 if cut else None]
    return store.types[kind](header, HEIGHT, WIDTH, "rgb8", 0, WIDTH * 3, data)


def write_ros1_bag(path: Path, count: int, topic: str = "/front/image_raw", compression: str = "") -> None:
    """A ROS 1 bag of the pictures, and a latched String ``/note``; PNG messages where the topic ends in /compressed.

    Args:
        compression: of its chunks: ``bz2``, ``lz4`` or none.
    """
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    kind = f"sensor_msgs/msg/{'CompressedImage' if topic.endswith('/compressed') else 'Image'}"
    writer = Writer(path)
    if compression:
        writer.set_compression(Writer.CompressionFormat[compression.upper()])
    with writer:
        images = writer.add_connection(topic, kind, typestore=store)
        notes = writer.add_connection("/note", "std_msgs/msg/String", typestore=store, latching=1)
        note = store.types["std_msgs/msg/String"]("rain")
        writer.write(notes, stamp_of(0), store.serialize_ros1(note, "std_msgs/msg/String"))
        for number in range(count):
            data = store.serialize_ros1(image_message(store, kind, number), kind)
            writer.write(images, stamp_of(number) + 5_000_000, data)
