"""What messages in bags look like: ROS' own definitions, never those that a bag brings along.

A bag's definition of ``sensor_msgs/Image`` may hold an array of a hundred million messages, and rosbags writes a
decoder for whatever it is told. Images, headers and vision_msgs have not changed since ROS 1 and Humble.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from drive_seg.offline.salvage import ros2_name, storage_files
from drive_seg.offline.unpack import bound_rosbags
from drive_seg.offline.vision_msgs import DEFINITIONS

Decode = Callable[[bytes | memoryview, str], Any]
"""``decode(serialised, type)`` gives the message; raises whatever damaged bytes lead to."""


@lru_cache(maxsize=1)
def ros2_types() -> Any:
    """The typestore of ROS 2 with vision_msgs, which is also what bags without definitions are read by.

    Raises:
        MissingDependency: rosbags is not installed, or too old.
    """
    bound_rosbags()
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    return store


def open_reader(path: Path) -> Any:
    """A rosbags ``AnyReader`` of a bag, still to be opened; a folder that was never closed is read file by file.

    Raises:
        MissingDependency: rosbags is not installed, or too old.
        Exception: what rosbags raises for damaged metadata.
    """
    bound_rosbags()
    from rosbags.highlevel import AnyReader

    closed = path.is_file() or (path / "metadata.yaml").is_file()
    return AnyReader([path] if closed else storage_files(path), default_typestore=ros2_types())


def decoder(reader: Any) -> Decode:
    """How the messages of an open rosbags ``AnyReader`` are decoded, under any name that their type ever had."""
    if reader.is2:
        decode: Decode = ros2_types().deserialize_cdr
    else:
        from rosbags.typesys import Stores, get_typestore

        decode = get_typestore(Stores.ROS1_NOETIC).deserialize_ros1
    return lambda serialised, msgtype: decode(serialised, ros2_name(msgtype))
