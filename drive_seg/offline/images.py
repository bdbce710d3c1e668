"""A folder of images, or one image, as a source. Files stay compressed; the runner decodes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from drive_seg.errors import SourceError
from drive_seg.frame import CompressedImage, Frame
from drive_seg.offline.sources import DEFAULT_FPS, Origin, Unreadable

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def is_image(path: Path) -> bool:
    """Whether the name says that it is an image file."""
    return path.suffix.lower() in SUFFIXES


class FolderSource:
    """The images of a folder in natural order of their names (``2.png`` before ``10.png``); its ``image`` folder
    where it has one, as ``drive_seg sim`` writes it. Stamps count from 0 at ``DEFAULT_FPS``.

    Raises:
        SourceError: there is no image in it, or two differ only in their ending.
    """

    live = False
    fps = DEFAULT_FPS

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._files = [path] if path.is_file() else _images(path)
        self.count: int | None = len(self._files)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        for number, file in enumerate(self._files):
            try:
                data = np.fromfile(file, np.uint8)
            except OSError as error:
                raise SourceError(f"cannot read {file}: {error}") from error
            stamp = round(number * 1e9 / self.fps)
            image = CompressedImage(data, file.suffix[1:].lower())
            yield Frame(image, stamp_ns=stamp, token=Origin(file.stem, recorded_ns=stamp))


def _images(folder: Path) -> list[Path]:
    found = sorted((file for file in folder.iterdir() if file.is_file() and is_image(file)), key=_natural)
    if not found and (folder / "image").is_dir():
        return _images(folder / "image")
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise SourceError(f"folder {folder} has no images; expected files ending in {kinds}, or a rosbag2 folder")
    doubled = [stem for stem, times in Counter(file.stem for file in found).items() if times > 1]
    if doubled:
        raise SourceError(f"folder {folder} has several images named '{doubled[0]}'; their results would share a name")
    return found


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
