"""Messages of ROS 1 bags that were never closed (``.bag.active``) or cut off, as ROS 2 would have written them.

Format: https://wiki.ros.org/Bags/Format/2.0, records of a header of named fields and data.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from drive_seg.offline.unpack import unpack

_MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _CHUNK, _CONNECTION = 0x02, 0x03, 0x05, 0x07


class Migration:
    """Messages of ROS 1 as ROS 2 would have written them; of types that are not ROS' own, as they are."""

    def __init__(self) -> None:
        self._defaults: dict[str, object] = {}

    def __call__(self, msgtype: str, data: bytes) -> bytes:
        """CDR of a message of the type that ROS 2 calls so.

        Raises:
            Exception: what rosbags raises for damaged bytes.
        """
        from rosbags.convert.converter import migrate_bytes

        theirs, ours = _stores()
        if msgtype not in theirs.fielddefs or msgtype not in ours.fielddefs:
            return data
        return bytes(migrate_bytes(theirs, ours, msgtype, msgtype, self._defaults, data, src_is2=False, dst_is2=True))


@lru_cache(maxsize=1)
def _stores() -> tuple[Any, Any]:
    """The types of ROS 1 and of ROS 2."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)


def ros1_messages(path: Path, lost: list[str]) -> Iterator[tuple[str, str, int, bytes]]:
    """(topic, ROS 2 type, recorded ns, CDR data) of every whole message, in file order; of types that are not ROS' own,
    data as ROS 1 has it.

    Args:
        lost: is given what could not be read.
    """
    as_ros2 = Migration()
    topics: dict[int, tuple[str, str]] = {}
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            lost.append("all")
            return
        for fields, data in _records(stream, path.stat().st_size, lost):
            try:
                code = fields[b"op"][0]
                if code == _BAG and not any(fields[b"index_pos"]):
                    lost.append("the end")  # it was never closed
                elif code == _CONNECTION:
                    named = dict(_fields(data))
                    msgtype = named[b"type"].decode().replace("/", "/msg/")
                    topics[_u32(fields[b"conn"])] = (fields[b"topic"].decode(), msgtype)
                elif code == _MESSAGE:
                    topic, msgtype = topics[_u32(fields[b"conn"])]
                    seconds, nanoseconds = struct.unpack("<II", fields[b"time"])
                    yield topic, msgtype, seconds * 1_000_000_000 + nanoseconds, as_ros2(msgtype, data)
            except Exception:  # noqa: BLE001 - a damaged record raises whatever its bytes lead to
                lost.append("a record")


def _records(
    stream: BinaryIO, size: int, lost: list[str], in_chunk: bool = False
) -> Iterator[tuple[dict[bytes, bytes], bytes]]:
    """(header, data) of every whole record, those inside chunks in their place."""
    while stream.tell() < size:
        header = _block(stream, size)
        data = None if header is None else _block(stream, size)
        if header is None or data is None:
            lost.append("the end")
            return
        fields = dict(_fields(header))
        if fields.get(b"op", b"\0")[0] != _CHUNK:
            yield fields, data
            continue
        if in_chunk:
            lost.append("a chunk")
            continue  # none may lie in another; a kilobyte of such would stand for years of unpacking
        try:
            kind = fields.get(b"compression", b"none").decode()
            content = data if kind == "none" else unpack(kind, data)
        except Exception:  # noqa: BLE001 - each decompressor has its own
            lost.append("a chunk")
            continue
        yield from _records(io.BytesIO(content), len(content), lost, in_chunk=True)


def _block(stream: BinaryIO, size: int) -> bytes | None:
    """What is preceded by its length; None where the bytes end before it does."""
    prefix = stream.read(4)
    if len(prefix) < 4 or _u32(prefix) > size - stream.tell():
        return None
    return stream.read(_u32(prefix))


def _fields(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 4 <= len(block):
        end = at + 4 + _u32(block[at : at + 4])
        name, _, value = block[at + 4 : end].partition(b"=")
        yield name, value
        at = end


def _u32(block: bytes) -> int:
    value: int = struct.unpack("<I", block)[0]
    return value
