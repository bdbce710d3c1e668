"""From a camera's bytes to RGB: zero-copy views of every accepted encoding, and their conversion.

YUV is taken as BT.601 with limited range (16..235), which is what cameras and OpenCV mean by these encodings.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import MalformedImage
from drive_seg.frame import MAX_PIXELS, CameraImage, CompressedImage

PIXELWISE: dict[str, int | None] = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
}
"""Encodings whose pixels are independent, so that resizing may come first, with cv2's conversion to RGB."""

_FROM_NEIGHBOURS: dict[str, int] = {
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
    "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    # ROS names the Bayer tile by its first row and column, OpenCV's older names by its second.
    "bayer_rggb8": cv2.COLOR_BayerBG2RGB,
    "bayer_bggr8": cv2.COLOR_BayerRG2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGR2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGB2RGB,
}
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
    """Convert pixels of one of the ``PIXELWISE`` encodings, at any size, to RGB in ``out``."""
    code = PIXELWISE[encoding]
    if code is None:
        np.copyto(out, source)
    else:
        cv2.cvtColor(source, code, dst=out)


def decode_compressed(image: CompressedImage) -> CameraImage:
    """Decode a JPEG or PNG to ``bgr8``. The bytes decide which it is; EXIF rotation is not applied, so that
    the pixels stay those that CameraInfo describes.

    Raises:
        MalformedImage: neither format, cut short, damaged, or larger than ``MAX_PIXELS`` by its own header.
    """
    width, height = _declared_size(image.data.tobytes())
    if width * height > MAX_PIXELS:
        raise MalformedImage(f"image of {width}x{height} is over the limit of {MAX_PIXELS} pixels")
    decoded = cv2.imdecode(image.data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise MalformedImage(f"the {image.data.size} bytes of a {width}x{height} image cannot be decoded")
    return CameraImage.from_bgr(np.asarray(decoded, np.uint8))


def _declared_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the header, read before a decoder allocates anything."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    begin = data[:8].hex(" ") or "nothing"
    raise MalformedImage(f"expected a JPEG or PNG, got {len(data)} bytes that begin with {begin}")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the JPEG's segments (ITU T.81 annex B) to its frame header, and see that its end is there."""
    at, size = 2, None
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xDA:  # start of scan: from here on entropy-coded data, up to the end marker
            if size is None or data.rfind(b"\xff\xd9", at) < 0:
                break
            return size
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise MalformedImage(f"the JPEG of {len(data)} bytes is cut short or damaged")
