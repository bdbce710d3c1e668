"""A folder of images, or one image, as a source. Files stay compressed; the runner decodes them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from drive_seg.errors import SourceError
from drive_seg.frame import CompressedImage, Frame
from drive_seg.offline.sources import DEFAULT_FPS, Origin, Unreadable

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
"""Of the formats that ``decode_compressed`` takes."""


def is_image(path: Path, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Whether the name says that it is an image; hidden files are none: macOS leaves ``._1.png`` beside ``1.png``."""
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


class FolderSource:
    """The images of a folder in natural order of their names (``2.png`` before ``10.png``). Where it holds none itself,
    those of its ``image`` folder, as ``drive_seg sim`` writes it, or else of all folders below, one after another.
    Stamps count from 0 at ``DEFAULT_FPS``.

    Raises:
        SourceError: there is no image in it, or two have one name, but for their ending and folder.
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
    found = [file for file in folder.iterdir() if file.is_file() and is_image(file)]
    if not found and (folder / "image").is_dir():
        return _images(folder / "image")
    found = found or [file for file in files_below(folder) if file.is_file() and is_image(file)]
    if not found:
        kinds = " ".join(sorted(SUFFIXES))
        raise SourceError(f"folder {folder} has no images; expected files ending in {kinds}, or a rosbag2 folder")
    found.sort(key=lambda file: [natural(part) for part in file.relative_to(folder).parts])
    named: dict[str, Path] = {}
    for file in found:
        other = named.setdefault(file.stem, file)
        if other is not file:
            raise SourceError(
                f"folder {folder} has several images named '{file.stem}', {other.relative_to(folder)} and "
                f"{file.relative_to(folder)}; their results would share a name"
            )
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """What is in a folder and in the folders below it, but for folders; nothing where there is no folder.

    Raises:
        SourceError: one of them may not be read, which ``Path.rglob`` would leave out without a word.
    """
    for place, _, names in os.walk(folder, onerror=_refuse):
        yield from (Path(place, name) for name in names)


def _refuse(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise SourceError(f"cannot open {error.filename}: {error.strerror}") from error


def natural(name: str) -> list[tuple[int, str]]:
    """A key to sort by: numbers in the name count as such."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
