"""Bags as other tools write them, and as their recorders leave them when they are killed."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import drive_seg
from recordings import image_message, picture, stamp_of, write_bag

pytest.importorskip("rosbags", reason="rosbags is not installed")

from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from drive_seg.decode import decode, decode_rgb
from drive_seg.errors import SourceError
from drive_seg.frame import Frame
from drive_seg.offline.bag_images import bag_messages, bag_topics
from drive_seg.offline.bag_writer import BagFile
from drive_seg.offline.bags import BagCopy, BagSource, Beside
from drive_seg.offline.passage import Passage
from drive_seg.offline.sources import open_source, origin_of

COUNT = 6
IMAGE = "sensor_msgs/msg/Image"


def stamps(bag: BagSource) -> list[int]:
    return [frame.stamp_ns for frame in bag]


def recorded(first: int, last: int) -> list[int]:
    return [stamp_of(number) for number in range(first, last)]


def killed_recorder(file: Path, folder: Path, journal: str, committed: int) -> Path:
    """A recorder's folder in the middle of its work on what ``file`` has, of which so many messages are committed."""
    recording = folder.with_name("recording")
    recording.mkdir()
    shutil.copy(file, recording / "drive_0.db3")
    database = sqlite3.connect(recording / "drive_0.db3", isolation_level=None)
    rows = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
    database.execute("DELETE FROM messages")
    database.execute("VACUUM")
    database.execute(f"PRAGMA journal_mode = {journal}")
    database.execute("PRAGMA cache_size = 1")  # what is not committed is in the file as well
    database.execute("BEGIN")
    for number, row in enumerate(rows):
        if number == committed:
            database.execute("COMMIT")
            database.execute("BEGIN")
        database.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    shutil.copytree(recording, folder)
    database.close()
    return folder


def test_what_a_killed_recorder_left_in_its_log_is_read(tmp_path: Path) -> None:
    """rosbag2's preset ``resilient`` writes ahead: most of a short bag is in drive_0.db3-wal."""
    file = write_bag(tmp_path / "in", COUNT, "sqlite3")
    folder = killed_recorder(file, tmp_path / "left", "WAL", committed=4)
    assert (folder / "drive_0.db3-wal").stat().st_size > 0
    for bag in (folder, folder / "drive_0.db3"):
        assert stamps(BagSource(bag)) == recorded(0, 4)


def test_what_a_recorder_wrote_until_it_was_killed_is_read_then_one_error(tmp_path: Path) -> None:
    file = write_bag(tmp_path / "in", COUNT, "sqlite3")
    folder = killed_recorder(file, tmp_path / "left", "DELETE", committed=4)
    assert (folder / "drive_0.db3-journal").stat().st_size > 0
    bag = BagSource(folder)
    assert bag.count is not None
    entries = iter(bag)
    found = [entry.stamp_ns for entry in islice(entries, bag.count)]
    assert found[:4] == recorded(0, 4)
    with pytest.raises(SourceError, match=r"is cut short: [456] images .* drive_0\.db3-journal is still there"):
        next(entries)


def test_nothing_is_made_beside_a_bag_that_was_written_ahead(tmp_path: Path) -> None:
    """Where nothing can be written, on a disk of somebody else, it could not be read at all."""
    file = write_bag(tmp_path / "in", COUNT, "sqlite3")
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode = WAL")
    database.close()
    before = sorted(file.parent.iterdir())
    assert stamps(BagSource(file)) == stamps(BagSource(file.parent)) == recorded(0, COUNT)
    assert sorted(file.parent.iterdir()) == before


def text(value: str | bytes) -> bytes:
    """A string of MCAP."""
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<I", len(data)) + data


