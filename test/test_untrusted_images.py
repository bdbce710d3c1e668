"""Images and bags from outside: whatever is in them, they are served or refused, in bounded time and memory."""

from __future__ import annotations

import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import network

from drive_seg.decode import decode_compressed, decode_rgb
from drive_seg.encodings import ENCODINGS
from drive_seg.engines import FunctionEngine
from drive_seg.errors import MalformedImage, SourceError
from drive_seg.frame import MAX_SIDE, CameraImage, CompressedImage, Frame
from drive_seg.labels import DRIVING
from drive_seg.offline.label_image import read_label_image
from drive_seg.offline.truth_sets import CocoSegment, coco_truth
from drive_seg.pipeline import Pipeline

anything = settings(deadline=None, max_examples=80)
sizes = st.one_of(st.integers(-2, 70), st.sampled_from([0, 2**31, 2**32 - 1, MAX_SIDE + 1]))
PIPELINE = Pipeline(FunctionEngine(network, (64, 32)), DRIVING)


def peak_mb() -> int:
    """Most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@anything
@given(
    encoding=st.sampled_from([*ENCODINGS, "16UC1", "32FC1", "rgb16"]) | st.text(max_size=60),
    width=sizes,
    height=sizes,
    padding=st.integers(-3, 9) | st.sampled_from([2**32 - 1]),
    surplus=st.sampled_from([0, 0, 0, -1, 1, 100]),
    big_endian=st.booleans(),
)
def test_any_image_message_is_served_or_malformed(
    encoding: str, width: int, height: int, padding: int, surplus: int, big_endian: bool
) -> None:
    layout = ENCODINGS.get(encoding)
    step = width * (layout.bytes_per_pixel if layout else 3) + padding
    size = step * (layout.rows(height) if layout else height) + surplus
    data = np.arange(size if 0 <= size < 1 << 20 else 100, dtype=np.uint8)
    try:
        image = CameraImage(encoding, width, height, step, data, big_endian)
    except MalformedImage as error:
        assert "\n" not in str(error) and len(str(error)) < 400  # noqa: PT017 - one line of the log, whatever was sent
        return
    assert padding >= 0 and surplus == 0 and layout is not None
    assert decode_rgb(image).shape == (height, width, 3)
    result = PIPELINE(Frame(image))
    assert result.mask.shape == result.panoptic.shape == (height, width)


@pytest.mark.parametrize("size", [(1 << 26, 1), (1, 1 << 26), (MAX_SIDE + 1, 2)])
def test_a_line_of_millions_of_pixels_is_refused(size: tuple[int, int]) -> None:
    """OpenCV's resize takes minutes for it."""
    width, height = size
    with pytest.raises(MalformedImage, match=f"over the limit of {MAX_SIDE} pixels a side"):
        CameraImage("mono8", width, height, width, np.zeros(0, np.uint8))


@pytest.mark.parametrize("size", [(MAX_SIDE, 1), (1, MAX_SIDE), (1, 1)])
def test_the_longest_line_is_served(size: tuple[int, int]) -> None:
    width, height = size
    image = CameraImage("rgb8", width, height, 3 * width, np.zeros(3 * width * height, np.uint8))
    assert PIPELINE(Frame(image)).mask.shape == (height, width)


def chunk(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    """A PNG chunk; ``length``: what it claims to have."""
    size = len(body) if length is None else length
    return struct.pack(">I", size) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, size: tuple[int, int] = (4, 4)) -> bytes:
    """A grey PNG with ``chunks`` after its header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


PIXELS = chunk(b"IDAT", zlib.compress(bytes(20)))


def test_the_png_of_these_tests_is_one() -> None:
    assert decode_compressed(CompressedImage(np.frombuffer(png(PIXELS), np.uint8))).width == 4


@pytest.mark.parametrize(
    "data",
    [
        png(chunk(b"IDAT", zlib.compress(bytes(20)), length=0x7B006300)),
        png(chunk(b"tEXt", b"", length=0xFFFFFFFF), PIXELS),
        png(chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)), PIXELS),
        png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)), PIXELS),
        png(PIXELS, size=(0, 4)),
        png(PIXELS)[:-12],
        png(PIXELS)[:-12] + chunk(b"IEND", b"", length=0x7B006300),
    ],
    ids=["2 GB of pixels", "4 GB of text", "two headers", "an animation", "no columns", "no end", "2 GB of end"],
)
def test_a_png_that_claims_more_than_it_has_is_refused_unread(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the decoder was asked"))
    before = peak_mb()
    with pytest.raises(MalformedImage):
        decode_compressed(CompressedImage(np.frombuffer(data, np.uint8)))
    assert peak_mb() - before < 64


def test_an_animation_is_called_one_and_not_damaged() -> None:
    data = png(chunk(b"acTL", struct.pack(">II", 2, 0)), PIXELS)
    with pytest.raises(MalformedImage, match="is animated"):
        decode_compressed(CompressedImage(np.frombuffer(data, np.uint8)))


def test_packets_of_a_video_are_called_so() -> None:
    """Some drivers put H.264 into CompressedImage."""
    with pytest.raises(MalformedImage, match=r"begin with 00 00 00 01 67 .*, a packet of H\.264 or H\.265 video\?"):
        decode_compressed(CompressedImage(np.frombuffer(b"\0\0\0\1\x67\x42\0\x1f", np.uint8), "h264"))


def test_a_progressive_jpeg_of_endless_scans_is_refused() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert decode_compressed(CompressedImage(np.frombuffer(data, np.uint8))).width == 64
    last = data.rindex(b"\xff\xda")
    most = data[:-2] + data[last:-2] * (32 - data.count(b"\xff\xda")) + data[-2:]
    assert decode_compressed(CompressedImage(np.frombuffer(most, np.uint8))).width == 64
    bomb = data[:last] + data[last:-2] * 1000 + data[-2:]
    with pytest.raises(MalformedImage, match="scans, over the limit"):
        decode_compressed(CompressedImage(np.frombuffer(bomb, np.uint8)))


@anything
@given(
    ending=st.sampled_from([".png", ".jpg"]),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=6), st.integers(0, 12)), max_size=6),
)
def test_any_damaged_picture_is_decoded_or_malformed(ending: str, edits: list[tuple[int, bytes, int]]) -> None:
    picture = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    data = bytearray(cv2.imencode(ending, picture)[1].tobytes())
    for at, piece, length in edits:
        data[at % len(data) : at % len(data) + length] = piece or b"\xff"
    try:
        image = decode_compressed(CompressedImage(np.frombuffer(bytes(data), np.uint8)))
    except MalformedImage:
        return
    assert image.width * image.height * 3 == image.data.size


def test_label_images_are_checked_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "truth.png"
    for data in (png(PIXELS, size=(60000, 60000)), b"", b"GIF89a", png(chunk(b"IDAT", b"", length=2**31))):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=r"ground truth .*truth\.png is no image that can be read"):
            read_label_image(path)
    ids = np.arange(20, dtype=np.uint16).reshape(4, 5) * 1000
    cv2.imwrite(str(path), ids)
    np.testing.assert_array_equal(read_label_image(path), ids)


def test_a_photograph_taken_for_coco_truth_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    with pytest.raises(SourceError, match="segments, expected at most"):
        coco_truth(tmp_path / "a.png", noise, [CocoSegment(1, 1, False)])
