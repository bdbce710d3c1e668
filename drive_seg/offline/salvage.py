"""Messages of bags that were never closed or lost some bytes: a recorder that was killed, a copy cut off, a bad disk.

All formats are read front to back until the bytes end, without the index that a proper close would have written.
MCAP: https://mcap.dev/spec. SQLite: the tables of rosbag2_storage_sqlite3. ROS 1: ``salvage_ros1``.
"""

from __future__ import annotations

import io
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePath
from typing import BinaryIO

from drive_seg.documents import read_yaml
from drive_seg.errors import SourceError
from drive_seg.offline.images import natural
from drive_seg.offline.salvage_ros1 import Migration, ros1_messages
from drive_seg.offline.unpack import plain, unpack

_MAGIC = b"\x89MCAP0\r\n"
_STORED = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")
_UNNAMED = "SELECT 1 FROM topics WHERE typeof(name) != 'text' OR typeof(type) != 'text'"
_STEPS, _STEPS_PER_BYTE = 10_000_000, 100
"""Instructions of SQLite that a bag may take, and more for each of its bytes: a hundred times what it does take."""
STRIDE = 100_000
"""Instructions between two looks at how many there were."""
_LEAST_ROW = 16
"""Bytes of a message in a SQLite bag, with its time stamp and what every row has."""
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


@dataclass(frozen=True)
class SalvagedMessage:
    """One serialised message: CDR, but for types of ROS 1 bags that are not ROS' own, and for those whose type says
    what else they are (``foxglove.RawImage in protobuf``)."""

    topic: str
    msgtype: str
    recorded_ns: int
    data: bytes | memoryview


def ros2_name(msgtype: str) -> str:
    """A type as ROS 2 has called it since Dashing: before, and in ROS 1, ``sensor_msgs/Image`` had no ``msg``."""
    package, _, name = msgtype.partition("/")
    return f"{package}/msg/{name}" if name and "/" not in name else msgtype


def storage_files(path: Path) -> list[Path]:
    """The files of a bag in the order of recording: a folder's are numbered, ``drive_10.mcap`` is the eleventh."""
    if path.is_file():
        return [path]
    return sorted((f for f in path.iterdir() if f.suffix in (".mcap", ".db3")), key=lambda file: natural(file.name))


def missing_files(path: Path) -> list[str]:
    """The files of a folder that its metadata.yaml names and that are not there, itself where it cannot be read."""
    metadata = path / "metadata.yaml"
    if not metadata.is_file():
        return []
    try:
        named = read_yaml(metadata, "metadata", SourceError)["rosbag2_bagfile_information"]["relative_file_paths"]
        names = {PurePath(name).name for name in named}
    except (SourceError, KeyError, TypeError):
        return [metadata.name]
    return sorted(names - {file.name for file in storage_files(path)})


def salvage_messages(files: Sequence[Path], lost: list[str] | None = None) -> Iterator[SalvagedMessage]:
    """Every message of the storage files that is still whole, in file order; nothing from files of other kinds.

    Args:
        lost: is given what could not be read.
    """
    lost = [] if lost is None else lost
    for file in files:
        if file.suffix == ".mcap":
            yield from _mcap(file, lost)
        elif file.suffix == ".db3":
            yield from _sqlite(file, lost)
        elif file.suffix == ".bag":
            for topic, msgtype, recorded, data in ros1_messages(file, lost):
                yield SalvagedMessage(topic, msgtype, recorded, data)


def _mcap(path: Path, lost: list[str]) -> Iterator[SalvagedMessage]:
    schemas: dict[int, str] = {}
    channels: dict[int, _McapChannel] = {}
    as_ros2 = Migration()
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            lost.append("all")
            return
        for code, body in _records(stream, path.stat().st_size, lost):
            try:
                if code == _SCHEMA:
                    schemas[_u16(body, 0)] = _text(body, 2)[0]
                elif code == _CHANNEL:
                    channels[_u16(body, 0)] = _mcap_channel(body, schemas.get(_u16(body, 2), ""))
                elif code == _MESSAGE:
                    recorded = struct.unpack_from("<Q", body, 6)[0]
                    channel = channels[_u16(body, 0)]
                    data = as_ros2(channel.msgtype, body[22:]) if channel.of_ros1 else plain(body[22:])
                    yield SalvagedMessage(channel.topic, channel.msgtype, recorded, data)
            except Exception:  # noqa: BLE001 - bytes that are no record, or of no channel; the next may be one
                lost.append("a record")
        stream.seek(-len(_MAGIC), io.SEEK_END)
        if stream.read() != _MAGIC:
            lost.append("the end")


