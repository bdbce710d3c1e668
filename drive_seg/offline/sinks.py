"""Where results go, chosen by the ending of the output path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
from numpy.typing import NDArray

from drive_seg.decode import decode_rgb
from drive_seg.errors import ConfigError, DriveSegError
from drive_seg.frame import CameraImage, Instance, Lane, PanopticResult
from drive_seg.labels import LabelSet
from drive_seg.offline.disk import require_room, require_writable
from drive_seg.offline.lane_files import LANES_FILE, LaneWriter
from drive_seg.offline.passage import Passage
from drive_seg.offline.sources import origin_of
from drive_seg.offline.video import VideoWriter
from drive_seg.overlay import draw_overlay
from drive_seg.resources import at_home

BAGS = (".mcap", ".bag2")
"""In small letters only: readers of bags go by the ending, and know no other."""
NO_FOLDERS = (".avi", ".mkv", ".mov", ".webm", ".bag", ".db3", ".png", ".jpg", ".json")
"""Endings of an output that was not meant as a folder, and that nothing here writes."""


class Sink(Protocol):
    """Takes results in order. ``write`` and ``close`` are called by one thread, which need not be the maker's."""

    summary_path: Path
    """Where the summary of the run belongs."""

    def write(self, result: PanopticResult) -> None:
        """Store one result; raises DriveSegError where that fails."""
        ...

    def close(self) -> None:
        """Finish the files, so that what was written is readable; raises DriveSegError where that fails."""
        ...


@runtime_checkable
class Carrier(Protocol):
    """A sink that is a bag: it takes other messages too."""

    def carry(self, passage: Passage) -> None:
        """Store a message of the source as it is; raises DriveSegError where that fails."""
        ...


def open_sink(path: Path, labels: LabelSet, fps: float, overwrite: bool = False, overlay: bool = False) -> Sink:
    """The sink for ``path``: ``.mp4`` an overlay video, ``.mcap`` or a folder ``.bag2`` a bag, else a folder.

    Args:
        fps: of the video.
        overwrite: replace results that are there already.
        overlay: also put JPEG overlays into a bag.

    Raises:
        ConfigError: there is something at ``path`` already, or its ending is that of another kind of file.
        MissingDependency: a bag without the package rosbags.
    """
    path = at_home(path)
    suffix = path.suffix.lower()
    if path.suffix in BAGS:
        from drive_seg.offline.bag_writer import BagSink

        make_room(path, overwrite, {"metadata.yaml", "summary.json"} if suffix == ".bag2" else set())
        return BagSink(path, labels, overlay)
    if suffix == ".mp4":
        make_room(path, overwrite, set())
        return VideoSink(path, labels, fps)
    if suffix in (*BAGS, *NO_FOLDERS):
        raise ConfigError(f"output '{path}' must end in .mp4, .mcap or .bag2, or be a folder; got {path.suffix}")
    make_room(path, overwrite, {"mask", "panoptic", "instances.jsonl", LANES_FILE, "summary.json"})
    return FolderSink(path)


def make_room(path: Path, overwrite: bool, ours: set[str]) -> None:
    """``require_replaceable``, then remove what an earlier run left.

    Raises:
        ConfigError: as ``require_replaceable``.
    """
    if require_replaceable(path, overwrite, ours):
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise ConfigError(f"output {path} cannot be written: {error}") from error


