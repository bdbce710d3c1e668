"""Video files, cameras and network streams, read with OpenCV; MP4 files, written."""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import DriveSegError, SourceError, counted
from drive_seg.frame import CameraImage, Frame
from drive_seg.offline.disk import require_room
from drive_seg.offline.h264 import H264Writer
from drive_seg.offline.sources import DEFAULT_FPS, Unreadable, numbered_frame

_ROUNDING_S = 0.001
"""Matroska has times in whole milliseconds."""


_TEXT = "ansi"
"""The codec by which FFmpeg draws the letters of a text file, a list of bags too."""


class VideoSource:
    """A video file, also one behind a URL; stamps count from 0, at its frame rate or, where that varies, as it says.

    Raises:
        SourceError: no video that OpenCV can decode. While iterating: none of its frames can be decoded, or it ends
            before the end that the file announces.
    """

    live = False

    def __init__(self, path: Path | str) -> None:
        self.name = str(path)
        capture = self._open()
        self.fps = _rate(capture)
        announced, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
        capture.release()
        self.count: int | None = announced if announced > 0 else None
        self._seconds = announced / rate if rate > 0 else 0.0

    def _open(self) -> Any:
        capture = _capture(self.name)
        if not capture.isOpened() or _codec(capture) == _TEXT:
            file = Path(self.name)
            if file.is_file() and not os.access(file, os.R_OK):
                raise SourceError(f"cannot open {self.name}: {os.strerror(errno.EACCES)}")
            size = f" ({file.stat().st_size} bytes)" if file.is_file() else ""
            raise SourceError(
                f"{self.name}{size} is no video that can be decoded: expected an MP4, AVI, MKV or similar "
                "with its index (a recording that was cut off before it was closed has none), or a bag, "
                "which ends in .mcap, .db3 or .bag"
            )
        return capture

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        capture = self._open()
        number, begin, now, seconds = 0, 0.0, 0.0, 0.0
        codec = _codec(capture)
        try:
            while True:
                ok, image = capture.read()
                if not ok:
                    break
                now = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
                begin = begin if number else now
                seconds = self._shown_at(number, now - begin, seconds)
                yield numbered_frame(number, CameraImage.from_bgr(image), round(seconds * 1e9))
                number += 1
        finally:
            capture.release()
        if not number:
            raise SourceError(
                f"no frame of {self.name} can be decoded: it is damaged, or this OpenCV lacks its codec ({codec}), "
                f"then do: ffmpeg -i {shlex.quote(self.name)} -c:v libx264 converted.mp4"
            )
        # Containers without a frame table announce an estimate, so a small shortfall is no damage. That of Matroska is
        # the highest rate times the length: where the rate varies it is frames too many, but it ends in time. Older
        # releases of OpenCV (4.6) do not say the time.
        is_short = self.count is not None and number < self.count * 0.98 - 2
        if is_short and now - begin < self._seconds * 0.98 - 2 / self.fps:
            raise SourceError(f"{self.name} is cut short: it announces {self.count} frames, {number} could be read")

    def _shown_at(self, number: int, told: float, before: float) -> float:
        """Seconds of a frame, given those that the container tells and those of the frame before."""
        even = number / self.fps
        if abs(told - even) <= _ROUNDING_S:
            return even
        if told > before:
            return told
        return max(even, before + 1 / self.fps)  # no time of its own


def open_capture(spec: str) -> VideoSource | LiveSource:
    """A device or a URL. A URL that announces how many frames it has is a video file somewhere else, and ends.

    Raises:
        SourceError: it cannot be opened.
    """
    if "://" in spec:
        capture = _capture(spec)
        finite = capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        capture.release()
        if finite:
            return VideoSource(spec)
    return LiveSource(spec)