def record(code: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<BQ", code, len(body)) + body


def write_mcap(
    path: Path,
    profile: str = "ros2",
    order: Sequence[int] = range(COUNT),
    chunked: bool = True,
    repeated: str = "schemas channels statistics",
    indexed: bool = True,
    beside: tuple[str, str, bytes] | None = None,
    ros1: bool = False,
) -> Path:
    """Pictures on /front/image_raw as an MCAP file with its index, as the libraries of MCAP write it.

    Args:
        order: of the pictures in the file.
        chunked: else the messages follow one another, as with rosbag2's preset ``fastwrite``.
        repeated: what the summary has besides the index of chunks.
        indexed: whether there is one of messages as well.
        beside: a topic /beside of one message: encoding of the schema, encoding of the message, schema.
        ros1: the pictures are messages of ROS 1, as in a bag of it that the tool ``mcap convert`` made MCAP.
    """
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    definition, _ = store.generate_msgdef(IMAGE, ros_version=1 if ros1 else 2)
    name, syntax, encoding = ("sensor_msgs/Image", "ros1msg", "ros1") if ros1 else (IMAGE, "ros2msg", "cdr")
    serialise = store.serialize_ros1 if ros1 else store.serialize_cdr
    schemas = [record(3, struct.pack("<H", 1), text(name), text(syntax), text(definition))]
    channels = [record(4, struct.pack("<HH", 1, 1), text("/front/image_raw"), text(encoding), text(b""))]
    messages = []
    for number in order:
        times = struct.pack("<HIQQ", 1, number, stamp_of(number) + 5_000_000, stamp_of(number))
        messages.append(record(5, times, bytes(serialise(image_message(store, IMAGE, number), IMAGE))))
    if beside is not None:
        schemas.append(record(3, struct.pack("<H", 2), text("tool/msg/Note"), text(beside[0]), text(beside[2])))
        channels.append(record(4, struct.pack("<HH", 2, 2), text("/beside"), text(beside[1]), text(b"")))
        messages.append(record(5, struct.pack("<HIQQ", 2, 0, stamp_of(COUNT), 0), b"\0\1\0\0" + bytes(8)))
    first, last = stamp_of(0) + 5_000_000, stamp_of(COUNT)
    content = b"".join(schemas + channels + messages)
    out = b"\x89MCAP0\r\n" + record(1, text(profile), text("test"))
    index = b""
    if chunked:
        packed = struct.pack("<Q", len(content)) + content
        chunk = record(6, struct.pack("<QQQI", first, last, len(content), zlib.crc32(content)), text(""), packed)
        where = struct.pack("<QQQQ", first, last, len(out), len(chunk))
        marks = record(7, struct.pack("<HI", 1, 16 * len(order)), bytes(16 * len(order))) if indexed else b""
        found = struct.pack("<IHQQ", 10, 1, len(out) + len(chunk), len(marks)) if indexed else struct.pack("<IQ", 0, 0)
        index = record(8, where, found, text(""), struct.pack("<QQ", len(content), len(content)))
        out += chunk + marks
    else:
        out += content
    out += record(15, struct.pack("<I", 0))
    counts = struct.pack("<IHQ", 10, 1, len(order)) if beside is None else struct.pack("<IHQHQ", 20, 1, COUNT, 2, 1)
    numbers = (len(messages), len(schemas), len(channels), 0, 0, int(chunked), first, last)
    summary = b"".join(schemas) if "schemas" in repeated else b""
    summary += b"".join(channels) if "channels" in repeated else b""
    summary += index
    summary += record(11, struct.pack("<QHIIIIQQ", *numbers), counts) if "statistics" in repeated else b""
    footer = record(2, struct.pack("<QQI", len(out) if summary else 0, 0, 0))
    path.write_bytes(out + summary + footer + b"\x89MCAP0\r\n")
    return path


@pytest.mark.parametrize("repeated", ["schemas channels statistics", "schemas statistics", "channels statistics", ""])
@pytest.mark.parametrize("in_folder", [False, True])
def test_channels_that_only_the_data_has_are_found(repeated: str, in_folder: bool, tmp_path: Path) -> None:
    """The summary of an MCAP file need not repeat them (rosbag2's options noRepeatedChannels and others)."""
    file = write_bag(tmp_path / "in", COUNT)
    write_mcap(file, repeated=repeated)
    bag = BagSource(file.parent if in_folder else file)
    assert stamps(bag) == recorded(0, COUNT)
    assert bag.count == COUNT


@pytest.mark.parametrize("repeated", ["schemas channels statistics", "schemas channels"])
def test_messages_without_an_index_are_found(repeated: str, tmp_path: Path) -> None:
    """An MCAP file may have an index of its chunks only (rosbag2's option noMessageIndex)."""
    bag = BagSource(write_mcap(tmp_path / "in.mcap", repeated=repeated, indexed=False))
    assert stamps(bag) == recorded(0, COUNT)
    assert bag.count == COUNT


def test_a_file_without_chunks_is_whole_whatever_the_order_of_its_times(tmp_path: Path) -> None:
    """rosbag2's preset ``fastwrite`` writes as messages come, of several topics now and then one late."""
    order = [0, 2, 1, *range(3, COUNT)]
    bag = BagSource(write_mcap(tmp_path / "in.mcap", order=order, chunked=False))
    assert stamps(bag) == [stamp_of(number) for number in order]
    assert bag.whole is not None


def change_topics(folder: Path, **changes: Any) -> None:
    """Edit what metadata.yaml says of every topic."""
    path = folder / "metadata.yaml"
    metadata = yaml.safe_load(path.read_text())
    for topic in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        topic["topic_metadata"].update(changes)
    path.write_text(yaml.safe_dump(metadata))


def profile(reliability: str) -> dict[str, Any]:
    never = {"sec": 9223372036, "nsec": 854775807}
    times = {"deadline": never, "lifespan": never, "liveliness_lease_duration": never}
    kinds = {"history": "keep_last", "reliability": reliability, "durability": "volatile", "liveliness": "automatic"}
    return {**kinds, **times, "depth": 5, "avoid_ros_namespace_conventions": False}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("qos", [[profile("best_effort")], yaml.safe_dump([profile("reliable")]), "", []])
def test_an_edited_profile_loses_no_image(storage: str, qos: Any, tmp_path: Path) -> None:
    """metadata.yaml is where users change the QoS that a bag is played with."""
    write_bag(tmp_path / "in", COUNT, storage)
    change_topics(tmp_path / "in", offered_qos_profiles=qos)
    assert stamps(BagSource(tmp_path / "in")) == recorded(0, COUNT)


def test_compressed_files_without_metadata_are_to_be_unpacked(tmp_path: Path) -> None:
    """A recorder that compresses files and is killed leaves the last one as it is; it alone is not the bag."""
    for part in range(3):
        packed = write_bag(
            tmp_path / f"part {part}", 2, "sqlite3", packed="none" if part == 2 else "file", first=2 * part
        )
        (tmp_path / "my drive").mkdir(exist_ok=True)
        packed.replace(tmp_path / "my drive" / f"drive_{part}.db3{packed.suffix.removeprefix('.db3')}")
    with pytest.raises(SourceError, match=r"never closed: do zstd -d --rm '.*my drive'/\*\.zstd"):
        open_source(tmp_path / "my drive")
    with pytest.raises(SourceError, match=r"give its folder .* or do: zstd -d '.*my drive/drive_0\.db3\.zstd'"):
        open_source(tmp_path / "my drive/drive_0.db3.zstd")


UNPARSABLE = b"module tool { module msg { union Note switch(long) { case 1: double x; }; }; };"


@pytest.mark.parametrize(
    ("profile", "beside"),
    [
        ("", None),
        ("ros2", ("jsonschema", "json", b"{}")),
        ("ros2", ("protobuf", "protobuf", b"\x0a\xff\xfe")),
        ("ros2", ("ros2idl", "cdr", UNPARSABLE)),
    ],
    ids=["no profile", "json", "protobuf", "a definition that cannot be parsed"],
)
def test_a_whole_file_is_whole_whatever_is_beside_its_images(profile: str, beside: Any, tmp_path: Path) -> None:
    """The libraries of MCAP set no profile by themselves, and Foxglove puts messages of other kinds beside ROS' own."""
    file = write_mcap(tmp_path / "in.mcap", profile, beside=beside)
    bag = BagSource(file)
    assert stamps(bag) == recorded(0, COUNT)
    assert bag.count == COUNT
    copied: list[object] = []
    with nullcontext() if beside is None else pytest.raises(SourceError, match="all but the messages of /beside could"):
        copied.extend(BagCopy(bag))
    assert sum(isinstance(entry, Passage) for entry in copied) == COUNT
    file.write_bytes(file.read_bytes()[:-100])
    entries = iter(BagSource(file))
    assert len(list(islice(entries, COUNT))) == COUNT
    with pytest.raises(SourceError, match=f"is cut short: {COUNT} images"):
        next(entries)


def test_a_hash_that_rosbags_computes_otherwise_is_no_damage(tmp_path: Path) -> None:
    write_bag(tmp_path / "in", COUNT)
    change_topics(tmp_path / "in", type_description_hash=f"RIHS01_{'0' * 64}")
    assert stamps(BagSource(tmp_path / "in")) == recorded(0, COUNT)


def test_a_file_that_metadata_names_and_that_is_gone_is_missed(tmp_path: Path) -> None:
    file = write_bag(tmp_path / "in", COUNT)
    metadata = file.parent / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(f"- {file.name}", f"- {file.name}\n  - gone.mcap"))
    entries = iter(BagSource(file.parent))
    assert len(list(islice(entries, COUNT))) == COUNT
    with pytest.raises(SourceError, match=rf"is cut short: {COUNT} images .*gone\.mcap"):
        next(entries)


