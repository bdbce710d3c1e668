"""Where frames come from. ``open_source`` understands what a user types."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from drive_seg.decode import decode
from drive_seg.errors import MalformedImage, SourceError
from drive_seg.frame import CameraImage, Frame
from drive_seg.resources import POINTER, at_home, is_pointer

DEFAULT_FPS = 30.0
"""Frame rate of sources that do not know theirs: image folders, some cameras."""

EXPECTED = (
    "'sim', a video file, a folder of images, an image, a bag (.mcap, .db3, .bag, a rosbag2 folder), "
    "a device (0, /dev/video0) or a URL (rtsp://, http://)"
)


@dataclass(frozen=True)
class Origin:
    """Where a frame of a source comes from; the ``token`` of its Frame.

    Attributes:
        stem: what its output files are called: the image's own name, or the frame number in six digits.
        frame_id: the coordinate frame of the header; empty outside bags.
        recorded_ns: when a bag recorded it; else the stamp.
        numbered: the stem only counts the images of a bag; its stamp says which one it is, in a cut bag too.
    """

    stem: str
    frame_id: str = ""
    recorded_ns: int = 0
    numbered: bool = False


@dataclass(frozen=True)
class Unreadable:
    """An entry of a source that is no image; the source goes on after it."""

    stem: str
    error: MalformedImage


class Source(Protocol):
    """Frames in order. ``token`` of every Frame is its ``Origin``.

    Iterating raises ``SourceError`` after the last readable frame when the source is cut short.

    Attributes:
        name: for messages.
        fps: frames per second, the recording's own or ``DEFAULT_FPS``.
        count: number of frames, or None where that is unknown or endless.
        live: frames come in real time and for ever; the user ends it.
    """

    name: str
    fps: float
    count: int | None
    live: bool

    def __iter__(self) -> Iterator[Frame | Unreadable]: ...


def numbered_frame(number: int, image: CameraImage, stamp_ns: int) -> Frame:
    """One of a source that counts its frames; it came now."""
    origin = Origin(f"{number:06d}", recorded_ns=stamp_ns)
    return Frame(image, stamp_ns=stamp_ns, received_ns=time.monotonic_ns(), token=origin)


def origin_of(frame: Frame) -> Origin:
    """The ``Origin`` a source put on the frame; one made of the stamp where it came from elsewhere."""
    if isinstance(frame.token, Origin):
        return frame.token
    return Origin(str(frame.stamp_ns), recorded_ns=frame.stamp_ns)


def camera_size(source: Source) -> tuple[int, int] | None:
    """(width, height) of the first readable image; None where there is none, or it cannot be looked at twice.

    The source can be iterated from its beginning afterwards.
    """
    if source.live:
        return None
    try:
        for entry in source:
            if isinstance(entry, Frame):
                with suppress(MalformedImage):
                    image = decode(entry.image)
                    return image.width, image.height
    except SourceError:
        pass  # whoever runs the source is told
    return None


def is_live(spec: str) -> bool:
    """Whether ``spec`` names a device or a stream."""
    return spec.isdecimal() or re.match(r"/dev/video\d+$|[a-z]+://", spec) is not None


def refuse_pointer(path: Path) -> None:
    """Let every file pass but a pointer of Git LFS.

    Raises:
        SourceError: it is one.
    """
    if not path.is_file():
        return
    with suppress(OSError), path.open("rb") as stream:  # whoever reads the file says why it cannot be opened
        if is_pointer(stream.read(256)):
            raise SourceError(f"{path} is {POINTER}")


def open_source(spec: str | Path | int, topic: str | None = None, seed: int = 0, weather: str | None = None) -> Source:
    """Open what ``spec`` names.

    Args:
        spec: ``sim``, a path, a device number or path, or a URL.
        topic: image topic of a bag; by default the only one, or the only one called ``image_raw``.
        seed, weather: of the simulator; weather None is drawn from the seed.

    Raises:
        SourceError: it does not exist, or is nothing that can be read; the message says what was expected.
        MissingDependency: a bag without the package rosbags.
    """
    spec = str(spec)
    if spec == "sim":
        from drive_seg.offline.simulated import SimSource

        return SimSource(seed, weather)
    if is_live(spec):
        from drive_seg.offline.video import open_capture

        return open_capture(spec)
    path = at_home(spec)
    if not spec or not path.exists():  # of an empty name pathlib makes the current folder
        raise SourceError(f"source '{spec}' does not exist; expected {EXPECTED}")
    from drive_seg.offline.bags import BagSource, is_bag
    from drive_seg.offline.images import FolderSource, is_image
    from drive_seg.offline.video import VideoSource

    if is_bag(path):
        return BagSource(path, topic)
    refuse_pointer(path)
    return FolderSource(path) if path.is_dir() or is_image(path) else VideoSource(path)
