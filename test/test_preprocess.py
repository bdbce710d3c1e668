"""Decoding and pre-processing, against every encoding written out by hand in numpy."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg.decode import decode_compressed, decode_rgb
from drive_seg.encodings import ENCODINGS
from drive_seg.errors import MalformedImage
from drive_seg.frame import MAX_PIXELS, CameraImage, CompressedImage
from drive_seg.letterbox import Geometry
from drive_seg.preprocess import PADDING, Preprocessor

NETWORK = (320, 192)
GREY = ("mono8", "mono16")
# Largest and mean difference from rgb8 that an encoding may cost on the smooth scene: rounding, and neighbours'
# colour in the subsampled ones. A swapped channel or a wrong range is off by tens.
BOUNDS = {
    **dict.fromkeys(("rgb8", "bgr8", "rgba8", "bgra8"), (0, 0.0)),
    **dict.fromkeys(GREY, (1, 0.5)),
    **dict.fromkeys(("yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"), (4, 1.0)),
    **dict.fromkeys(("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"), (4, 0.6)),
}


def scene(width: int, height: int) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB: slow gradients, different in each channel, no symmetry."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    channels = (120 + 100 * np.sin(2 * x + y), 60 + 120 * y, 200 - 150 * x * (1 - y / 2))
    return np.stack(channels, axis=-1).round().clip(0, 255).astype(np.uint8)


def luma_chroma(rgb: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Y, U, V of ITU-R BT.601 with limited range: Y 16..235, U and V 16..240 around 128."""
    r, g, b = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return 16 + 219 * y, 128 + 112 * (b - y) / (1 - 0.114), 128 + 112 * (r - y) / (1 - 0.299)


def grey(rgb: NDArray[np.uint8]) -> NDArray[Any]:
    return rgb.astype(np.float64) @ (0.299, 0.587, 0.114)


