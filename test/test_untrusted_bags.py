"""Bags from outside: bombs, lies about sizes, definitions that are traps."""

from __future__ import annotations

import bz2
import resource
import sqlite3
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import write_bag, write_ros1_bag

from drive_seg.errors import SourceError
from drive_seg.labels import DRIVING
from drive_seg.offline.bags import BagSource
from drive_seg.offline.salvage import salvage_messages
from drive_seg.offline.truth import open_truth
from drive_seg.offline.unpack import bound_rosbags, unpack

pytest.importorskip("rosbags", reason="rosbags is not installed")
import lz4.frame

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

PACKERS = {"bz2": bz2.compress, "lz4": lz4.frame.compress, "zstd": zstd.compress}


def peak_mb() -> int:
    """Most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.mark.parametrize("kind", PACKERS)
def test_unpacking_gives_what_was_packed_and_stops_at_the_limit(kind: str) -> None:
    content = bytes(range(256)) * 40
    packed = PACKERS[kind](content)
    assert unpack(kind, packed) == unpack(kind, packed, len(content)) == content
    assert unpack(kind, packed + packed) == 2 * content
    with pytest.raises(ValueError, match=f"more than the limit of {len(content) - 1} bytes"):
        unpack(kind, packed, len(content) - 1)
    with pytest.raises(ValueError, match="cut short"):
        unpack(kind, packed[:-5])
    before, bomb = peak_mb(), PACKERS[kind](bytes(1 << 26))
    with pytest.raises(ValueError, match="limit"):
        unpack(kind, bomb, 1 << 16)
    assert unpack(kind, b"") == b"" and peak_mb() - before < 200


def test_rosbags_unpacks_through_it() -> None:
    from rosbags.rosbag1 import reader as ros1
    from rosbags.rosbag2 import reader as ros2
    from rosbags.rosbag2 import storage_mcap as mcap

    bound_rosbags()
    bound_rosbags()
    for kind in ("lz4", "zstd"):
        packed = PACKERS[kind](bytes(1000))
        assert mcap.DECOMPRESSORS[kind](packed, 1000) == bytes(1000)
        with pytest.raises(ValueError, match="limit of 999"):
            mcap.DECOMPRESSORS[kind](packed, 999)
    assert ros1.decompressors["bz2"](PACKERS["bz2"](b"abc")) == b"abc"
    assert ros1.decompressors["lz4"](PACKERS["lz4"](b"abc")) == b"abc"
    assert ros2.zstd.decompress(PACKERS["zstd"](b"abc")) == b"abc" and callable(ros2.zstd.open)


def record(code: int, body: bytes) -> bytes:
    """An MCAP record."""
    return struct.pack("<BQ", code, len(body)) + body


def text(value: str) -> bytes:
    """A string with its length."""
    return struct.pack("<I", len(value)) + value.encode()


def test_a_chunk_that_is_a_bomb_is_left_out_of_a_salvage(tmp_path: Path) -> None:
    """A cut-off MCAP whose chunk says it has 100 bytes and unpacks to 3 GB."""
    packed = b"".join(PACKERS["zstd"](bytes(1 << 27)) for _ in range(24))
    chunk = struct.pack("<QQQI", 0, 1, 100, 0) + text("zstd") + struct.pack("<Q", len(packed)) + packed
    path = tmp_path / "bomb.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + record(1, text("ros2") + text("x")) + record(6, chunk))
    before = peak_mb()
    with pytest.raises(SourceError, match="no readable image topic"):
        BagSource(path)
    assert peak_mb() - before < 1200


def ros1_record(fields: dict[bytes, bytes], data: bytes) -> bytes:
    """A record of a ROS 1 bag."""
    named = [name + b"=" + value for name, value in fields.items()]
    header = b"".join(struct.pack("<I", len(field)) + field for field in named)
    return struct.pack("<I", len(header)) + header + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize("kind", ["mcap", "bag"])
def test_chunks_in_chunks_are_not_unpacked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level multiplies what is to be unpacked, and a thousand of them are too deep to follow."""

    def chunk(content: bytes) -> bytes:
        packed = PACKERS["bz2" if kind == "bag" else "zstd"](content)
        if kind == "bag":
            return ros1_record({b"op": b"\x05", b"compression": b"bz2", b"size": bytes(4)}, packed)
        return record(6, struct.pack("<QQQI", 0, 1, len(content), 0) + text("zstd") + blob(packed))

    def blob(packed: bytes) -> bytes:
        return struct.pack("<Q", len(packed)) + packed

    unpacked = []

    def counting(*given: Any) -> bytes:
        unpacked.append(given)
        return unpack(*given)

    for module in ("salvage", "salvage_ros1"):
        monkeypatch.setattr(f"drive_seg.offline.{module}.unpack", counting)
    path = tmp_path / f"deep.{kind}"
    begin = b"\x89MCAP0\r\n" + record(1, text("ros2") + text("x")) if kind == "mcap" else b"#ROSBAG V2.0\n"
    path.write_bytes(begin + chunk(chunk(chunk(b"") * 20) * 20))
    with pytest.raises(SourceError, match="no readable image topic"):
        BagSource(path)
    assert len(unpacked) == 1