def require_replaceable(path: Path, overwrite: bool, ours: set[str]) -> bool:
    """See that ``path`` can be written: make its parent folders; with ``overwrite``, that it may be replaced.

    Args:
        ours: names that such a folder holds, none for a file; only a folder with nothing else is removed. One with a
            bag's metadata.yaml may hold bag files, too.

    Returns:
        Whether anything is there.

    Raises:
        ConfigError: it exists and may not be replaced, or nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        require_writable(path if path.is_dir() else path.parent)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return False
        if not overwrite:
            raise ConfigError(f"output {path} exists already; choose another name, or replace it with --overwrite")
        if not path.is_dir():
            if ours:
                raise ConfigError(f"output {path} is to be a folder, and a file has that name; it is not removed")
            return True
        storage = (".db3", ".mcap") if "metadata.yaml" in ours else ()
        foreign = sorted(e.name for e in path.iterdir() if e.name not in ours and e.suffix not in storage)
    except OSError as error:
        raise ConfigError(f"output {path} cannot be written: {error}") from error
    if foreign:
        raise ConfigError(f"output folder {path} holds files of others ({foreign[0]}); it is not removed")
    return True


class FrameFolder:
    """``KIND/<stem>.png``, ``instances.jsonl``, and ``lanes.jsonl`` where frames have lane boundaries.

    A line of ``instances.jsonl`` is one frame: ``{"frame": stem, "stamp_ns": ..., "instances": [{"id", "class_id",
    "class", "score", "bbox": [x, y, width, height], "area"}]}``, pixels of the camera image; ``id`` is a text,
    ``Instance.id``.
    """

    def __init__(self, path: Path, kinds: Sequence[str]) -> None:
        self._path = path
        with _writing(path):
            for kind in kinds:
                (path / kind).mkdir(parents=True, exist_ok=True)
            self._lines = (path / "instances.jsonl").open("w", encoding="utf-8")
        self._lanes = LaneWriter(path)

    def add(
        self,
        stem: str,
        stamp_ns: int,
        instances: Sequence[Instance],
        lanes: Sequence[Lane] | None,
        **images: NDArray[Any],
    ) -> None:
        """Write a frame, whose images are uint8 or uint16 (H, W), or BGR; raises DriveSegError where that fails."""
        for kind, image in images.items():
            _write_png(self._path / kind / f"{stem}.png", image)
        rows = [
            {
                "id": instance.id,
                "class_id": instance.class_id,
                "class": instance.class_name,
                "score": instance.score,
                "bbox": [instance.box.x, instance.box.y, instance.box.width, instance.box.height],
                "area": instance.area,
            }
            for instance in instances
        ]
        with _writing(self._path):
            self._lines.write(json.dumps({"frame": stem, "stamp_ns": stamp_ns, "instances": rows}) + "\n")
        if lanes is not None:
            self._lanes.write(stem, stamp_ns, lanes)

    def close(self) -> None:
        """Close the lists; raises DriveSegError where that fails."""
        with _writing(self._path):
            self._lines.close()
            self._lanes.close()


class FolderSink(FrameFolder):
    """Of results: ``mask`` (8-bit class ids) and ``panoptic`` (16-bit), with ``summary.json``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, ("mask", "panoptic"))
        self.summary_path = path / "summary.json"

    def write(self, result: PanopticResult) -> None:
        """Write the two images and the lines."""
        stem, stamp = origin_of(result.frame).stem, result.frame.stamp_ns
        self.add(stem, stamp, result.instances, result.lanes, mask=result.mask, panoptic=result.panoptic)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the system refuses in here is a DriveSegError that names the output."""
    try:
        yield
    except OSError as error:
        raise DriveSegError(f"output {path} cannot be written: {error}") from error


def _write_png(path: Path, image: NDArray[Any]) -> None:
    ok, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise DriveSegError(f"cannot encode {path} as PNG: {image.dtype} {image.shape}")
    require_room(path.parent, data.nbytes)
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        path.unlink(missing_ok=True)  # half an image would be taken for damage
        raise DriveSegError(f"cannot write {path}: {error}") from error


class VideoSink:
    """The overlay video; ``NAME.mp4.summary.json`` beside it. Frames of other sizes are fitted to the first one's."""

    def __init__(self, path: Path, labels: LabelSet, fps: float) -> None:
        self.summary_path = path.with_name(f"{path.name}.summary.json")
        self._labels = labels
        self._writer = VideoWriter(path, fps)

    def write(self, result: PanopticResult) -> None:
        """Draw and append."""
        image = result.frame.image
        if not isinstance(image, CameraImage):
            raise DriveSegError("a video needs decoded frames; the frame is still compressed")
        self._writer.write(draw_overlay(decode_rgb(image), result, self._labels, result.times))

    def close(self) -> None:
        """Finish the video."""
        self._writer.close()
