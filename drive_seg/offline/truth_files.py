"""Ground truth in folders of PNG files: our own, and those of public data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import SourceError
from drive_seg.labels import PANOPTIC_DIVISOR, PANOPTIC_UNLABELLED, LabelSet
from drive_seg.offline.images import files_below, is_image
from drive_seg.offline.instance_lists import ListedInstances, read_instances
from drive_seg.offline.known_ids import KnownIds
from drive_seg.offline.label_image import read_label_image
from drive_seg.offline.lane_files import LaneReader, open_lanes
from drive_seg.offline.scoring import Truth
from drive_seg.offline.truth import TruthSource

Decode = Callable[[Path, NDArray[np.generic]], Truth]
"""From a file and its pixels as OpenCV reads them to a truth; raises SourceError where they are of another kind."""

TRAINING_LABELS = {"background": 0, "road": 1, "lane_marking": 2, "vehicle": 3, "people": 4}
"""Ids of ``labels/`` folders, as training takes them; 255 is void."""


class FolderTruth:
    """One PNG per frame, found by the frame's name or, where files are called by it, its stamp in nanoseconds.

    A frame without a name is found by the stamps of the lists too. The others are not: stamps of folders and videos
    count from zero, so that those of two recordings are equal.

    Args:
        files: by the key that a frame's stem or stamp must equal.
        decode: turns a file's pixels into a truth.
        lanes: the lane boundaries of the frames, where the folder has them.
        suffix: endings that images have and their truth has not, such as ``_leftImg8bit``.
        listed: lines of ``instances.jsonl``, whose ids say which objects are the same in several frames.
        draws_lanes: ``decode`` finds lane boundaries in the files.
    """

    def __init__(
        self,
        name: str,
        files: Mapping[str, Path],
        decode: Decode,
        classes: Mapping[str, int],
        label_map: str | None,
        instances: bool,
        suffix: str = "",
        lanes: LaneReader | None = None,
        listed: Sequence[ListedInstances] = (),
        draws_lanes: bool = False,
    ) -> None:
        self.name = name
        self.classes = classes
        self.instances = instances
        self.label_map = label_map
        self.count: int | None = len(files)
        self._found: set[str] = set()
        self._files = files
        self._decode = decode
        self._suffix = suffix
        self._lanes = lanes
        self._known = KnownIds(classes)
        tracks = {row.frame: row.tracks for row in listed if row.tracks is not None}
        # Frames without objects fit any list; it takes an object that has a track.
        self.tracks = instances and any(tracks.values())
        self._tracks = tracks if self.tracks else {}
        self.lanes = lanes is not None or draws_lanes
        stamps = {row.frame: row.stamp_ns for row in listed} | (lanes.stamps if lanes is not None else {})
        times = Counter(stamps.values())
        self._by_stamp = {stamp: frame for frame, stamp in stamps.items() if times[stamp] == 1 and frame in files}
        self.timed = bool(self._by_stamp) and 0 not in times

    def find(self, stem: str, stamp_ns: int) -> Truth | None:
        """See ``TruthSource.find``."""
        key = stem.removesuffix(self._suffix) if stem else self._by_stamp.get(stamp_ns, "")
        if key not in self._files and stamp_ns > 0:  # 0 is no time, but may well be a name
            key = str(stamp_ns)
        if key not in self._files:
            return None
        if key in self._found and self.count is not None:
            self.count += 1  # frames of one stamp have one file
        self._found.add(key)
        path = self._files[key]
        truth = self._known.check(str(path), self._decode(path, read_label_image(path)))
        if key in self._tracks:
            truth = replace(truth, tracks=self._tracks[key])
        elif self.tracks and not ((truth.map >= PANOPTIC_DIVISOR) & (truth.map != PANOPTIC_UNLABELLED)).any():
            truth = replace(truth, tracks={})  # a list may leave out frames without objects
        return truth if self._lanes is None else replace(truth, lanes=self._lanes.find(path.stem))

    def close(self) -> None:
        """Nothing stays open."""


def open_folder(path: Path, labels: LabelSet, kind: str = "auto") -> TruthSource:
    """The truth in a folder; the arguments are those of ``open_truth``."""
    if kind == "auto":
        kind = _recognise(path)
    if kind == "drive_seg":
        return _own(path, labels)
    if kind == "labels":
        return FolderTruth(str(path), png_files(path / "labels"), mask_truth, TRAINING_LABELS, "labels", False)
    from drive_seg.offline.truth_sets import OPENERS

    if kind not in OPENERS:
        raise SourceError(f"no ground truth format '{kind}'; expected drive_seg, labels, {', '.join(OPENERS)}")
    return OPENERS[kind](path)


def _recognise(path: Path) -> str:
    if (path / "panoptic").is_dir() or (path / "mask").is_dir():
        return "drive_seg"
    if (path / "labels").is_dir():
        return "labels"
    if (path / "lane_instances").is_dir():
        return "tusimple"
    if path.is_file():
        return "coco"
    if any(file.name.endswith(("_labelIds.png", "_instanceIds.png")) for file in files_below(path)):
        return "cityscapes"  # whose folders hold .json too: polygons
    if any(path.glob("*.json")):
        return "coco"
    raise SourceError(
        f"folder {path} is no ground truth that is recognised: expected panoptic/ or mask/ (drive_seg), labels/, "
        "*_labelIds.png (cityscapes) or a panoptic .json (coco); name another with --format"
    )


def _own(path: Path, labels: LabelSet) -> FolderTruth:
    classes = {label.name: label.id for label in labels}
    lanes = open_lanes(path)
    lines = path / "instances.jsonl"
    listed = tuple(read_instances(lines, classes)) if lines.is_file() else ()
    instances = (path / "panoptic").is_dir()
    files = png_files(path / ("panoptic" if instances else "mask"))
    decode = panoptic_truth if instances else mask_truth
    return FolderTruth(str(path), files, decode, classes, None, instances, lanes=lanes, listed=listed)


def png_files(folder: Path, endings: Sequence[str] = ("",)) -> dict[str, Path]:
    """The PNG files in a folder and the folders below it, by stem without the first of ``endings`` that any has.

    Raises:
        SourceError: there is none, or two have one name, or a folder may not be read.
    """
    for ending in endings:
        found: dict[str, Path] = {}
        named = (file for file in files_below(folder) if file.name.endswith(f"{ending}.png"))
        for file in sorted(file for file in named if is_image(file)):
            key = file.stem.removesuffix(ending)
            if key in found:
                raise SourceError(f"ground truth {found[key]} and {file} have the same name; give one folder of them")
            found[key] = file
        if found:
            return found
    expected = " or ".join(f"*{ending}.png" for ending in endings)
    raise SourceError(f"folder {folder} has no ground truth; expected files {expected}")


def panoptic_truth(path: Path, pixels: NDArray[np.generic]) -> Truth:
    """Of uint16 (H, W) panoptic ids; raises SourceError for any other image. ``path`` is for the message."""
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise SourceError(f"{path} must be a 16-bit grey PNG of panoptic ids, got {pixels.dtype} {pixels.shape}")
    return Truth(pixels.astype(np.uint16, copy=False))


def mask_truth(path: Path, pixels: NDArray[np.generic]) -> Truth:
    """Of uint8 (H, W) class ids, as ``panoptic_truth``."""
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise SourceError(f"{path} must be an 8-bit grey PNG of class ids, got {pixels.dtype} {pixels.shape}")
    return Truth(pixels.astype(np.uint8, copy=False))
