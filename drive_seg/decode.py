"""From a camera's bytes to RGB: zero-copy views of every accepted encoding, and their conversion.

YUV is taken as BT.601 with limited range (16..235), which is what cameras and OpenCV mean by these encodings.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.encodings import refuse_depth
from drive_seg.errors import MalformedImage
from drive_seg.frame import CameraImage, CompressedImage, check_size
from drive_seg.resources import POINTER, is_pointer

PIXELWISE: dict[str, int | None] = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}
"""Encodings whose pixels are independent, so that resizing may come first, with cv2's conversion to RGB."""

# ROS names the Bayer tile by its first row and column, OpenCV's older names by its second.
_BAYER: dict[str, int] = {
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
}
_FROM_NEIGHBOURS: dict[str, int] = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    **_BAYER,
}
_MAX_SCANS = 32
"""Scans of a JPEG; progressive ones have about ten. Each costs a pass over all pixels, however few bytes it has."""
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TWO_PLANES: dict[str, int] = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}


def pixels(image: CameraImage) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, bytes per pixel) view of the pixels (NV12: luma), without row padding."""
    row = image.data.reshape(image.layout.rows(image.height), image.step)[: image.height]
    channels = image.layout.bytes_per_pixel
    if channels == 1:
        return row[:, : image.width]
    shape = (image.height, image.width, channels)
    return np.lib.stride_tricks.as_strided(row, shape, (image.step, channels, 1), writeable=False)


def high_bytes(image: CameraImage, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Write the more significant bytes of a ``mono16`` image to ``out``, uint8 (H, W)."""
    cv2.extractChannel(pixels(image), 0 if image.big_endian else 1, dst=out)
    return out