def rows_of(rgb: NDArray[np.uint8], encoding: str, big_endian: bool) -> NDArray[np.uint8]:
    """uint8 (rows, bytes per row): the scene in an encoding, by its definition."""
    height, width = rgb.shape[:2]
    if encoding in ("rgb8", "bgr8", "rgba8", "bgra8"):
        order = {"r": rgb[..., 0], "g": rgb[..., 1], "b": rgb[..., 2], "a": np.full((height, width), 9, np.uint8)}
        return np.stack([order[letter] for letter in encoding[:-1]], axis=-1).reshape(height, -1)
    if encoding == "mono8":
        return grey(rgb).round().astype(np.uint8)
    if encoding == "mono16":
        values = (grey(rgb).round() * 256 + 200).astype(">u2" if big_endian else "<u2")
        return values.view(np.uint8).reshape(height, -1)
    if encoding.startswith("bayer"):
        tile = np.array(["rgb".index(letter) for letter in encoding[6:10]]).reshape(2, 2)
        y, x = np.mgrid[:height, :width]
        return rgb[y, x, tile[y % 2, x % 2]]
    y, u, v = luma_chroma(rgb)
    if encoding in ("nv12", "nv21"):
        first, second = (u, v) if encoding == "nv12" else (v, u)
        small = [plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for plane in (first, second)]
        chroma = np.stack(small, axis=-1).reshape(height // 2, width)
        return np.concatenate((y, chroma)).round().astype(np.uint8)
    u, v = (plane.reshape(height, width // 2, 2).mean(axis=2) for plane in (u, v))
    left, right = y[:, 0::2], y[:, 1::2]
    planes = (u, left, v, right) if encoding in ("uyvy", "yuv422") else (left, u, right, v)
    return np.stack(planes, axis=-1).reshape(height, -1).round().astype(np.uint8)


def camera_image(rgb: NDArray[np.uint8], encoding: str, padding: int = 0, big_endian: bool = False) -> CameraImage:
    """As a message brings it: read-only bytes, rows ``padding`` bytes longer than they need be."""
    rows = rows_of(rgb, encoding, big_endian)
    step = rows.shape[1] + padding
    padded = np.full((rows.shape[0], step), 171, np.uint8)
    padded[:, : rows.shape[1]] = rows
    data = np.frombuffer(padded.tobytes(), np.uint8)
    assert not data.flags.writeable
    return CameraImage(encoding, rgb.shape[1], rgb.shape[0], step, data, big_endian)


def expected_rgb(rgb: NDArray[np.uint8], encoding: str) -> NDArray[Any]:
    return np.repeat(grey(rgb)[..., np.newaxis], 3, axis=2) if encoding in GREY else rgb.astype(np.float64)


def assert_close(got: NDArray[Any], expected: NDArray[Any], encoding: str, slack: float = 0) -> None:
    difference = np.abs(got.astype(np.float64) - expected)
    largest, mean = BOUNDS[encoding]
    assert difference.max() <= largest + slack, encoding
    assert difference.mean() <= mean + slack / 2, encoding


def test_the_bounds_cover_every_encoding():
    assert set(BOUNDS) == set(ENCODINGS)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 7])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_decodes_to_the_same_scene(encoding: str, padding: int, big_endian: bool):
    rgb = scene(326, 182)
    image = camera_image(rgb, encoding, padding, big_endian)
    assert_close(decode_rgb(image), expected_rgb(rgb, encoding), encoding)
    out = np.empty_like(rgb)
    assert decode_rgb(image, out) is out
    np.testing.assert_array_equal(out, decode_rgb(image))


@pytest.mark.parametrize("size", [(640, 360), (320, 192), (160, 120), (480, 360), (962, 542), (1300, 780)])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_preprocesses_to_the_same_input(encoding: str, size: tuple[int, int]):
    rgb = scene(*size)
    preprocess = Preprocessor(NETWORK)
    reference, got = np.full((2, NETWORK[1], NETWORK[0], 3), 99, np.uint8)
    geometry = preprocess(CameraImage.from_rgb(rgb), reference)
    assert preprocess(camera_image(rgb, encoding, 5, big_endian=True), got) == geometry
    expected = expected_rgb(reference, encoding)
    assert_close(got, expected, encoding, slack=1)


@pytest.mark.parametrize("size", [(640, 360), (320, 192), (160, 120), (401, 603), (962, 542), (1300, 780), (4, 450)])
def test_content_lies_where_the_geometry_says(size: tuple[int, int]):
    """Each network pixel shows the scene at the place that the geometry maps it to, and grey outside."""
    rgb = scene(*size)
    out = np.full((NETWORK[1], NETWORK[0], 3), 99, np.uint8)
    geometry = Preprocessor(NETWORK)(CameraImage.from_rgb(rgb), out)
    assert geometry == Geometry.letterbox(size, NETWORK)
    x, y = geometry.x0, geometry.y0
    inside = np.zeros(out.shape[:2], bool)
    inside[y : y + geometry.content_height, x : x + geometry.content_width] = True
    assert np.all(out[~inside] == PADDING)
    columns, rows = (axis.cells for axis in geometry.axes())
    seen = out[np.ix_(rows, columns)].astype(int)
    steepest = max(int(np.abs(np.diff(rgb.astype(int), axis=axis)).max()) for axis in (0, 1))
    cell = max(1, round(size[0] / geometry.content_width), round(size[1] / geometry.content_height))
    assert np.abs(seen - rgb).max() <= 2 * steepest * cell


def test_shrinking_averages_instead_of_skipping():
    """A fine chessboard is grey from afar; nearest or plain bilinear sampling of it would flicker black and white."""
    board = (np.indices((720, 1280)).sum(axis=0) % 2 * 255).astype(np.uint8)
    out = np.empty((NETWORK[1], NETWORK[0], 3), np.uint8)
    geometry = Preprocessor(NETWORK)(CameraImage.from_rgb(np.repeat(board[..., np.newaxis], 3, axis=2)), out)
    content = out[geometry.y0 : geometry.y0 + geometry.content_height]
    assert content.min() >= 126
    assert content.max() <= 129


def test_one_preprocessor_serves_cameras_of_all_sizes_in_turn():
    """Scratch memory is shared between them: nothing of one image may show in the next."""
    preprocess = Preprocessor(NETWORK)
    images = [
        camera_image(scene(*size), encoding)
        for size, encoding in (
            ((640, 360), "bgr8"),
            ((960, 600), "nv12"),
            ((160, 240), "mono16"),
            ((1280, 720), "rgba8"),
        )
    ]
    fresh = []
    for image in images:
        out = np.empty((NETWORK[1], NETWORK[0], 3), np.uint8)
        Preprocessor(NETWORK)(image, out)
        fresh.append(out)
    batch = np.full((len(images), NETWORK[1], NETWORK[0], 3), 99, np.uint8)
    for _ in range(2):
        for index in (2, 0, 3, 1):
            preprocess(images[index], batch[index])
    np.testing.assert_array_equal(batch, fresh)


@pytest.mark.parametrize(("unnamed", "encoding"), [("8UC1", "mono8"), ("8UC3", "bgr8"), ("8UC4", "bgra8")])
def test_images_whose_order_of_colours_nobody_named_are_opencvs(unnamed: str, encoding: str):
    """``CvBridge().cv2_to_imgmsg(image)`` writes these; RViz and Foxglove show them so."""
    named = camera_image(scene(64, 48), encoding, padding=3)
    image = CameraImage(unnamed, named.width, named.height, named.step, named.data)
    assert (image.encoding, image.layout) == (encoding, named.layout)
    np.testing.assert_array_equal(decode_rgb(image), decode_rgb(named))
    with pytest.raises(MalformedImage, match=rf"must be one of .*\b{unnamed}\b.*; got '8UC2'"):
        CameraImage("8UC2", 4, 4, 8, named.data)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [(2, 2), (2, 4), (4, 2), (2, 1000), (1000, 2)])
