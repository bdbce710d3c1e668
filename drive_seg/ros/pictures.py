"""What the camera node shows: the simulator, rendered live or ahead, a video, a folder of images, a device."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import SourceError
from drive_seg.frame import Instance, Lane
from drive_seg.sim import Simulator

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Packed:
    """A uint16 map (H, W) that takes little room: a panoptic one of 1280x720 some 20 KB, for 3 ms of work."""

    height: int
    width: int
    content: bytes

    @classmethod
    def of(cls, pixels: NDArray[np.uint16]) -> Packed:
        """``pixels``, packed."""
        return cls(pixels.shape[0], pixels.shape[1], zlib.compress(pixels.tobytes(), 1))

    def array(self) -> NDArray[np.uint16]:
        """The map again."""
        return np.frombuffer(zlib.decompress(self.content), np.uint16).reshape(self.height, self.width)


@dataclass(frozen=True)
class Picture:
    """One image to publish.

    Attributes:
        pixels: uint8 (H, W, 3), C-contiguous.
        encoding: ``rgb8`` or ``bgr8``.
        panoptic: the truth, where there is one.
        lanes: the true lane boundaries, likewise.
        instances: the things of the truth.
    """

    pixels: NDArray[np.uint8]
    encoding: str
    panoptic: Packed | None = None
    lanes: tuple[Lane, ...] | None = None
    instances: tuple[Instance, ...] = ()


class Pictures(Protocol):
    """A source of pictures."""

    rate: float
    """Its own rate in Hz."""
    intrinsics: NDArray[np.float64] | None
    """K (3, 3) in pixels, where it is known."""

    def __iter__(self) -> Iterator[Picture]:
        """The pictures, from the first."""
        ...


class SimulatedPictures:
    """A drive of the built-in simulator, rendered as it goes: endless."""

    def __init__(self, seed: int, width: int, height: int, rate: float, weather: str) -> None:
        try:
            self._simulator = Simulator(seed, width, height, rate, weather or None)
        except ValueError as error:
            raise SourceError(f"the simulator refused: {error}") from error
        self.rate = rate
        self.intrinsics: NDArray[np.float64] | None = self._simulator.intrinsics

    def __iter__(self) -> Iterator[Picture]:
        return map(self.render, itertools.count())

    def render(self, index: int) -> Picture:
        """Picture number ``index`` of the drive."""
        frame = self._simulator.frame(index)
        return Picture(frame.image, "rgb8", Packed.of(frame.panoptic), frame.lanes, frame.instances())


class VideoPictures:
    """A video file, a device (its number or /dev/videoN) or a URL that OpenCV opens."""

    def __init__(self, source: str) -> None:
        self._source = source
        capture = self._open()
        rate = float(capture.get(cv2.CAP_PROP_FPS))  # of files without a constant one it may be that of their ticks
        self.rate = rate if 0.1 < rate < 1000 else 30.0
        self.intrinsics: NDArray[np.float64] | None = None
        capture.release()

    def _open(self) -> cv2.VideoCapture:
        device = self._source.removeprefix("/dev/video")
        why = "no such file or device, or no codec for it"
        try:
            capture = cv2.VideoCapture(int(device) if device.isdecimal() else self._source)
        except (ValueError, cv2.error) as error:  # a number beyond those of devices
            raise SourceError(f"cannot open '{self._source}' as a video: {why}") from error
        if not capture.isOpened():
            raise SourceError(f"cannot open '{self._source}' as a video: {why}")
        return capture

    def __iter__(self) -> Iterator[Picture]:
        capture = self._open()
        try:
            while True:
                there, pixels = capture.read()
                if not there:
                    return
                yield Picture(np.ascontiguousarray(pixels, np.uint8), "bgr8")
        finally:
            capture.release()


class FolderPictures:
    """The images of a folder in name order."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(file for file in folder.glob("[!.]*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not self._files:
            raise SourceError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {folder}")
        self.rate = 10.0
        self.intrinsics: NDArray[np.float64] | None = None

    def __iter__(self) -> Iterator[Picture]:
        for file in self._files:
            yield Picture(_read(file), "bgr8")


def _read(file: Path) -> NDArray[np.uint8]:
    name = os.fsencode(file).decode(errors="replace")
    try:
        # Its bytes, not its name: at one that is not UTF-8 OpenCV ends the process.
        pixels = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:  # OpenCV's: it is empty, or claims to be enormous
        raise SourceError(f"{name} cannot be read: {error}") from error
    if pixels is None:
        raise SourceError(f"{name} is not an image that OpenCV can read")
    return np.ascontiguousarray(pixels, np.uint8)


def open_pictures(source: str) -> Pictures:
    """Pictures of a folder, a video, a device or a URL.

    Raises:
        SourceError: nothing there, or nothing that can be read.
    """
    try:
        path = Path(source).expanduser()
        return FolderPictures(path) if path.is_dir() else VideoPictures(str(path) if path.is_file() else source)
    except (OSError, RuntimeError) as error:  # a folder of others, a name that is too long, the home of nobody
        raise SourceError(f"cannot open '{source}': {error}") from error
