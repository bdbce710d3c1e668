"""Bags of every kind as a source, damaged ones, and copies of a bag with the results in it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import drive_seg
from recordings import HEIGHT, WIDTH, image_message, picture, stamp_of, write_bag, write_ros1_bag
from tiny_model import network

pytest.importorskip("rosbags", reason="rosbags is not installed")

from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from drive_seg.decode import decode_rgb
from drive_seg.engines import FunctionEngine
from drive_seg.errors import ConfigError, DriveSegError, MalformedImage, SourceError
from drive_seg.frame import CameraImage, Frame, PanopticResult
from drive_seg.labels import DRIVING
from drive_seg.offline.bag_images import IMAGE, pixels_of
from drive_seg.offline.bag_writer import BagFile
from drive_seg.offline.bags import BagCopy, BagSource
from drive_seg.offline.predictions import open_predictions
from drive_seg.offline.read_ahead import read_ahead
from drive_seg.offline.runner import Outcome, run
from drive_seg.offline.sinks import open_sink
from drive_seg.offline.sources import open_source
from drive_seg.offline.truth import open_truth
from drive_seg.pipeline import Pipeline

RECORDED_LATER = 5_000_000
RESULTS = {f"/segmentation/{name}" for name in ("label_info", "mask", "panoptic", "instances")}


def go(source: Path, out: Path, pipeline: Pipeline, copying: bool = False) -> Outcome:
    bag = BagSource(source)
    return run(BagCopy(bag) if copying else bag, open_sink(out, DRIVING, bag.fps), pipeline, "tiny")


def read(path: Path) -> dict[str, list[tuple[int, Any]]]:
    """(recorded, message) by topic, in the order of the bag."""
    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([path]) as reader:
        for connection, recorded, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append((recorded, message))
    return found


def check_masks(found: dict[str, list[tuple[int, Any]]], numbers: list[int], pipeline: Pipeline) -> None:
    """The masks are those of these pictures, with their headers."""
    masks = found["/segmentation/mask"]
    assert len(masks) == len(found["/segmentation/panoptic"]) == len(found["/segmentation/instances"]) == len(numbers)
    for number, (recorded, mask) in zip(numbers, masks, strict=True):
        assert mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec == stamp_of(number)
        assert mask.header.frame_id == "front_optical"
        assert recorded == stamp_of(number) + RECORDED_LATER
        np.testing.assert_array_equal(mask.data.reshape(HEIGHT, WIDTH), pipeline(picture(number)).mask)


@pytest.mark.parametrize("compression", ["", "bz2", "lz4"])
@pytest.mark.parametrize("topic", ["/front/image_raw", "/front/image_raw/compressed"])
def test_ros1_bags_are_read_like_others(tmp_path: Path, pipeline: Pipeline, topic: str, compression: str) -> None:
    write_ros1_bag(tmp_path / "in.bag", 4, topic, compression)
    assert go(tmp_path / "in.bag", tmp_path / "out.mcap", pipeline).error is None
    found = read(tmp_path / "out.mcap")
    assert set(found) == RESULTS
    check_masks(found, [0, 1, 2, 3], pipeline)


@pytest.mark.parametrize(
    ("storage", "packed"),
    [("mcap", "storage"), ("mcap", "message"), ("sqlite3", "message"), ("sqlite3", "file"), ("mcap", "file")],
)
def test_compressed_ros2_bags_are_read_like_others(
    tmp_path: Path, pipeline: Pipeline, storage: str, packed: str
) -> None:
    plain, small = (write_bag(tmp_path / name, 4, storage, packed=how) for name, how in (("a", "none"), ("b", packed)))
    assert small.stat().st_size < plain.stat().st_size / 2
    assert go(tmp_path / "b", tmp_path / "out.mcap", pipeline).error is None
    check_masks(read(tmp_path / "out.mcap"), [0, 1, 2, 3], pipeline)


def write_rich_bag(path: Path, storage: str) -> Path:
    """Four pictures, a latched transform, a type of its own, masks of an earlier run; returns the storage file."""
    write_bag(path.with_name("pictures"), 4, storage)
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("float64 volts\nstring[] cells\n", "truck_msgs/msg/Battery"))
    battery = store.types["truck_msgs/msg/Battery"](24.5, ["a", "b"])
    transforms = store.types["tf2_msgs/msg/TFMessage"]([])
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with AnyReader([path.with_name("pictures")]) as reader, Writer(path, version=8, storage_plugin=plugin) as writer:
        from drive_seg.offline.bag_writer import BagFile

        latched = BagFile(path)._profile(latched=True)
        kinds = {"/tf_static": "tf2_msgs/msg/TFMessage", "/battery": "truck_msgs/msg/Battery"}
        kinds |= {"/front/image_raw": "sensor_msgs/msg/Image", "/segmentation/mask": "sensor_msgs/msg/Image"}
        into = {
            topic: writer.add_connection(
                topic, kind, typestore=store, offered_qos_profiles=[latched] if topic == "/tf_static" else []
            )
            for topic, kind in kinds.items()
        }
        writer.write(into["/tf_static"], stamp_of(0), store.serialize_cdr(transforms, kinds["/tf_static"]))
        for _, recorded, raw in reader.messages():
            writer.write(into["/front/image_raw"], recorded, raw)
            writer.write(into["/segmentation/mask"], recorded, raw)
            writer.write(into["/battery"], recorded + 50, store.serialize_cdr(battery, kinds["/battery"]))
    (file,) = [file for file in path.iterdir() if file.suffix != ".yaml"]
    return file


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
@pytest.mark.parametrize("ending", [".mcap", ".bag2"])
def test_a_copy_has_every_message_as_it_was_and_the_results_beside_them(
    tmp_path: Path, pipeline: Pipeline, storage: str, as_folder: bool, ending: str
) -> None:
    file = write_rich_bag(tmp_path / "in", storage)
    out = tmp_path / f"out{ending}"
    outcome = go(tmp_path / "in" if as_folder else file, out, pipeline, copying=True)
    assert outcome.error is None and outcome.summary.counts.received == 4
    kept = ("/tf_static", "/battery", "/front/image_raw")

    def raw_messages(path: Path) -> list[tuple[str, int, bytes]]:
        with AnyReader([path]) as reader:
            return [(c.topic, recorded, bytes(raw)) for c, recorded, raw in reader.messages() if c.topic in kept]

    assert raw_messages(out) == raw_messages(tmp_path / "in")
    found = read(out)
    assert set(found) == RESULTS | set(kept)
    check_masks(found, [0, 1, 2, 3], pipeline)
    assert found["/battery"][0][1].cells == ["a", "b"]
    with AnyReader([tmp_path / "in"]) as before, AnyReader([out]) as after:
        types = [
            {c.topic: reader.typestore.hash_rihs01(c.msgtype) for c in reader.connections if c.topic in kept}
            for reader in (before, after)
        ]
        assert types[0] == types[1]
        assert all(c.digest == types[0].get(c.topic, c.digest) for c in after.connections if ending == ".bag2")
        (transforms,) = [c for c in after.connections if c.topic == "/tf_static"]
        assert transforms.ext.offered_qos_profiles[0].durability is QosDurability.TRANSIENT_LOCAL


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "cut short"])
def test_a_copy_of_a_segmented_bag_has_no_results_but_the_new_ones(
    tmp_path: Path, pipeline: Pipeline, whole: bool
) -> None:
    write_bag(tmp_path / "in", COUNT)
    go(tmp_path / "in", tmp_path / "first.mcap", pipeline, copying=True)
    if not whole:
        data = bytearray((tmp_path / "first.mcap").read_bytes())
        cut(data)
        (tmp_path / "first.mcap").write_bytes(data)
    counts = go(tmp_path / "first.mcap", tmp_path / "second.mcap", pipeline, copying=True).summary.counts
    found = read(tmp_path / "second.mcap")
    for name in ("mask", "panoptic", "instances"):
        assert len(found[f"/segmentation/{name}"]) == counts.published == len(found["/front/image_raw"])


def test_a_copy_of_a_ros1_bag_is_a_ros2_bag(tmp_path: Path, pipeline: Pipeline) -> None:
    write_ros1_bag(tmp_path / "in.bag", 4, compression="lz4")
    assert go(tmp_path / "in.bag", tmp_path / "out.mcap", pipeline, copying=True).error is None
    found = read(tmp_path / "out.mcap")
    assert set(found) == RESULTS | {"/note", "/front/image_raw"}
    check_masks(found, [0, 1, 2, 3], pipeline)
    ((recorded, note),) = found["/note"]
    assert (recorded, note.data) == (stamp_of(0), "rain")
    for number, (recorded, image) in enumerate(found["/front/image_raw"]):
        assert recorded == stamp_of(number) + RECORDED_LATER
        assert not hasattr(image.header, "seq")
        np.testing.assert_array_equal(image.data.reshape(HEIGHT, WIDTH, 3), picture(number))
    with AnyReader([tmp_path / "out.mcap"]) as reader:
        qos = {c.topic: [offer.durability for offer in c.ext.offered_qos_profiles] for c in reader.connections}
    assert (qos["/note"], qos["/front/image_raw"]) == ([QosDurability.TRANSIENT_LOCAL], []), "latched or not"


def test_a_copy_of_a_ros1_bag_has_the_types_of_its_own(tmp_path: Path, pipeline: Pipeline) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    battery, image = "truck_msgs/msg/Battery", "sensor_msgs/msg/Image"
    store.register(get_types_from_msg("std_msgs/Header header\nfloat64 volts\n", battery))
    header = store.types["std_msgs/msg/Header"](7, store.types["builtin_interfaces/msg/Time"](1, 2), "truck")
    with Ros1Writer(tmp_path / "in.bag") as writer:
        for topic, kind, message in (
            ("/battery", battery, store.types[battery](header, 12.5)),
            ("/image_raw", image, image_message(store, image, 0)),
        ):
            connection = writer.add_connection(topic, kind, typestore=store)
            writer.write(connection, stamp_of(0), store.serialize_ros1(message, kind))
    assert go(tmp_path / "in.bag", tmp_path / "out.mcap", pipeline, copying=True).error is None
    ((_, copied),) = read(tmp_path / "out.mcap")["/battery"]
    assert (copied.volts, copied.header.frame_id, copied.header.stamp.nanosec) == (12.5, "truck", 2)


def test_a_full_disk_ends_a_copy_with_all_that_was_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(result: PanopticResult) -> None:
        raise DriveSegError("no room for a frame")

    bag = BagSource(write_bag(tmp_path / "in", 4))
    sink = open_sink(tmp_path / "out.mcap", DRIVING, bag.fps)
    monkeypatch.setattr(sink, "write", full)
    with Pipeline(FunctionEngine(network, (WIDTH, HEIGHT), slots=3), DRIVING) as pipeline:
        outcome = run(BagCopy(bag), sink, pipeline, "tiny", threads=False)
    assert "no room" in str(outcome.error)
    assert (outcome.summary.counts.failed, outcome.summary.counts.in_flight) == (3, 0)


def test_a_copy_with_a_limit_ends_with_its_last_image(tmp_path: Path, pipeline: Pipeline) -> None:
    write_rich_bag(tmp_path / "in", "mcap")
    bag = BagSource(tmp_path / "in")
    outcome = run(BagCopy(bag), open_sink(tmp_path / "out.mcap", DRIVING, bag.fps), pipeline, "tiny", limit=2)
    assert outcome.summary.counts.published == 2
    found = read(tmp_path / "out.mcap")
    assert len(found["/front/image_raw"]) == len(found["/segmentation/mask"]) == 2


COUNT = 20


def cut(data: bytearray) -> None:
    del data[len(data) * 6 // 10 :]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_topic_that_only_the_metadata_has_is_told_those_of_the_files(
    tmp_path: Path, pipeline: Pipeline, storage: str
) -> None:
    write_bag(tmp_path / "in", COUNT, storage)
    metadata = tmp_path / "in" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("/front/image_raw", "/renamed/image_raw"))
    outcome = go(tmp_path / "in", tmp_path / "out.mcap", pipeline)
    assert "no images of /renamed/image_raw, though its metadata.yaml counts" in str(outcome.error)
    assert str(outcome.error).endswith("; its files have /front/image_raw")


def garbage(data: bytearray) -> None:
    middle, size = len(data) // 2, len(data) // 20
    data[middle : middle + size] = np.random.default_rng(0).bytes(size)


@pytest.mark.parametrize("damage", [cut, garbage])
@pytest.mark.parametrize("kind", ["mcap", "mcap zstd", "sqlite3", "ros1", "ros1 lz4"])
@pytest.mark.parametrize("copying", [False, True], ids=["", "copying"])
def test_damaged_bags_give_all_that_can_be_read_then_one_error(
    tmp_path: Path, pipeline: Pipeline, kind: str, damage: Any, copying: bool
) -> None:
    storage, _, packed = kind.partition(" ")
    if storage == "ros1":
        file = tmp_path / "in.bag"
        write_ros1_bag(file, COUNT, compression=packed)
    else:
        file = write_bag(tmp_path / "in", COUNT, storage, packed="storage" if packed else "none")
    data = bytearray(file.read_bytes())
    damage(data)
    file.write_bytes(data)
    outcome = go(file, tmp_path / "out.mcap", pipeline, copying)
    published = outcome.summary.counts.published
    assert outcome.summary.counts.in_flight == 0
    assert isinstance(outcome.error, SourceError)
    assert ("cut short" if damage is cut else "damaged") in str(outcome.error)
    assert f"{published} images of /front/image_raw could be read" in str(outcome.error)
    if damage is cut:
        check_masks(read(tmp_path / "out.mcap"), list(range(published)), pipeline)
    found = read(tmp_path / "out.mcap")
    stamps = [mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec for _, mask in found["/segmentation/mask"]]
    assert len(stamps) == len(set(stamps)) == published >= COUNT // 3
    assert set(stamps) <= {stamp_of(number) for number in range(COUNT)}
    if copying:
        assert len(found["/front/image_raw"]) == published


@pytest.mark.parametrize(("storage", "lost"), [("mcap", 0), ("mcap", 100), ("sqlite3", 0)])
@pytest.mark.parametrize("copying", [False, True], ids=["", "copying"])
def test_messages_that_were_compressed_one_by_one_are_read_without_metadata(
    tmp_path: Path, pipeline: Pipeline, storage: str, lost: int, copying: bool
) -> None:
    """Nothing but the metadata says that they were, and a recorder that is killed writes none."""
    file = write_bag(tmp_path / "in", COUNT, storage, packed="message")
    (tmp_path / "in/metadata.yaml").unlink()
    file.write_bytes(file.read_bytes()[: file.stat().st_size - lost])
    outcome = go(tmp_path / "in", tmp_path / "out.mcap", pipeline, copying)
    assert ("cut short" in str(outcome.error)) == bool(lost)
    found = read(tmp_path / "out.mcap")
    check_masks(found, list(range(COUNT)), pipeline)
    if copying:
        assert [image.height for _, image in found["/front/image_raw"]] == [HEIGHT] * COUNT


@pytest.mark.parametrize("pieces", [2, 5])
def test_the_windows_of_a_damaged_bag_have_every_image_once(tmp_path: Path, pieces: int) -> None:
    file = write_bag(tmp_path / "in", COUNT, packed="storage")
    data = bytearray(file.read_bytes())
    garbage(data)
    file.write_bytes(data)

    def stamps(window: tuple[int, int] | None) -> list[int]:
        found = []
        with suppress(SourceError):
            for entry in BagSource(file, window=window):
                assert isinstance(entry, Frame)
                found.append(entry.stamp_ns)
        return found

    recorded = BagSource(file).recorded
    assert recorded is not None
    edges = np.linspace(recorded[0], recorded[1] + 1, pieces + 1).astype(np.int64).tolist()
    whole = stamps(None)
    assert 0 < len(whole) < COUNT
    assert [stamp for window in pairwise(edges) for stamp in stamps(window)] == whole
    times = [recorded[0], *(stamp + 5_000_000 for stamp in whole[1:]), recorded[1] + 1]  # each begins with an image
    assert [stamp for window in pairwise(times) for stamp in stamps(window)] == whole


@pytest.mark.parametrize(("count", "apart_s", "fps"), [(3, 0.5, 2.0), (2, 100.0, 30.0), (1, 1.0, 30.0)])
def test_a_bag_s_rate_is_that_of_its_images_where_it_can_be_one(
    tmp_path: Path, count: int, apart_s: float, fps: float
) -> None:
    bag = BagFile(tmp_path / "slow.mcap")
    for number in range(count):
        at = 10**18 + round(number * apart_s * 1e9)
        bag.write("/image", IMAGE, bag.image(bag.header(at, ""), "mono8", np.zeros((2, 2), np.uint8)), at)
    bag.close()
    assert BagSource(tmp_path / "slow.mcap").fps == pytest.approx(fps)


def test_the_camera_s_own_images_are_taken_of_several_packed_or_not(tmp_path: Path) -> None:
    for kind, topic in (("raw", "/front/image_raw"), ("packed", "/front/image_raw/compressed")):
        packed = kind == "packed"
        bag = write_bag(tmp_path / kind, 2, topic=topic, compressed=packed, others=("/front/image_rect",))
        assert BagSource(bag).topic == topic


def test_images_keep_the_order_of_their_bytes(tmp_path: Path) -> None:
    bag = BagFile(tmp_path / "grey.mcap")
    values = np.array([[0x1234, 0xFF00]], ">u2")
    message = bag.image(bag.header(1, ""), "mono16", values)
    message.is_bigendian = 1
    bag.write("/image", IMAGE, message, 1)
    bag.close()
    (entry,) = BagSource(tmp_path / "grey.mcap")
    assert isinstance(entry, Frame) and isinstance(entry.image, CameraImage)
    assert decode_rgb(entry.image)[0, :, 0].tolist() == [0x12, 0xFF]


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "16UC1", "mono16"])
@pytest.mark.parametrize("big_endian", [0, 1])
@pytest.mark.parametrize("padding", [0, 2, None])
def test_label_images_are_read_whatever_their_bytes(encoding: str, big_endian: int, padding: int | None) -> None:
    kind = np.dtype((">" if big_endian else "<") + ("u1" if "8" in encoding else "u2"))
    values = np.array([[1, 2, 3], [200, 250, 255]]).astype(kind)
    rows = values.view(np.uint8).reshape(2, -1)
    data = np.pad(rows, ((0, 0), (0, padding or 0)), constant_values=77)
    message = SimpleNamespace(
        encoding=encoding,
        is_bigendian=big_endian,
        width=3,
        height=2,
        step=0 if padding is None else data.shape[1],  # some writers leave it out
        data=data.reshape(-1),
    )
    found = pixels_of(message)
    assert found.dtype.isnative and found.dtype.itemsize == kind.itemsize
    np.testing.assert_array_equal(found, values)
    message.data = message.data[:-1]
    with pytest.raises(MalformedImage, match="3x2"):
        pixels_of(message)
    message.encoding = "rgb8"
    with pytest.raises(MalformedImage, match="got rgb8"):
        pixels_of(message)


@pytest.mark.parametrize("name", ["a#1", "b?mode=memory", "c%20d"])
def test_sqlite_does_not_take_a_path_for_a_uri(name: str, tmp_path: Path) -> None:
    file = write_bag(tmp_path / "drive", 3, "sqlite3")
    folder = (tmp_path / "drive").rename(tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    for source in (folder, folder / file.name):
        assert [frame.stamp_ns for frame in BagSource(source)] == [stamp_of(number) for number in range(3)]
    damaged = folder / file.name
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    assert list(islice(BagSource(damaged), 1))
    assert sorted(tmp_path.rglob("*")) == before, "and no file is made beside it"
    with pytest.raises(ConfigError, match=r"# \? or %"):
        open_sink(tmp_path / f"{name}.bag2", DRIVING, 30.0)


def test_stamps_that_seconds_cannot_hold_are_kept(tmp_path: Path) -> None:
    bag = BagFile(tmp_path / "out.mcap")
    stamp = (2**31 - 1) * 10**9 + 2**32 - 1
    bag.write("/a", "std_msgs/msg/Header", bag.header(stamp, "camera"), 0)
    bag.close()
    (header,) = [message for _, message in read(tmp_path / "out.mcap")["/a"]]
    assert (header.stamp.sec, header.stamp.nanosec) == (2**31 - 1, 2**32 - 1)


def test_a_message_that_is_none_is_left_out_and_counted(tmp_path: Path, pipeline: Pipeline) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        images = writer.add_connection("/front/image_raw", "sensor_msgs/msg/Image", typestore=store)
        for number in range(4):
            data = store.serialize_cdr(image_message(store, images.msgtype, number), images.msgtype)
            writer.write(images, stamp_of(number) + RECORDED_LATER, data[:30] if number == 2 else data)
    outcome = go(tmp_path / "in", tmp_path / "out.mcap", pipeline)
    assert outcome.error is None
    assert dict(outcome.summary.counts.dropped) == {"malformed": 1}
    check_masks(read(tmp_path / "out.mcap"), [0, 1, 3], pipeline)


def test_the_files_of_an_unclosed_folder_are_read_in_the_order_of_recording(tmp_path: Path) -> None:
    """A recorder that is killed leaves its last file without index, and the folder without metadata."""
    (tmp_path / "in").mkdir()
    for part in range(12):
        write_bag(tmp_path / str(part), 1, first=part).replace(tmp_path / f"in/in_{part}.mcap")
    last = tmp_path / "in/in_11.mcap"
    last.write_bytes(last.read_bytes()[:-100])
    entries = iter(BagSource(tmp_path / "in"))
    assert [entry.stamp_ns for entry in islice(entries, 12)] == [stamp_of(number) for number in range(12)]
    with pytest.raises(SourceError, match="12 images of /front/image_raw could be read"):
        next(entries)


def test_a_topic_of_several_publishers_is_counted_whole(tmp_path: Path) -> None:
    """ROS 1 records a connection for each of them."""
    store = get_typestore(Stores.ROS1_NOETIC)
    kind = "sensor_msgs/msg/Image"
    with Ros1Writer(tmp_path / "in.bag") as writer:
        one, two = (writer.add_connection("/front/image_raw", kind, typestore=store, callerid=c) for c in ("/a", "/b"))
        for number in range(COUNT):
            data = store.serialize_ros1(image_message(store, kind, number), kind)
            writer.write(two if number == COUNT - 1 else one, stamp_of(number), data)
    bag = BagSource(tmp_path / "in.bag")
    assert bag.count == len(list(bag)) == COUNT
    assert bag.fps == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize("name", ["drive.MCAP", "drive.Db3", "drive.BAG"])
def test_a_bag_whose_ending_is_in_capitals_is_to_be_renamed(name: str, tmp_path: Path) -> None:
    """rosbags does not know it; that it were damaged, or without topics, would be misleading."""
    (tmp_path / name).write_bytes(b"")
    for take in (open_source, lambda bag: open_truth(bag, DRIVING), lambda bag: open_predictions(bag, DRIVING)):
        with pytest.raises(SourceError, match=rf"rename it to {name.lower()}"):
            take(str(tmp_path / name))


def test_an_unclosed_folder_of_several_files_is_counted_whole(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for part in range(2):
        write_bag(tmp_path / str(part), 3, first=3 * part).replace(tmp_path / f"in/in_{part}.mcap")
    bag = BagSource(tmp_path / "in")
    assert bag.count == len(list(bag)) == 6
    assert bag.fps == pytest.approx(10.0, rel=1e-3)


def test_the_command_ends_with_one_error_and_a_readable_bag(tmp_path: Path, pipeline: Pipeline, model: Path) -> None:
    file = write_bag(tmp_path / "in", COUNT)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    given = ("run", file, "-o", tmp_path / "out.mcap", "--model", model, "--backend", "onnxruntime", "--copy-inputs")
    done = drive_seg(*given, code=1)
    assert done.stderr.count("error:") == 1 and "cut short" in done.stderr and "Traceback" not in done.stderr
    found = read(tmp_path / "out.mcap")
    check_masks(found, list(range(len(found["/front/image_raw"]))), pipeline)


def test_inputs_are_copied_from_a_bag_into_a_bag_only(tmp_path: Path) -> None:
    write_bag(tmp_path / "in", 1)
    done = drive_seg("run", tmp_path / "in", "-o", tmp_path / "out.mp4", "--copy-inputs", code=2)
    assert "--copy-inputs" in done.stderr
    assert not (tmp_path / "out.mp4").exists()


PEAK = """
import sys
from drive_seg.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(peak.split()[1])
"""
"""Runs the command line, then prints the most memory it ever had in kB; getrusage would count its parent's too."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_memory_does_not_grow_with_the_bag(tmp_path: Path, model: Path, storage: str) -> None:

    def measured(count: int) -> tuple[int, int]:
        """Size of a bag and the peak of its run, bytes."""
        file = write_bag(tmp_path / f"in{count}", count, storage)
        options = ["--model", model, "--backend", "onnxruntime", "--copy-inputs", "-o", tmp_path / f"out{count}.mcap"]
        given = [sys.executable, "-c", PEAK, "run", file, *options]
        done = subprocess.run(list(map(str, given)), capture_output=True, text=True, timeout=120, check=True)
        return file.stat().st_size, int(done.stdout.split()[-1]) * 1024

    (small, before), (large, after) = measured(50), measured(400)
    assert large - small > 60 << 20
    assert after - before < (large - small) / 4


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice on files")
@pytest.mark.parametrize("first", [0, 700])
def test_a_bag_is_loaded_a_little_ahead_of_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    file = tmp_path / "large.mcap"
    with file.open("wb") as made:
        made.truncate(200 << 20)
    told: list[tuple[int, int]] = []
    advise = os.posix_fadvise

    def watched(handle: int, offset: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        told.append((offset, offset + length))
        advise(handle, offset, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", watched)
    messages = [(number % 3, 5_000 + number, b"") for number in range(first, 1001)]
    passed = []
    for message in read_ahead([file], (5_000, 6_000), messages):
        here = file.stat().st_size * (message[1] - 5_000) // 1000
        passed.append(message)
        assert min(here + (16 << 20), 200 << 20) <= told[-1][1] <= here + (64 << 20)
    assert passed == messages
    assert all(end == begin for (_, end), (begin, _) in pairwise(told))
    assert told[0][0] == first * (200 << 20) // 1000
    told.clear()
    assert list(read_ahead([file, file], (5_000, 6_000), messages)) == messages and not told