def test_the_smallest_images_pass(encoding: str, size: tuple[int, int]):
    if encoding.startswith("bayer"):  # a single tile has no neighbours to interpolate from
        size = (2 + size[0], 2 + size[1])
    rgb = np.full((size[1], size[0], 3), 100, np.uint8)
    image = camera_image(rgb, encoding)
    assert decode_rgb(image).shape == rgb.shape
    out = np.full((NETWORK[1], NETWORK[0], 3), 255, np.uint8)
    geometry = Preprocessor(NETWORK)(image, out)
    content = out[geometry.y0 :, geometry.x0 :][: geometry.content_height, : geometry.content_width]
    assert np.abs(content.astype(int) - 100).max() <= 2


def test_the_image_is_never_written():
    image = CameraImage.from_rgb(scene(64, 48))
    before = image.data.copy()
    with pytest.raises(ValueError, match="read-only"):
        decode_rgb(image)[0, 0] = 0
    Preprocessor(NETWORK)(image, np.empty((NETWORK[1], NETWORK[0], 3), np.uint8))
    np.testing.assert_array_equal(image.data, before)


def test_outputs_that_do_not_fit_are_refused():
    image = camera_image(scene(64, 48), "bgr8")
    with pytest.raises(ValueError, match=r"out must be uint8 \(48, 64, 3\), got uint8 \(48, 65, 3\)"):
        decode_rgb(image, np.empty((48, 65, 3), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        decode_rgb(image, np.empty((48, 64, 3), np.float32))  # type: ignore[arg-type]
    for wrong in (np.empty((192, 320, 4), np.uint8), np.empty((192, 640, 3), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match=r"C-contiguous uint8 \(192, 320, 3\)"):
            Preprocessor(NETWORK)(image, wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "positive"),
        ({"height": -3}, "positive"),
        ({"step": 10}, "step must be >= 192"),
        ({"step": 1 << 40}, "data must have"),
        ({"data": np.zeros(48 * 192 - 1, np.uint8)}, "got 9215"),
        ({"data": np.zeros(0, np.uint8)}, "got 0"),
        ({"encoding": "16UC1"}, "depth"),
        ({"encoding": "32FC1"}, "depth"),
        ({"encoding": "yolo"}, "must be one of rgb8, .*got 'yolo': let the driver or image_proc send one of these"),
        ({"encoding": "nv12", "height": 47, "step": 64}, "even"),
        *(({"encoding": name, "width": 63}, "even") for name in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv")),
        ({"encoding": "bayer_rggb8", "height": 47}, "even"),
        ({"encoding": "bayer_rggb8", "width": 2}, "at least 4x4 .*, got 2x48"),
        ({"encoding": "bayer_grbg8", "height": 2}, "at least 4x4 .*, got 64x2"),
        ({"width": 1 << 20, "height": 1 << 20}, "over the limit"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(change: dict[str, Any], message: str):
    good: dict[str, Any] = {
        "encoding": "rgb8",
        "width": 64,
        "height": 48,
        "step": 192,
        "data": np.zeros(48 * 192, np.uint8),
    }
    CameraImage(**good)
    with pytest.raises(MalformedImage, match=message):
        CameraImage(**(good | change))


def compressed(suffix: str, rgb: NDArray[np.uint8], *options: int) -> CompressedImage:
    done, data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    assert done
    return CompressedImage(np.frombuffer(data.tobytes(), np.uint8))


def test_png_comes_back_exactly_and_jpeg_nearly():
    rgb = scene(203, 117)
    np.testing.assert_array_equal(decode_rgb(decode_compressed(compressed(".png", rgb))), rgb)
    for progressive in (0, 1):
        image = decode_compressed(compressed(".jpg", rgb, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive))
        assert (image.encoding, image.width, image.height) == ("bgr8", 203, 117)
        assert np.abs(decode_rgb(image).astype(int) - rgb).mean() < 2


def test_grey_and_16_bit_files_become_colour():
    grey_values = scene(60, 40)[..., 0]
    for stored in (grey_values, grey_values.astype(np.uint16) * 256 + 255):
        data = np.frombuffer(cv2.imencode(".png", stored)[1].tobytes(), np.uint8)
        decoded = decode_rgb(decode_compressed(CompressedImage(data)))
        assert np.abs(decoded.astype(int) - grey_values[..., np.newaxis]).max() <= 1


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name.startswith("bayer_")])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_compressed_bayer_image_keeps_its_colours(encoding: str, kind: str):
    """image_transport compresses the mosaic, which is no colour image, and says so in the format."""
    tile = [{"r": 200, "g": 60, "b": 20}[letter] for letter in encoding[6:10]]
    mosaic = np.tile(np.array(tile, np.uint8).reshape(2, 2), (24, 40))
    data = np.frombuffer(cv2.imencode(f".{kind}", mosaic)[1].tobytes(), np.uint8)
    image = decode_compressed(CompressedImage(data, f"{encoding}; {kind} compressed "))
    assert (image.encoding, image.width, image.height) == (encoding, 80, 48)
    assert np.abs(decode_rgb(image).astype(int) - (200, 60, 20)).max() <= 8
    colours = compressed(".png", scene(80, 48))
    image = decode_compressed(CompressedImage(colours.data, f"{encoding}; png compressed bgr8"))
    np.testing.assert_array_equal(decode_rgb(image), scene(80, 48))


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name.startswith("bayer_")])
def test_a_compressed_bayer_image_of_16_bits_keeps_its_colours(encoding: str):
    tile = [{"r": 200, "g": 60, "b": 20}[letter] << 8 | 255 for letter in encoding[6:10]]
    mosaic = np.tile(np.array(tile, np.uint16).reshape(2, 2), (24, 40))
    data = np.frombuffer(cv2.imencode(".png", mosaic)[1].tobytes(), np.uint8)
    image = decode_compressed(CompressedImage(data, f"{encoding[:-1]}16; png compressed "))
    assert (image.encoding, image.width, image.height) == (encoding, 80, 48)
    assert np.abs(decode_rgb(image).astype(int) - (200, 60, 20)).max() <= 1


@pytest.mark.parametrize("form", ["16UC1; png compressed ", "16UC1", "32FC1; compressedDepth png"])
def test_a_compressed_depth_image_is_refused_as_a_raw_one_is(form: str):
    data = np.frombuffer(cv2.imencode(".png", np.full((48, 64), 4000, np.uint16))[1].tobytes(), np.uint8)
    with pytest.raises(MalformedImage, match="depth image by ROS convention"):
        decode_compressed(CompressedImage(data, form))


def test_exif_rotation_is_not_applied():
    """CameraInfo and the boxes mean the sensor's pixels."""
    plain = compressed(".jpg", scene(64, 32)).data.tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + b"\0\0\0\0"
    rotated = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR).shape == (64, 32, 3), "the tag works"
    image = decode_compressed(CompressedImage(np.frombuffer(rotated, np.uint8)))
    assert (image.width, image.height) == (64, 32)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(compressed(".jpg", scene(64, 48)).data.tobytes())
    frame_header = data.index(b"\xff\xc0")
    data[frame_header + 5 : frame_header + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch):
    """What is refused is so before OpenCV sees it: releases differ in what they make of damage."""

    def never(*_: Any) -> None:
        raise AssertionError("the decoder was asked")

    monkeypatch.setattr(cv2, "imdecode", never)