def test_a_bag_without_images_says_what_it_has(tmp_path: Path) -> None:
    """Video of another kind, messages of another middleware: the types tell."""
    file = write_bag(tmp_path / "in", 1, "sqlite3")
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("UPDATE topics SET type = 'foxglove_msgs/msg/CompressedVideo'")
    database.close()
    says = (
        r"it has /front/image_raw \(foxglove_msgs/msg/CompressedVideo\); packets .* decoded first: ros2 run image_tra"
    )
    with pytest.raises(SourceError, match=says):
        BagSource(file)
    with pytest.raises(SourceError, match=r"it has /beside \(tool/msg/Note in protobuf\)$"):
        BagSource(write_mcap(tmp_path / "in.mcap", "", order=(), beside=("protobuf", "protobuf", b"")))


def test_a_topic_that_has_no_images_says_what_it_has(tmp_path: Path) -> None:
    file = write_bag(tmp_path / "in", 1, "sqlite3", others=("/rear/ffmpeg",))
    kind = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("UPDATE topics SET type = ? WHERE name = '/rear/ffmpeg'", (kind,))
    database.close()
    assert BagSource(file).topic == "/front/image_raw"
    with pytest.raises(SourceError, match=f"'/rear/ffmpeg', that is {kind}; packets .*; it has /front/image_raw"):
        BagSource(file, "/rear/ffmpeg")


