"""What is fuzzed: each target takes any bytes and may raise nothing. Expected refusals end inside it."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import lz4.frame
import numpy as np

from drive_seg.decode import decode_compressed, decode_rgb
from drive_seg.documents import read_yaml
from drive_seg.encodings import ENCODINGS
from drive_seg.errors import DriveSegError, MalformedImage, SourceError
from drive_seg.frame import CameraImage, CompressedImage, Lane
from drive_seg.labels import DRIVING
from drive_seg.lanes.table import FIELDS, POINT_FIELD_TYPES, RECORD, from_records, parse_records, to_records
from drive_seg.model import load_model
from drive_seg.offline.bag_images import CLOUD, IMAGE, bag_messages, bag_topics, lanes_of, pixels_of
from drive_seg.offline.bags import BagSource
from drive_seg.offline.instance_lists import read_instances
from drive_seg.offline.label_image import read_label_image
from drive_seg.offline.label_map import bind, load_map
from drive_seg.offline.lane_files import LaneReader
from drive_seg.offline.metrics.lane_lines import compare_lines
from drive_seg.offline.truth_carla import CARLA
from drive_seg.preprocess import Preprocessor

try:
    from compression import zstd
except ImportError:  # before Python 3.14
    from backports import zstd

_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_FOLDER = Path(tempfile.mkdtemp(prefix="drive_seg_fuzz_", dir=_MEMORY))
_PREPROCESS = Preprocessor((160, 96))
_INPUT = np.zeros((96, 160, 3), np.uint8)
_NAMES = [*ENCODINGS, "16UC1", "", "rgb8\n"]
_FIELDS = struct.Struct("<BBHHI")
_CLOUD = struct.Struct(f"<IHB{len(FIELDS)}B")
_MCAP = b"\x89MCAP0\r\n"
_PACKERS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"", bytes),
    (b"zstd", zstd.compress),
    (b"lz4", lz4.frame.compress),
]


def image(data: bytes) -> None:
    """sensor_msgs/Image: encoding, byte order, size and step from the first bytes, pixels from the rest."""
    if len(data) < _FIELDS.size:
        return
    name, order, width, height, step = _FIELDS.unpack_from(data)
    body = np.frombuffer(data, np.uint8, offset=_FIELDS.size)
    encoding = _NAMES[name % len(_NAMES)]
    layout = ENCODINGS.get(encoding)
    if order & 2 and layout is not None:  # half of them: fields that fit, so that the pixels are looked at
        width, height = width % 64, height % 64
        step = width * layout.bytes_per_pixel + order % 7
        body = np.resize(body, step * layout.rows(height)) if body.size else body
    try:
        message = CameraImage(encoding, width, height, step, body, bool(order & 1))
    except MalformedImage:
        return
    assert decode_rgb(message).shape == (height, width, 3)
    _PREPROCESS(message, _INPUT)


def compressed(data: bytes) -> None:
    """sensor_msgs/CompressedImage: a JPEG or PNG."""
    try:
        found = decode_compressed(CompressedImage(np.frombuffer(data, np.uint8)))
    except MalformedImage:
        return
    _PREPROCESS(found, _INPUT)


def bag(data: bytes) -> None:
    """A bag file, its kind by its own first bytes."""
    kind = ".mcap" if data[:1] == b"\x89" else ".db3" if data[:1] == b"S" else ".bag"
    path = _FOLDER / f"drive{kind}"
    path.write_bytes(data)
    try:
        for entry in islice(BagSource(path), 20):
            assert entry is not None
    except SourceError:
        return


def document(data: bytes) -> None:
    """A model sidecar; any other YAML goes through the same reader."""
    path = _FOLDER / "model.yaml"
    path.write_bytes(data)
    try:
        read_yaml(path, "fuzz")
        load_model(path)
    except DriveSegError:
        return


def chunk(data: bytes) -> None:
    """The records in a chunk of a MCAP file without an index, compressed as the first byte says."""
    if not data:
        return
    name, pack = _PACKERS[data[0] % len(_PACKERS)]
    packed = pack(data[1:])
    head = struct.pack("<QQQII", 0, 0, len(data) - 1, 0, len(name)) + name + struct.pack("<Q", len(packed))
    path = _FOLDER / "chunk.mcap"
    path.write_bytes(_MCAP + struct.pack("<BQ", 6, len(head) + len(packed)) + head + packed)
    try:
        for entry in islice(BagSource(path), 20):
            assert entry is not None
    except SourceError:
        pass
    for topic, found in bag_topics(path).items():
        for _, message in islice(bag_messages(path, [topic]), 20):
            try:
                if found.msgtype == IMAGE:
                    pixels_of(message)
                elif found.msgtype == CLOUD:
                    lanes_of(message)
            except (MalformedImage, SourceError):
                continue


def lanes(data: bytes) -> None:
    """A point cloud of lane boundaries: its fields, sizes and points."""
    if len(data) < _CLOUD.size:
        return
    count, step, flags, *places = _CLOUD.unpack_from(data)
    body = np.frombuffer(data, np.uint8, offset=_CLOUD.size)
    if flags & 1:  # half of them: sizes that fit, so that the points are looked at
        step = max(step % 64, 1)
        count = body.size // step
    fields = [
        (name, place & 63, POINT_FIELD_TYPES[kind] if place & 64 == 0 else place >> 4)
        for (name, _, kind), place in zip(FIELDS, places, strict=True)
    ]
    try:
        found = from_records(parse_records(fields, step, count, body))
    except MalformedImage:
        return
    compare_lines(found, found, 720)
    to_records(found)


def listing(data: bytes) -> None:
    """``lanes.jsonl`` or ``instances.jsonl``."""
    path = _FOLDER / "list.jsonl"
    path.write_bytes(data)
    try:
        reader = LaneReader(path)
        for frame in [*reader.stamps, "000000"]:
            found = reader.find(frame)
            compare_lines(found or (), found or (), 720)
    except SourceError:
        pass
    try:
        for row in read_instances(path, {label.name: label.id for label in DRIVING}):
            assert row.scores is not None
    except SourceError:
        pass


def label_map(data: bytes) -> None:
    """A label map, for the default labels and CARLA's."""
    path = _FOLDER / "map.yaml"
    path.write_bytes(data)
    try:
        assert bind(load_map(str(path)), DRIVING, CARLA).labels
    except DriveSegError:
        return