def test_definitions_of_a_bag_are_not_believed(tmp_path: Path) -> None:
    """A definition of Image with an array of a hundred million messages would keep the decoder's generator busy."""
    path = write_bag(tmp_path / "bag", 2)
    data = path.read_bytes()
    at = data.index(b"uint32 height")
    trap = b"Header[99999999] h #"
    assert data.count(b"uint32 height") >= 1
    changed = data.replace(data[at : at + len(trap)], trap)
    assert len(changed) == len(data) and changed != data
    path.write_bytes(changed)
    assert len(list(BagSource(path))) == 2


def test_a_table_that_never_ends_is_refused(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 2, storage="sqlite3")
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE messages RENAME TO real")
        connection.execute(
            "CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT i AS id, topic_id, timestamp, data FROM n, real"
        )
    connection.close()
    with pytest.raises(SourceError, match=r"has views \(messages\), rosbag2 writes only tables"):
        BagSource(path)


VIEW = "CREATE VIEW messages AS SELECT * FROM real"
LARGE = (
    "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
    "data BLOB AS (zeroblob(100000000)))"
)


@pytest.mark.parametrize("statement", [VIEW, LARGE], ids=["a view that says it is a table", "a computed column"])
def test_tables_that_are_none_in_disguise_are_refused(statement: str, tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 2, storage="sqlite3")
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE messages RENAME TO real")
        connection.execute(statement)
        if statement is LARGE:
            connection.execute("INSERT INTO messages SELECT id, topic_id, timestamp FROM real")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET type = 'table' WHERE name = 'messages'")
    connection.close()
    with pytest.raises(SourceError, match="no readable image topic"):
        list(BagSource(path))


@pytest.mark.parametrize("packed", [False, True])
def test_the_name_of_a_file_says_nothing(packed: bool, tmp_path: Path) -> None:
    """The metadata of a bag may call it anything."""
    path = write_bag(tmp_path / "bag", 2, storage="sqlite3", packed="file" if packed else "none")
    content = zstd.decompress(path.read_bytes()) if packed else path.read_bytes()
    plain = tmp_path / "plain.db3"
    plain.write_bytes(content)
    with sqlite3.connect(plain) as connection:
        connection.execute("ALTER TABLE messages RENAME TO real")
        connection.execute(LARGE)
        connection.execute("INSERT INTO messages SELECT id, topic_id, timestamp FROM real")
    connection.close()
    content = plain.read_bytes()
    path.unlink()
    (path.parent / "strange").write_bytes(zstd.compress(content) if packed else content)
    metadata = path.parent / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(path.name, "strange"))
    with pytest.raises(SourceError, match=r"views \(messages\)"):
        BagSource(path.parent)