@pytest.mark.parametrize("data", [png_that_claims(64000, 40000), jpeg_that_claims(64000, 40000)], ids=["png", "jpeg"])
@pytest.mark.usefixtures("no_decoder")
def test_a_bomb_is_refused_by_its_header(data: bytes):
    with pytest.raises(MalformedImage, match=f"64000x40000 is over the limit of {MAX_PIXELS}"):
        decode_compressed(CompressedImage(np.frombuffer(data, np.uint8)))


def test_a_jpeg_may_fill_up_before_a_marker():
    """ITU T.81, B.1.1.2: any number of bytes 0xFF."""
    plain = compressed(".jpg", scene(64, 48)).data.tobytes()
    frame_header = plain.index(b"\xff\xc0")
    filled = plain[:frame_header] + b"\xff\xff\xff" + plain[frame_header:]
    image, expected = (decode_compressed(CompressedImage(np.frombuffer(d, np.uint8))) for d in (filled, plain))
    np.testing.assert_array_equal(image.data, expected.data)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.usefixtures("no_decoder")
def test_a_file_cut_anywhere_is_refused(suffix: str):
    data = compressed(suffix, scene(120, 80)).data
    for length in range(0, data.size - 2, max(1, data.size // 60)):
        with pytest.raises(MalformedImage):
            decode_compressed(CompressedImage(data[:length]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(90),
        bytes(500),
        b"\xff\xd8\xff\xe0\0\0" + bytes(99),
        b"\xff\xd8\xff\xdb\0\x10" + b"\x01" * 14 + b"\xff\xda\0\x0c" + bytes(99) + b"\xff\xd9",  # no frame header
    ],
)
@pytest.mark.usefixtures("no_decoder")
def test_what_is_no_jpeg_or_png_is_refused(data: bytes):
    with pytest.raises(MalformedImage):
        decode_compressed(CompressedImage(np.frombuffer(data, np.uint8)))