class LiveSource:
    """A camera device or a stream; stamps are the time of arrival. Read it once.

    Raises:
        SourceError: it cannot be opened. While iterating: it stopped delivering.
    """

    live = True
    count: int | None = None

    def __init__(self, spec: str) -> None:
        self.name = spec
        self._capture = _capture(int(spec) if spec.isdecimal() else spec)
        if not self._capture.isOpened():
            kind = "stream" if "://" in spec else "camera"
            raise SourceError(f"{kind} {spec} cannot be opened: check that it exists, is not in use, and may be read")
        self.fps = _rate(self._capture)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        number = 0
        try:
            while True:
                ok, image = self._capture.read()
                if not ok:
                    raise SourceError(f"{self.name} stopped delivering after {counted(number, 'frame')}")
                yield numbered_frame(number, CameraImage.from_bgr(image), time.time_ns())
                number += 1
        finally:
            self._capture.release()


def _fitted(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image in its shape, in the middle of a black one of ``size``."""
    height, width = image.shape[:2]
    scale = min(size[0] / width, size[1] / height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    fitted = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    fitted[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return fitted


_LONGEST = 8190
"""Side of an image of MPEG-4 part 2, which has 13 bits for it; even."""


class VideoWriter:
    """An MP4 file: H.264, which browsers show, where PyAV is there or this OpenCV can encode it, else MPEG-4 part 2."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = _encodable(fps)
        self._size: tuple[int, int] | None = None
        self._writer: Any = None

    def write(self, rgb: NDArray[np.uint8]) -> None:
        """Append uint8 (H, W, 3) RGB; the first image decides the size (odd sizes lose their last row or column, a
        single one is joined by a black one, sides over 8190 are scaled), and others are scaled to fit it, in black."""
        height, width = rgb.shape[:2]
        even = width // 2 * 2 or 1, height // 2 * 2 or 1
        if self._size is None:
            share = min(1.0, _LONGEST / max(even))
            self._size = (max(2, round(even[0] * share) // 2 * 2), max(2, round(even[1] * share) // 2 * 2))
            self._writer = self._open(self._size)
        require_room(self._path.parent)  # the encoder would not say that it could not write
        bgr = cv2.cvtColor(rgb[: even[1], : even[0]], cv2.COLOR_RGB2BGR)
        if (bgr.shape[1], bgr.shape[0]) != self._size:
            bgr = _fitted(bgr, self._size)
        self._writer.write(bgr)

    def _open(self, size: tuple[int, int]) -> Any:
        _quiet()
        if not _in_utf8(str(self._path)):
            raise DriveSegError(f"{os.fsencode(self._path)!r} is no name that FFmpeg can write: expected UTF-8")
        with suppress(ImportError):
            return H264Writer(self._path, self._fps, size)
        for codec in ("avc1", "mp4v"):
            writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*codec), self._fps, size)
            if writer.isOpened():
                return writer
        raise DriveSegError(f"cannot write video {self._path} ({size[0]}x{size[1]}): the folder cannot be written to")

    def close(self) -> None:
        """Write the index; a video without frames leaves no file."""
        if self._writer is not None:
            self._writer.release()


def _encodable(fps: float) -> float:
    """``fps`` as MPEG-4 part 2 can say it: a decimal fraction, as OpenCV makes one, whose numerator has 16 bits."""
    digits = 3
    while digits and fps * 10**digits > 65_535:
        digits -= 1
    return round(fps, digits)


_SILENT = 0
"""OpenCV's LOG_LEVEL_SILENT."""


def _capture(target: str | int) -> Any:
    _quiet()
    if isinstance(target, str) and not _in_utf8(target):
        raise SourceError(f"{os.fsencode(target)!r} is no name that OpenCV can open: expected UTF-8; rename the file")
    return cv2.VideoCapture(target)


def _in_utf8(path: str) -> bool:
    """OpenCV ends the process at a name that is not."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _quiet() -> None:
    """Keep the messages of OpenCV and FFmpeg off stderr: ours say what is wrong."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    if hasattr(cv2, "setLogLevel"):  # up to 4.5, as Ubuntu 22.04 has it
        cv2.setLogLevel(_SILENT)
    else:
        cv2.utils.logging.setLogLevel(_SILENT)


def _codec(capture: Any) -> str:
    """Its four letters, ``AV01``."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return code.to_bytes(4, "little").decode("latin-1").strip("\0 ") or "unknown"


def _rate(capture: Any) -> float:
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if 0.1 < rate < 1000 else DEFAULT_FPS