def label_image(data: bytes) -> None:
    """A PNG of labels."""
    path = _FOLDER / "labels.png"
    path.write_bytes(data)
    try:
        assert read_label_image(path).size
    except DriveSegError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "image": image,
    "compressed": compressed,
    "bag": bag,
    "document": document,
    "chunk": chunk,
    "lanes": lanes,
    "list": listing,
    "label_map": label_map,
    "label_image": label_image,
}


def seeds(target: str) -> list[bytes]:
    """Small valid inputs to start from."""
    if target == "image":
        return [_FIELDS.pack(number, flags, 6, 4, 18) + bytes(range(72)) for number in range(17) for flags in (0, 2)]
    if target == "compressed":
        picture = np.arange(32 * 24 * 3, dtype=np.uint8).reshape(24, 32, 3)
        kinds: list[tuple[str, list[int]]] = [(".png", []), (".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])]
        return [cv2.imencode(ending, picture, options)[1].tobytes() for ending, options in kinds]
    if target == "document":
        root = Path(__file__).resolve().parents[2]
        return [(root / name).read_bytes() for name in ("models/default.yaml", "config/label_maps/camvid11.yaml")]
    if target == "chunk":
        return [bytes([number]) + _chunk_of(_bag("mcap", "none")) for number in range(len(_PACKERS))]
    if target == "lanes":
        places = [place for _, place, _ in FIELDS]
        line = Lane(-1, np.array([[9, 80], [7, 50], [6, 30]], np.float32), 0.5, 100, True)
        other = Lane(1, np.array([[90, 80], [70, 50]], np.float32), 1.0, 7, None)
        records = to_records([line, other])
        return [_CLOUD.pack(records.size, RECORD.itemsize, flags, *places) + records.tobytes() for flags in (0, 1)]
    if target == "list":
        points = [[9.5, 80.0], [7.0, 50.25]]
        row = {"order": -1, "confidence": 0.5, "support": 7, "dashed": None, "points": points}
        own = {"frame": "000000", "stamp_ns": 5, "lanes": [row]}
        car = {"id": "3001/17", "class_id": 3, "class": "vehicle", "score": 0.5}
        listed = {"frame": "000000", "stamp_ns": 5, "instances": [car]}
        return [2 * f"{json.dumps(line)}\n".encode() for line in (own, listed)]
    if target == "label_map":
        root = Path(__file__).resolve().parents[2]
        return [(root / f"config/label_maps/{name}.yaml").read_bytes() for name in ("carla", "labels")]
    if target == "label_image":
        maps = np.arange(24, dtype=np.uint8).reshape(4, 6), np.arange(24, dtype=np.uint16).reshape(4, 6)
        return [cv2.imencode(".png", one)[1].tobytes() for one in (*maps, np.dstack([maps[0]] * 3))]
    return [_bag("mcap", "none"), _bag("mcap", "storage"), _bag("sqlite3", "none"), _ros1_bag()]


def _bag(storage: str, packed: str) -> bytes:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types, kind = store.types, "sensor_msgs/msg/Image"
    folder = Path(tempfile.mkdtemp(dir=_FOLDER)) / "bag"
    writer = Writer(folder, version=8, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[packed.upper()], CompressionFormat.ZSTD)
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "camera")
    with writer:
        connection = writer.add_connection("/image_raw", kind, typestore=store)
        for number in range(3):
            message = types[kind](header, 2, 4, "rgb8", 0, 12, np.full(24, number, np.uint8))
            writer.write(connection, number + 1, store.serialize_cdr(message, kind))
    (file,) = [file for file in folder.iterdir() if file.suffix != ".yaml"]
    return file.read_bytes()


def _chunk_of(mcap: bytes) -> bytes:
    """The records of the first chunk, which is not compressed."""
    at = len(_MCAP)
    while mcap[at] != 6:
        at += 9 + struct.unpack_from("<Q", mcap, at + 1)[0]
    start = at + 9 + 8 + 8 + 8 + 4
    start += 4 + struct.unpack_from("<I", mcap, start)[0]
    (size,) = struct.unpack_from("<Q", mcap, start)
    return mcap[start + 8 : start + 8 + size]


def _ros1_bag() -> bytes:
    from rosbags.rosbag1 import Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC)
    types, kind = store.types, "sensor_msgs/msg/Image"
    path = Path(tempfile.mkdtemp(dir=_FOLDER)) / "drive.bag"
    writer = Writer(path)
    writer.set_compression(Writer.CompressionFormat.BZ2)
    header = types["std_msgs/msg/Header"](0, types["builtin_interfaces/msg/Time"](1, 2), "camera")
    with writer:
        connection = writer.add_connection("/image_raw", kind, typestore=store)
        message = types[kind](header, 2, 4, "rgb8", 0, 12, np.zeros(24, np.uint8))
        writer.write(connection, 1, store.serialize_ros1(message, kind))
    return path.read_bytes()