def test_ros1_messages_in_an_mcap_file_are_read_and_copied_as_ros2(tmp_path: Path) -> None:
    file = write_mcap(tmp_path / "in.mcap", "ros1", ros1=True)
    bag = BagSource(file)
    frames = list(bag)
    assert bag.count == COUNT and [frame.stamp_ns for frame in frames] == recorded(0, COUNT)
    for number, frame in enumerate(frames):
        assert isinstance(frame, Frame) and (decode_rgb(decode(frame.image)) == picture(number)).all()
        assert origin_of(frame).frame_id == "front_optical"
    store = get_typestore(Stores.ROS2_HUMBLE)
    copied = [entry for entry in BagCopy(bag) if isinstance(entry, Passage)]
    assert [passage.channel.msgtype for passage in copied] == [IMAGE] * COUNT
    messages = [store.deserialize_cdr(passage.data, IMAGE) for passage in copied]
    assert [message.header.stamp.nanosec for message in messages] == [stamp_of(n) % 10**9 for n in range(COUNT)]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(SourceError, match=f"is cut short: {COUNT} images"):
        list(BagSource(file))


def test_types_under_the_names_they_had_before_dashing_are_known(tmp_path: Path) -> None:
    """Bags of ROS 2 Crystal: sensor_msgs/Image, as ROS 1 calls it."""
    file = write_bag(tmp_path / "in", COUNT, "sqlite3", others=("/truth/mask",))
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("UPDATE topics SET type = 'sensor_msgs/Image'")
    database.close()
    bag = BagSource(file)
    assert stamps(bag) == recorded(0, COUNT)
    assert sum(isinstance(entry, Passage) for entry in BagCopy(bag)) == 2 * COUNT
    assert bag_topics(file)["/truth/mask"].msgtype == IMAGE
    assert sum(1 for _ in bag_messages(file, ["/truth/mask"])) == COUNT
    beside = [entry.decode() for entry in bag.entries(beside=["/truth/mask"]) if isinstance(entry, Beside)]
    assert len(beside) == COUNT
    change_topics(file.parent, type="sensor_msgs/Image")
    assert stamps(BagSource(file.parent)) == recorded(0, COUNT)
    (file.parent / "metadata.yaml").write_text("none")
    with pytest.raises(SourceError, match=f"is cut short: {COUNT} images"):
        list(BagSource(file.parent))


IDL = b"module tool { module msg { struct Note { double x; }; }; };"


