"""Small recordings for tests, written without the code under test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
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


def write_video(path: Path, count: int) -> None:
    """An MPEG-4 video of the pictures."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
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
) -> Path:
    """A rosbag2 folder of the pictures; returns its storage file.

    Args:
        storage: ``mcap`` or ``sqlite3``.
        compressed: PNG in CompressedImage instead of raw images.
        broken: this frame's data is one byte short.
        others: further image topics with the same content.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    kind = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
    plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
    with Writer(path, version=8, storage_plugin=plugin) as writer:
        connections = [writer.add_connection(name, kind, typestore=store) for name in (topic, *others)]
        for number in range(count):
            seconds, nanoseconds = divmod(stamp_of(number), 10**9)
            time = store.types["builtin_interfaces/msg/Time"](seconds, nanoseconds)
            header = store.types["std_msgs/msg/Header"](time, "front_optical")
            image = picture(number)
            if compressed:
                data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].reshape(-1)
                message = store.types[kind](header, "png", data)
            else:
                data = image.reshape(-1)[: -1 if number == broken else None]
                message = store.types[kind](header, HEIGHT, WIDTH, "rgb8", 0, WIDTH * 3, data)
            for connection in connections:
                writer.write(connection, stamp_of(number) + 5_000_000, store.serialize_cdr(message, kind))
    (file,) = [file for file in path.iterdir() if file.suffix in (".mcap", ".db3")]
    return file