@pytest.mark.parametrize(
    "change",
    ["UPDATE topics SET name = x'ff00'", "UPDATE topics SET type = x'07'", "UPDATE messages SET timestamp = 'noon'"],
)
def test_columns_of_other_types_are_damage(change: str, tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", 2, storage="sqlite3")
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(SourceError, match=r"bag\.db3 has no readable image topic"):
        list(BagSource(path))
    with pytest.raises(SourceError, match=r"bag\.db3"):
        open_truth(str(path), DRIVING)


def replaced(old: bytes, new: bytes, later: int = 0) -> Callable[[bytes], bytes]:
    """A file whose bytes so many behind ``old`` are others."""

    def change(data: bytes) -> bytes:
        at = data.index(old) + later
        return data[:at] + new + data[at + len(new) :]

    return change


def with_checksum(data: bytes) -> bytes:
    """As rosbag2 writes them, of an MCAP file whose only chunk is not compressed."""
    content = data[92 : 92 + struct.unpack_from("<Q", data, 84)[0]]
    return replaced(b"", struct.pack("<I", zlib.crc32(content)), 76)(data)


@pytest.mark.parametrize(
    ("kind", "change", "got", "lost"),
    [
        ("mcap none", bytes, 3, set()),
        ("mcap storage", bytes, 3, set()),
        ("mcap none", with_checksum, 3, set()),
        ("mcap none", lambda data: data[:-1], 3, {"the end"}),
        ("mcap none", lambda data: data[: len(data) // 2], 0, {"a record", "the end"}),
        ("mcap none", replaced(b"", b"Rosbag"), 0, {"all"}),
        ("mcap none", replaced(b"/front", b"??", -8), 0, {"a record"}),
        ("mcap none", replaced(b"", b"crc!", 76), 3, {"a part of a chunk"}),
        ("mcap storage", replaced(b"zstd", b"crc!", -8), 0, {"a chunk", "a part of a chunk"}),
        ("mcap storage", replaced(b"zstd", b"????", 60), 0, {"a chunk"}),
        ("ros1 none", bytes, 4, set()),
        ("ros1 bz2", bytes, 4, set()),
        ("ros1 none", replaced(b"index_pos=", bytes(8), 10), 4, {"the end"}),
        ("ros1 none", lambda data: data[: len(data) // 2], 0, {"the end"}),
        ("ros1 none", lambda data: data + b"??", 4, {"the end"}),
        ("ros1 none", replaced(b"", b"bag"), 0, {"all"}),
        ("ros1 none", replaced(b"topic=", b"ny_pic"), 1, {"a record"}),
        ("ros1 bz2", replaced(b"BZh", b"????"), 0, {"a chunk"}),
        ("sqlite3 none", bytes, 3, set()),
        ("sqlite3 none", "UPDATE messages SET timestamp = 'noon' WHERE id = 2", 2, {"a message"}),
        ("sqlite3 none", "UPDATE messages SET data = 'rain' WHERE id = 2", 2, {"a message"}),
        ("sqlite3 none", "UPDATE topics SET type = x'07'", 0, {"a message"}),
        ("sqlite3 none", "CREATE VIEW more AS SELECT * FROM messages", 0, {"all"}),
        ("sqlite3 none", "DROP TABLE topics", 0, {"all"}),
    ],
)
def test_a_salvage_tells_what_it_could_not_get(
    kind: str, change: Any, got: int, lost: set[str], tmp_path: Path
) -> None:
    """Else a bag of which much is gone, and that rosbags refuses for another reason, would be taken for a whole one."""
    storage, packed = kind.split()
    path = tmp_path / "bag.bag"
    if storage == "ros1":
        write_ros1_bag(path, 3, compression=packed.replace("none", ""))
    else:
        path = write_bag(tmp_path / "bag", 3, storage, packed=packed)
    if isinstance(change, str):
        with sqlite3.connect(path) as connection:
            connection.execute(change)
        connection.close()
    else:
        path.write_bytes(change(path.read_bytes()))
    said: list[str] = []
    assert len(list(salvage_messages([path], said))) == got
    assert set(said) == lost


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=9)), min_size=1, max_size=5))
def test_any_damaged_bag_ends(edits: list[tuple[int, bytes]], tmp_path: Path) -> None:
    path = tmp_path / "bag"
    file = next(iter(path.glob("*.mcap"))) if path.is_dir() else write_bag(path, 2, compressed=True)
    whole = file.read_bytes()
    data = bytearray(whole)
    for at, piece in edits:
        # Near the end, where the index is, or near the start, where the definitions are.
        place = at % len(data) if at % 2 else len(data) - 1 - at % min(2000, len(data))
        data[place : place + len(piece)] = piece
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(bytes(data))
    try:
        for entry in BagSource(damaged):
            assert entry is not None
    except SourceError as error:
        assert "damaged.mcap" in str(error)  # noqa: PT017


def loop_pages(path: Path, table: str, levels: int, fan: int = 40) -> None:
    """Put pages above the only one of a table, each with many references to the next: fan ** levels rows."""
    with sqlite3.connect(path) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.close()
    data = path.read_bytes()
    count, leaf = len(data) // size, data[(root - 1) * size : root * size]
    numbers = [root, *range(count + 1, count + 1 + levels)]
    pages = {numbers[-1]: leaf}
    for number, child in pairwise(numbers):
        start = size - 5 * fan
        places = struct.pack(f">{fan}H", *range(start, size, 5))
        head = struct.pack(">BHHHBI", 5, 0, fan, start, 0, child) + places
        pages[number] = head.ljust(start, b"\0") + struct.pack(">IB", child, 1) * fan
    whole = bytearray(data + bytes(size * levels))
    for number, page in pages.items():
        whole[(number - 1) * size : number * size] = page
    whole[28:32] = struct.pack(">I", count + levels)
    path.write_bytes(whole)


def small_bag(path: Path, rows: dict[int, bytes]) -> None:
    """A SQLite bag with pages of 512 bytes and these messages by id."""
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, serialization_format, x)")
        connection.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data)")
        connection.execute("INSERT INTO topics VALUES (1, '/image_raw', 'sensor_msgs/msg/Image', 'cdr', '')")
        connection.executemany("INSERT INTO messages VALUES (?, 1, 5, ?)", rows.items())
    connection.close()