def decode_rgb(image: CameraImage, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The native image as uint8 (H, W, 3) RGB.

    Args:
        image: any accepted encoding.
        out: uint8 (H, W, 3), written and returned. When None, a new array, or for ``rgb8`` a read-only view.

    Raises:
        ValueError: ``out`` does not fit.
    """
    shape = (image.height, image.width, 3)
    if out is None:
        if image.encoding == "rgb8":
            return pixels(image)
        out = np.empty(shape, np.uint8)
    elif out.shape != shape or out.dtype != np.uint8:
        raise ValueError(f"out must be uint8 {shape}, got {out.dtype} {out.shape}")
    if image.encoding in _TWO_PLANES:
        chroma = image.data.reshape(-1, image.step)[image.height :]
        shape = (image.height // 2, image.width // 2, 2)
        pairs = np.lib.stride_tricks.as_strided(chroma, shape, (image.step, 2, 1), writeable=False)
        cv2.cvtColorTwoPlane(pixels(image), pairs, _TWO_PLANES[image.encoding], dst=out)
    elif image.encoding == "mono16":
        cv2.cvtColor(high_bytes(image, np.empty(shape[:2], np.uint8)), cv2.COLOR_GRAY2RGB, dst=out)
    elif image.encoding in _FROM_NEIGHBOURS:
        cv2.cvtColor(pixels(image), _FROM_NEIGHBOURS[image.encoding], dst=out)
    else:
        pixelwise_rgb(pixels(image), image.encoding, out)
    return out


def pixelwise_rgb(source: NDArray[np.uint8], encoding: str, out: NDArray[np.uint8]) -> None:
    """Convert pixels of one of the ``PIXELWISE`` encodings, at any size, to RGB.

    Args:
        source: uint8 (H, W), or (H, W, bytes per pixel), as ``pixels`` views them.
        out: uint8 (H, W, 3), all of it is written.
    """
    code = PIXELWISE[encoding]
    if code is None:
        np.copyto(out, source)
    else:
        cv2.cvtColor(source, code, dst=out)


def decode(image: CameraImage | CompressedImage) -> CameraImage:
    """The raw image; JPEG and PNG are decoded, raw pixels pass through untouched.

    Raises:
        MalformedImage: the data is no image.
    """
    return decode_compressed(image) if isinstance(image, CompressedImage) else image


def decode_compressed(image: CompressedImage) -> CameraImage:
    """Decode a JPEG or PNG to ``bgr8``. The bytes decide which it is; EXIF rotation is not applied, so that
    the pixels stay those that CameraInfo describes.

    A raw Bayer image is compressed as the grey one that it looks like; ``format`` then begins with its encoding
    (``bayer_rggb8; jpeg compressed``), which the result has, too; of one of 16 bits it has the upper eight.

    Raises:
        MalformedImage: neither format, cut short, damaged, over the limits of ``check_size`` by its own header, or a
            depth image by its ``format``.
    """
    encoding = image.format.partition(";")[0].strip()
    refuse_depth(encoding)
    encoding = f"{encoding[:-2]}8" if encoding.endswith("16") else encoding
    if encoding not in _BAYER:
        return CameraImage.from_bgr(decode_file(image.data, cv2.IMREAD_COLOR))
    decoded = decode_file(image.data, cv2.IMREAD_ANYCOLOR)
    if decoded.ndim == 3:  # of a camera that made the colours itself
        return CameraImage.from_bgr(decoded)
    height, width = decoded.shape
    return CameraImage(encoding, width, height, width, decoded.reshape(-1))


def decode_file(data: NDArray[np.uint8], mode: int) -> NDArray[np.uint8]:
    """The pixels of a JPEG or PNG as OpenCV gives them, EXIF rotation not applied.

    Args:
        data: uint8, 1-D: the file's bytes.
        mode: ``cv2.IMREAD_COLOR`` for uint8 (H, W, 3) BGR, ``cv2.IMREAD_UNCHANGED`` for what is stored.

    Raises:
        MalformedImage: as ``decode_compressed``.
    """
    width, height = _declared_size(data.tobytes())
    check_size(width, height)
    try:
        decoded = cv2.imdecode(data, mode | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise MalformedImage(f"the {data.size} bytes of a {width}x{height} image cannot be decoded: {error}") from error
    if decoded is None:
        raise MalformedImage(f"the {data.size} bytes of a {width}x{height} image cannot be decoded")
    return decoded  # type: ignore[return-value]


def _declared_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the header, read before a decoder allocates anything."""
    if data.startswith(_PNG_MAGIC):
        return _png_size(data)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if is_pointer(data):
        raise MalformedImage(f"expected a JPEG or PNG, got {POINTER}")
    begin = data[:8].hex(" ") or "nothing"
    video = ", a packet of H.264 or H.265 video?" if data.startswith((b"\0\0\1", b"\0\0\0\1")) else ""
    raise MalformedImage(f"expected a JPEG or PNG, got {len(data)} bytes that begin with {begin}{video}")


def _png_size(data: bytes) -> tuple[int, int]:
    """Walk the PNG's chunks (W3C PNG, section 5.3) to its end: OpenCV allocates what a chunk says it has."""
    at = len(_PNG_MAGIC)
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"acTL":
            raise MalformedImage(f"the PNG of {len(data)} bytes is animated; expected one picture")
        if (kind == b"IHDR") != (at == len(_PNG_MAGIC)) or end > len(data):
            break  # a second header, or more than is there
        if kind == b"IEND":
            return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        at = end
    raise MalformedImage(f"the PNG of {len(data)} bytes is cut short or damaged at byte {at}")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the JPEG's segments (ITU T.81 annex B) to its frame header, and see that its end is there."""
    at, frame = 2, -1
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = at
        if marker == 0xDA:  # start of scan: from here on entropy-coded data, up to the end marker
            if frame < 0 or data.rfind(b"\xff\xd9", at) < 0:
                break
            _check_scans(data, frame, at)
            height, width = (int.from_bytes(data[frame + k : frame + k + 2], "big") for k in (5, 7))
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise MalformedImage(f"the JPEG of {len(data)} bytes is cut short or damaged")


def _check_scans(data: bytes, frame: int, scan: int) -> None:
    """Refuse too many scans; looks for them only where there can be several, as that reads all of the data."""
    sequential = data[frame + 1] in (0xC0, 0xC1)
    if sequential and data[frame + 9 : frame + 10] == data[scan + 4 : scan + 5]:
        return  # the first scan has all components
    scans = data.count(b"\xff\xda", scan)
    if scans > _MAX_SCANS:
        raise MalformedImage(f"the JPEG has {scans} scans, over the limit of {_MAX_SCANS}")