@pytest.mark.parametrize(
    ("beside", "copied"),
    [
        (("ros2idl", "cdr", IDL), 1),
        (("ros2msg", "cdr", b"float64 x"), 1),
        (("ros2msg", "cdr", b"other/Kind x"), 0),
        (("omgidl", "cdr", IDL.replace(b"Note", b"Memo")), 0),
    ],
    ids=["IDL without a heading", "msg", "of a type that is not defined", "of another type"],
)
def test_copies_of_other_tools_types_leave_the_bag_readable(
    beside: tuple[str, str, bytes], copied: int, tmp_path: Path
) -> None:
    source = BagSource(write_mcap(tmp_path / "in.mcap", beside=beside))
    bag = BagFile(tmp_path / "out.mcap")
    for entry in BagCopy(source):
        if isinstance(entry, Passage):
            bag.carry(entry)
    bag.close()
    with AnyReader([tmp_path / "out.mcap"]) as reader:
        read = [(c.topic, reader.deserialize(raw, c.msgtype)) for c, _, raw in reader.messages()]
    assert [topic for topic, _ in read].count("/front/image_raw") == COUNT
    assert [message.x for topic, message in read if topic == "/beside"] == [0.0] * copied


def write_ros1_bag_with_a_type_of_its_own(path: Path) -> None:
    """Whose hash is not the one of its definition: some recorders write a star."""
    store, image = get_typestore(Stores.ROS1_NOETIC), "sensor_msgs/msg/Image"
    with Ros1Writer(path) as writer:
        images = writer.add_connection("/front/image_raw", image, typestore=store)
        notes = writer.add_connection("/note", "tool/msg/Note", msgdef="float64 x\n", md5sum="0" * 32)
        for number in range(COUNT):
            writer.write(images, stamp_of(number), store.serialize_ros1(image_message(store, image, number), image))
            writer.write(notes, stamp_of(number), bytes(8))


def test_a_ros1_bag_with_a_wrong_hash_is_whole(tmp_path: Path) -> None:
    write_ros1_bag_with_a_type_of_its_own(tmp_path / "in.bag")
    bag = BagSource(tmp_path / "in.bag")
    assert stamps(bag) == recorded(0, COUNT)
    with pytest.raises(SourceError, match="all but the messages of /note could be copied"):
        list(BagCopy(bag))


def test_a_ros1_bag_that_was_never_closed_is_read_then_one_error(tmp_path: Path) -> None:
    write_ros1_bag_with_a_type_of_its_own(tmp_path / "in.bag")
    data = bytearray((tmp_path / "in.bag").read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    data[at : at + 8] = bytes(8)
    (tmp_path / "drive.bag.active").write_bytes(data)
    with pytest.raises(SourceError, match=r"rename it to drive\.bag to have"):
        open_source(tmp_path / "drive.bag.active")
    entries = iter(BagSource((tmp_path / "drive.bag.active").rename(tmp_path / "drive.bag")))
    assert [entry.stamp_ns for entry in islice(entries, COUNT)] == recorded(0, COUNT)
    with pytest.raises(SourceError, match=f"is cut short: {COUNT} images"):
        next(entries)


def test_a_topic_without_messages_is_named(tmp_path: Path, model: Path) -> None:
    """A camera that was off while the bag was recorded."""
    write_bag(tmp_path / "in", 0, others=("/rear",))
    given = ("run", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--backend", "onnxruntime")
    assert "in has no images on /rear" in drive_seg(*given, "--topic", "/rear", code=1).stderr


def test_a_whole_bag_without_images_is_not_called_damaged(tmp_path: Path) -> None:
    """Of a service that was recorded rosbag2 writes request and response in one definition, which rosbags refuses in
    several lines."""
    service = ("ros2msg", "cdr", b"MSG: tool/srv/Add_Event\nint64 a\n---\nint64 sum\n")
    file = write_mcap(tmp_path / "in.mcap", order=(), beside=service)
    with pytest.raises(SourceError, match=r"it has /beside \(tool/msg/Note\)$"):
        BagSource(file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(SourceError, match="it is damaged, or of another kind: "):
        BagSource(file)
    with pytest.raises(SourceError, match="/beside could be copied") as caught:
        list(BagCopy(BagSource(write_mcap(tmp_path / "with images.mcap", beside=service))))
    assert "\n" not in str(caught.value)