@dataclass(frozen=True)
class _McapChannel:
    topic: str
    msgtype: str
    of_ros1: bool


def _mcap_channel(body: bytes, schema: str) -> _McapChannel:
    topic, end = _text(body, 4)
    encoding = _text(body, end)[0]
    msgtype = ros2_name(schema) if encoding in ("cdr", "ros1", "") else f"{schema} in {encoding}"
    return _McapChannel(topic, msgtype, encoding == "ros1")


def _records(stream: BinaryIO, size: int, lost: list[str], in_chunk: bool = False) -> Iterator[tuple[int, bytes]]:
    """(opcode, body) of every whole record, those inside chunks in their place."""
    while True:
        head = stream.read(9)
        if in_chunk and not head:
            return
        if len(head) < 9 or (in_chunk and head[0] == _DATA_END):
            lost.append("the end")
            return
        if head[0] == _DATA_END:
            return
        length = struct.unpack_from("<Q", head, 1)[0]
        if length > size - stream.tell():
            lost.append("a record")
            return
        body = stream.read(length)
        if head[0] == _CHUNK:
            # None may lie in another; a kilobyte of such would stand for years of unpacking.
            content = None if in_chunk else _unpack_chunk(body, lost)
            if content is None:
                lost.append("a chunk")
            else:
                yield from _records(io.BytesIO(content), len(content), lost, in_chunk=True)
        else:
            yield head[0], body


def _unpack_chunk(body: bytes, lost: list[str]) -> bytes | None:
    """The records of a chunk; None where its bytes are not those that were written."""
    try:
        compression, start = _text(body, 28)
        packed, checksum = body[start + 8 :], struct.unpack_from("<I", body, 24)[0]
        content = unpack(compression, packed) if compression else packed
    except Exception:  # noqa: BLE001 - each decompressor has its own
        return None
    if checksum and zlib.crc32(content) != checksum:
        lost.append("a part of a chunk")
        # Uncompressed, what lies before and behind the damage can still be read.
        return None if compression else content
    return content


def _u16(body: bytes, at: int) -> int:
    value: int = struct.unpack_from("<H", body, at)[0]
    return value


def _text(body: bytes, at: int) -> tuple[str, int]:
    """The length-prefixed string at ``at``, and where it ends."""
    end = at + 4 + struct.unpack_from("<I", body, at)[0]
    return body[at + 4 : end].decode(), end


def out_of_steps(file: Path) -> Callable[[], bool]:
    """For a connection to a SQLite file as its progress handler, to be called every ``STRIDE`` instructions.

    Pages may refer to one another in such a way that a few kilobytes stand for more rows than can ever be counted.
    """
    left = (_STEPS + _STEPS_PER_BYTE * file.stat().st_size) // STRIDE
    calls = count(1)
    return lambda: next(calls) > left


def sqlite_uri(file: Path) -> str:
    """How SQLite is to open a file: as it is, which works where nothing can be written and leaves nothing there.

    A recorder that writes ahead (rosbag2's preset ``resilient``) and was killed has left messages in a log beside it,
    which only SQLite can put in their places.
    """
    return f"{file.absolute().as_uri()}?{'mode=ro' if _left(file, 'wal') else 'immutable=1'}"


def _left(file: Path, kind: str) -> bool:
    beside = file.with_name(f"{file.name}-{kind}")
    return beside.is_file() and beside.stat().st_size > 0


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(sqlite_uri(file), uri=True)
    connection.set_progress_handler(out_of_steps(file), STRIDE)
    return connection