@pytest.mark.parametrize(
    ("table", "says"), [("messages", "1 image of /image_raw could be read"), ("topics", "no readable image topic")]
)
def test_a_few_pages_that_stand_for_endless_rows_are_given_up(table: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bag.db3"
    small_bag(path, {1: b"\0\1\0\0"})
    loop_pages(path, table, 15)
    assert path.stat().st_size < 10_000
    with pytest.raises(SourceError, match=says):
        list(BagSource(path))


def test_ids_far_apart_do_not_make_damage_endless(tmp_path: Path) -> None:
    path = tmp_path / "bag.db3"
    small_bag(path, {1: b"\1" * 4000, 2: b"\2" * 4000, 1 << 60: b"\3" * 4000})
    data = bytearray(path.read_bytes())
    page = data.index(b"\3" * 500) // 512 * 512
    data[page : page + 4] = b"\xff" * 4  # the number of the page that goes on with the last message
    path.write_bytes(data)
    assert [message.data[0] for message in salvage_messages([path])] == [1, 2]


def test_the_message_before_a_damaged_one_is_not_lost_with_it(tmp_path: Path) -> None:
    path = tmp_path / "bag.db3"
    small_bag(path, {number: bytes([number]) * 4000 for number in range(1, 7)})
    data = bytearray(path.read_bytes())
    for lost in (3, 6):
        page = data.index(bytes([lost]) * 500) // 512 * 512
        data[page : page + 4] = b"\xff" * 4  # the number of the page that goes on with it
    path.write_bytes(data)
    said: list[str] = []
    assert [message.data[0] for message in salvage_messages([path], said)] == [1, 2, 4, 5]
    assert set(said) == {"a message"}
