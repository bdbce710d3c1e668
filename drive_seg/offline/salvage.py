"""Messages of bags that were never closed: a recorder that was killed, a copy that was cut off.

Both formats are read front to back until the bytes end, without the index that a proper close would have written.
MCAP: https://mcap.dev/spec. SQLite: the tables of rosbag2_storage_sqlite3.
"""

from __future__ import annotations

import io
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


@dataclass(frozen=True)
class SalvagedMessage:
    """One serialised (CDR) message."""

    topic: str
    msgtype: str
    recorded_ns: int
    data: bytes


def salvage_messages(files: Sequence[Path]) -> Iterator[SalvagedMessage]:
    """Every message of the storage files that is still whole, in file order; nothing from files of other kinds."""
    for file in files:
        if file.suffix == ".mcap":
            yield from _mcap(file)
        elif file.suffix == ".db3":
            yield from _sqlite(file)


def _mcap(path: Path) -> Iterator[SalvagedMessage]:
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            return
        for code, body in _records(stream, path.stat().st_size):
            if code == _SCHEMA:
                schemas[_u16(body, 0)] = _text(body, 2)[0]
            elif code == _CHANNEL:
                topic, _ = _text(body, 4)
                channels[_u16(body, 0)] = (topic, schemas.get(_u16(body, 2), ""))
            elif code == _MESSAGE and _u16(body, 0) in channels:
                topic, msgtype = channels[_u16(body, 0)]
                yield SalvagedMessage(topic, msgtype, struct.unpack_from("<Q", body, 6)[0], body[22:])


def _records(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """(opcode, body) of every whole record, those inside chunks in their place."""
    while True:
        head = stream.read(9)
        if len(head) < 9 or head[0] == _DATA_END:
            return
        length = struct.unpack_from("<Q", head, 1)[0]
        if length > size - stream.tell():
            return
        body = stream.read(length)
        if head[0] == _CHUNK:
            content = _unpack_chunk(body)
            yield from _records(io.BytesIO(content), len(content))
        else:
            yield head[0], body


def _unpack_chunk(body: bytes) -> bytes:
    compression, start = _text(body, 28)
    packed = body[start + 8 :]
    if compression == "lz4":
        import lz4.frame

        unpacked: bytes = lz4.frame.decompress(packed)
        return unpacked
    if compression == "zstd":
        return bytes(_zstd().decompress(packed))
    return packed


def _zstd() -> Any:
    try:
        from compression import zstd
    except ImportError:  # before Python 3.14 rosbags depends on the backport
        from backports import zstd
    return zstd


def _u16(body: bytes, at: int) -> int:
    value: int = struct.unpack_from("<H", body, at)[0]
    return value


def _text(body: bytes, at: int) -> tuple[str, int]:
    """The length-prefixed string at ``at``, and where it ends."""
    end = at + 4 + struct.unpack_from("<I", body, at)[0]
    return body[at + 4 : end].decode(), end


def _sqlite(path: Path) -> Iterator[SalvagedMessage]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        # Lets SQLite open a file that is shorter than its header says.
        connection.execute("PRAGMA writable_schema = ON")
        topics = {row[0]: (row[1], row[2]) for row in connection.execute("SELECT id, name, type FROM topics")}
        rows = connection.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED")
        for topic_id, recorded, data in rows:
            if topic_id in topics:
                topic, msgtype = topics[topic_id]
                yield SalvagedMessage(topic, msgtype, recorded, data)
    except sqlite3.DatabaseError:
        return  # where the bytes end; the caller knows that the bag is cut short
    finally:
        connection.close()