def refuse_views(file: Path) -> None:
    """Let a SQLite bag pass whose tables are tables: a view called ``messages`` may never come to an end, and a column
    that is computed may hold a gigabyte in every row.

    Raises:
        SourceError: it has a view, or what is like one; or topics without a name; or its recorder was killed while it
            changed the file, or left a log that cannot be read where it is.
        sqlite3.DatabaseError: it is damaged.
    """
    if _left(file, "journal"):
        raise SourceError(f"its recorder was ended in the middle of writing, {file.name}-journal is still there")
    connection = _connect(file)
    try:
        views = _views(connection)
        unnamed = not views and connection.execute(_UNNAMED).fetchone()
    except sqlite3.OperationalError as error:
        if not _left(file, "wal"):
            raise
        why = f"SQLite must write beside {file.name}-wal to read it ({error}): copy the bag to a folder where it can"
        raise SourceError(why) from error
    finally:
        connection.close()
    if views:
        raise SourceError(f"bag {file} has views ({', '.join(views)}), rosbag2 writes only tables")
    if unnamed:
        raise SourceError(f"bag {file} has topics whose name or type is no text")


def _views(connection: sqlite3.Connection) -> list[str]:
    """Names of views, virtual tables and tables with computed columns."""
    # SQLite obeys the statement, whatever the type beside it says; it writes the beginnings of those of its own so.
    views = [
        str(name)
        for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")
        if sql is not None and not str(sql).startswith(_STORED)
    ]
    columns = "SELECT DISTINCT m.name FROM sqlite_master AS m, pragma_table_xinfo(m.name) AS x WHERE x.hidden > 0"
    return views or [str(name) for (name,) in connection.execute(columns)]


def _sqlite(path: Path, lost: list[str]) -> Iterator[SalvagedMessage]:
    connection = _connect(path)
    try:
        # Lets SQLite open a file that is shorter than its header says.
        connection.execute("PRAGMA writable_schema = ON")
        if _left(path, "journal"):
            lost.append("what was being written")
        if _views(connection):
            lost.append("all")
            return
        rows = connection.execute("SELECT id, name, type FROM topics")
        # SQLite takes any value in any column.
        named = (row for row in rows if isinstance(row[1], str) and isinstance(row[2], str))
        topics = {number: (topic, ros2_name(msgtype)) for number, topic, msgtype in named}
        for topic_id, recorded, data in _rows(connection, path.stat().st_size // _LEAST_ROW, lost):
            if topic_id in topics and isinstance(recorded, int) and isinstance(data, bytes):
                yield SalvagedMessage(*topics[topic_id], recorded, plain(data))
            else:
                lost.append("a message")
    except sqlite3.DatabaseError:
        lost.append("all")  # not even the list of topics could be read
    finally:
        connection.close()


def _rows(connection: sqlite3.Connection, most: int, lost: list[str]) -> Iterator[tuple[int, int, bytes]]:
    """The messages in order of their ids, without those that lie in damaged pages, which are at most so many."""
    try:
        last = connection.execute("SELECT max(id) FROM messages NOT INDEXED").fetchone()[0] or 0
    except sqlite3.DatabaseError:
        last = 0  # the end is gone: behind the first page that is lost comes nothing more
        lost.append("the end")
    done = missing = 0
    query = "SELECT id, topic_id, timestamp, data FROM messages NOT INDEXED WHERE id > ? ORDER BY id"
    while True:
        try:
            for number, topic_id, recorded, data in connection.execute(query, (done,)):
                if number <= done:
                    lost.append("the rest")
                    return  # not in order: the pages are no tree, and may have no end
                done = number
                yield topic_id, recorded, data
            return
        except sqlite3.DatabaseError:
            lost.append("a message")
        try:  # sqlite3 looks one row ahead: what it found damaged may be the one after the next
            found = connection.execute(f"{query} LIMIT 1", (done,)).fetchone()
        except sqlite3.DatabaseError:
            done, missing = done + 1, missing + 1
            if done >= last or missing > most:  # ids may have gaps of any size
                return
        else:
            if found is None:
                return
            done = found[0]
            yield found[1:]
