"""What is fuzzed: each target takes any bytes and may raise nothing. Expected refusals end inside it."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from drive_seg.decode import decode_compressed, decode_rgb
from drive_seg.documents import read_yaml
from drive_seg.encodings import ENCODINGS
from drive_seg.errors import DriveSegError, MalformedImage, SourceError
from drive_seg.frame import CameraImage, CompressedImage
from drive_seg.model import load_model
from drive_seg.offline.bags import BagSource
from drive_seg.preprocess import Preprocessor

_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_FOLDER = Path(tempfile.mkdtemp(prefix="drive_seg_fuzz_", dir=_MEMORY))
_PREPROCESS = Preprocessor((160, 96))
_INPUT = np.zeros((96, 160, 3), np.uint8)
_NAMES = [*ENCODINGS, "16UC1", "", "rgb8\n"]
_FIELDS = struct.Struct("<BBHHI")


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


TARGETS: dict[str, Callable[[bytes], None]] = {
    "image": image,
    "compressed": compressed,
    "bag": bag,
    "document": document,
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
