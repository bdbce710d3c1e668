"""Decompression that stops: what a bag's chunk, or a message in it, may unpack to has a limit.

A kilobyte of zstd or bzip2 can stand for gigabytes. rosbags unpacks in one piece; its tables of decompressors are
replaced by these before a bag is opened.
"""

from __future__ import annotations

import bz2
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from drive_seg.errors import MissingDependency, pip_install

MAX_UNPACKED = 1 << 29
"""512 MiB: more than the largest image that is accepted takes."""


def unpack(kind: str, data: bytes, limit: int = MAX_UNPACKED) -> bytes:
    """The content of ``data``.

    Args:
        kind: ``bz2``, ``lz4`` (frames) or ``zstd``.

    Raises:
        ValueError: it is longer than ``limit`` or cut short; nothing beyond the limit was unpacked.
        Exception: what the decompressor raises for damaged data, each its own.
    """
    make, pieces, size = _DECOMPRESSORS[kind], [], 0
    while data:
        decompressor = make()
        piece = decompressor.decompress(data, max_length=limit - size + 1)
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise ValueError(f"{kind} data of {len(data)} bytes unpacks to more than the limit of {limit} bytes")
        if not decompressor.eof:
            raise ValueError(f"{kind} data of {len(data)} bytes is cut short")
        data = decompressor.unused_data
    return b"".join(pieces)


_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def plain(message: bytes | memoryview) -> bytes | memoryview:
    """A serialised (CDR) message, unpacked where rosbag2 compressed each by itself: only the metadata says so, which an
    unclosed bag does not have. CDR begins with a zero. What cannot be unpacked is left as it is."""
    if message[:4] != _ZSTD_MAGIC:
        return message
    try:
        return unpack("zstd", bytes(message))
    except Exception:  # noqa: BLE001 - whoever decodes it finds that it is damaged
        return message


def _lz4() -> Any:
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor()


def _zstd() -> Any:
    return _zstd_module().ZstdDecompressor()


def _zstd_module() -> Any:
    """The one that rosbags takes."""
    return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {"bz2": bz2.BZ2Decompressor, "lz4": _lz4, "zstd": _zstd}


class _BoundedZstd:
    """Stands in for the module zstd where rosbags unpacks single messages; all else is the module's."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def decompress(self, data: bytes) -> bytes:
        return unpack("zstd", data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _BoundedSqlite:
    """Stands in for the module apsw where rosbags opens SQLite files, with the log that a killed recorder left, and
    queries that come to an end; all else is the module's."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def Connection(self, uri: str, **options: Any) -> Any:  # noqa: N802 - it has the module's name
        from drive_seg.offline.salvage import STRIDE, out_of_steps, sqlite_uri

        file = Path(unquote(uri.removeprefix("file:").partition("?")[0]))
        connection = self._module.Connection(sqlite_uri(file), **options)
        connection.set_progress_handler(out_of_steps(file), STRIDE)
        return connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def bound_rosbags() -> None:
    """Give rosbags decompressors with a limit, have it look at SQLite files before it asks them anything, and let no
    query take for ever; a second call does nothing.

    Raises:
        MissingDependency: rosbags is not installed, or a release before 0.11.7, which is built otherwise.
    """
    from drive_seg.offline.salvage import refuse_views

    try:
        from rosbags.rosbag1 import reader as ros1
        from rosbags.rosbag2 import storage_mcap as mcap

        ros2: Any = importlib.import_module("rosbags.rosbag2.reader")  # its zstd is no public name
        bounded = isinstance(ros2.zstd, _BoundedZstd)
        _zstd_module()
    except (ImportError, AttributeError) as error:
        raise MissingDependency("rosbags>=0.11.7", "reading and writing bags", pip_install(extra="offline")) from error
    if bounded:
        return
    for kind in ("lz4", "zstd"):
        # A chunk states its size; that it is no lie is checked by rosbags, that it is no bomb here.
        mcap.DECOMPRESSORS[kind] = lambda data, size, kind=kind: unpack(kind, data, min(size, MAX_UNPACKED))  # type: ignore[misc]
    for kind in ("lz4", "bz2"):
        ros1.decompressors[kind] = lambda data, kind=kind: unpack(kind, data)  # type: ignore[misc]
    ros2.zstd = _BoundedZstd(ros2.zstd)
    storage: Any = importlib.import_module("rosbags.rosbag2.storage_sqlite3")
    storage.apsw = _BoundedSqlite(storage.apsw)
    sqlite = storage.Sqlite3Reader
    open_file = sqlite.open

    def open_plain(self: Any) -> None:
        # Only here the file is known for sure: metadata may give it any name, and it may have been compressed.
        path = self.path
        refuse_views(path)
        self.path = Path(quote(str(path)))  # it goes into a URI as it is, where #, ? and % mean something else
        try:
            open_file(self)
        finally:
            self.path = path

    sqlite.open = open_plain
    _see_all_messages(mcap.McapReader)
    _believe_metadata(ros2.DirectoryReader)


def _see_all_messages(reader: Any) -> None:
    """Have MCAP files read from front to back where they have no index of messages, or their summary repeats no
    channels or schemas: rosbags takes them for empty. So are files without chunks, whatever the order of their times:
    rosbag2 writes as messages come (preset ``fastwrite``), and rosbags would stop at the first that is late."""
    read_index, messages = reader.read_index, reader.messages

    def read_whole_index(self: Any) -> None:
        read_index(self)
        if any(not chunk.message_index_offsets for chunk in self.chunks):
            self.chunks.clear()
        told, used = self.statistics, {channel for chunk in self.chunks for channel in chunk.message_index_offsets}
        left_out = told and (told.schema_count > len(self.schemas) or told.channel_count > len(self.channels))
        if left_out or used - self.channels.keys() or (self.channels and not self.schemas):
            self.connections.clear()
            self.meta_scan()

    def messages_in_any_order(self: Any, connections: Any, start: int | None = None, stop: int | None = None) -> Any:
        return (messages if self.chunks else reader.messages_scan)(self, connections, start, stop)

    reader.read_index, reader.messages = read_whole_index, messages_in_any_order


def _believe_metadata(reader: Any) -> None:
    """Have a topic's messages found whatever metadata.yaml says of its QoS and hash: users edit the one to have a bag
    played with another, and rosbags passes over topics of which a file says otherwise."""
    open_folder = reader.open

    def open_as_described(self: Any) -> None:
        open_folder(self)
        for storage in self.storages:
            for index, stored in enumerate(storage.connections):
                named = [c for c in self.connections if (c.topic, c.msgtype) == (stored.topic, stored.msgtype)]
                if len(named) == 1:
                    storage.connections[index] = stored._replace(ext=named[0].ext, digest=named[0].digest)

    reader.open = open_as_described
