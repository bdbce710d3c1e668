"""Messages of chosen topics of a bag in the order of recording, for what is no camera: truth, predictions."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import MalformedImage, MissingDependency, SourceError, one_line
from drive_seg.frame import Lane
from drive_seg.lanes import table
from drive_seg.offline.bag_types import decoder, open_reader, ros2_types
from drive_seg.offline.read_ahead import read_ahead
from drive_seg.offline.salvage import ros2_name, salvage_messages, storage_files
from drive_seg.offline.unpack import plain

IMAGE, CLOUD = "sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2"
LABEL_INFO = "vision_msgs/msg/LabelInfo"

_FORMATS = {"mono8": "u1", "8UC1": "u1", "16UC1": "u2", "mono16": "u2"}


@dataclass(frozen=True)
class Topic:
    """A topic of a bag: the type and the number of its messages, None where the bag is damaged."""

    msgtype: str
    count: int | None


def bag_topics(path: Path) -> dict[str, Topic]:
    """What a bag has, by name.

    Raises:
        MissingDependency: rosbags is not installed.
    """
    try:
        with open_reader(path) as reader:
            return {
                name: Topic(ros2_name(topic.msgtype or ""), topic.msgcount) for name, topic in reader.topics.items()
            }
    except MissingDependency:
        raise
    except Exception:  # noqa: BLE001 - a damaged file raises whatever its bytes lead to
        return {message.topic: Topic(message.msgtype, None) for message in salvage_messages(storage_files(path))}


def bag_messages(
    path: Path, topics: Collection[str], window: tuple[int, int] | None = None
) -> Generator[tuple[str, Any], None, None]:
    """(topic, message); of a bag that was cut off, what is left of it.

    Args:
        window: only what was recorded from the first to before the second, ns.

    Raises:
        SourceError: the bag is damaged in the middle.
    """
    try:
        reader = open_reader(path)
        reader.open()
    except MissingDependency:
        raise
    except Exception:  # noqa: BLE001 - see above
        yield from _salvaged(path, topics)
        return
    try:
        wanted = [connection for connection in reader.connections if connection.topic in topics]
        start, stop = window or (None, None)
        decode = decoder(reader)
        messages = reader.messages(wanted, start, stop) if wanted else ()
        for connection, _, raw in read_ahead(storage_files(path), (reader.start_time, reader.end_time), messages):
            yield connection.topic, decode(plain(raw) if reader.is2 else raw, connection.msgtype or "")
    except Exception as error:  # see above
        raise SourceError(f"bag {path} is damaged: {one_line(error)}") from error
    finally:
        reader.close()


def _salvaged(path: Path, topics: Collection[str]) -> Iterator[tuple[str, Any]]:
    store = ros2_types()
    for message in salvage_messages(storage_files(path)):
        if message.topic in topics:
            try:
                found = store.deserialize_cdr(message.data, message.msgtype)
            except Exception:  # noqa: BLE001 - damaged bytes raise whatever they lead to; the next may be whole
                continue
            yield message.topic, found


def stamp_of(message: Any) -> int:
    """Acquisition time in the header, ns."""
    stamp: int = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
    return stamp


def pixels_of(message: Any) -> NDArray[Any]:
    """uint8 or uint16 (H, W) of a mono8 or 16UC1 Image; a view where the message allows.

    Raises:
        MalformedImage: another encoding, or sizes that contradict each other.
    """
    kind = _FORMATS.get(message.encoding)
    if kind is None:
        raise MalformedImage(f"a label image must be mono8 or 16UC1, got {message.encoding}")
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    data = np.asarray(message.data).view(np.uint8)
    height, width, step = message.height, message.width, message.step or message.width * dtype.itemsize
    if step < width * dtype.itemsize or data.size < height * step:
        raise MalformedImage(f"{width}x{height} {message.encoding} with step {step} has only {data.size} bytes")
    rows = data[: height * step].reshape(height, step)[:, : width * dtype.itemsize]
    pixels = np.ascontiguousarray(rows).view(dtype)
    return pixels if dtype.isnative else pixels.astype(dtype.newbyteorder("="))


def lanes_of(message: Any) -> tuple[Lane, ...]:
    """As ``drive_seg.lanes.table`` reads them.

    Raises:
        SourceError: it has other fields, or points that are no lines.
    """
    try:
        return table.lanes_of(message)
    except MalformedImage as error:
        raise SourceError(f"the lanes at {stamp_of(message)} cannot be read: {error}") from error
