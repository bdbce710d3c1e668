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
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    writer = Writer(path, version=8, storage_plugin=plugin)
    writer.set_compression(CompressionMode[packed.upper()], CompressionFormat.ZSTD)
    with writer:
        connections = [writer.add_connection(name, kind, typestore=store) for name in (topic, *others)]
        for number in range(first, first + count):
            message = image_message(store, kind, number, cut=number == broken)
            for connection in connections:
                writer.write(connection, stamp_of(number) + 5_000_000, store.serialize_cdr(message, kind))
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
