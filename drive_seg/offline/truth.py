"""Where ground truth comes from, and how it finds its frame: by name, or by acquisition time.

``open_truth`` understands what a user types; ``truth_files`` reads folders, ``truth_bags`` bags.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from drive_seg.errors import SourceError
from drive_seg.labels import LabelSet
from drive_seg.offline.scoring import Truth
from drive_seg.resources import at_home

FORMATS = ("auto", "drive_seg", "labels", "cityscapes", "coco", "camvid", "kitti", "bdd100k", "carla", "tusimple")


class TruthSource(Protocol):
    """The truth of one recording or data set.

    Attributes:
        name: for messages.
        classes: its own class ids by name, 0..254.
        instances: it tells objects apart.
        label_map: name of the label map that fits it, None where its classes are the model's.
        count: number of frames it has, one for each that found it where several did; None where that is unknown or
            endless.
        tracks: it says of some frames which objects are the same as in others.
        lanes: it has the lane boundaries of some frames.
        timed: its stamps are times, by which the images of a bag are found rather than by their running numbers.
    """

    name: str
    classes: Mapping[str, int]
    instances: bool
    label_map: str | None
    count: int | None
    tracks: bool
    lanes: bool
    timed: bool

    def find(self, stem: str, stamp_ns: int) -> Truth | None:
        """The truth of a frame, None where there is none. Frames are asked for in the order of their source.

        Args:
            stem: the frame's name, empty where it has a stamp only.

        Raises:
            SourceError: it is there and cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of files."""
        ...


def open_truth(spec: str | Path, labels: LabelSet, kind: str = "auto", topic: str | None = None) -> TruthSource:
    """Open ground truth.

    Args:
        spec: a folder or a bag.
        labels: of the model: drive_seg's own truth has its classes.
        kind: one of ``FORMATS``.
        topic: truth topic of a bag; by default the one whose name says so.

    Raises:
        SourceError: it does not exist or holds no truth of this format; the message says what was looked for.
        MissingDependency: a bag without the package rosbags.
    """
    from drive_seg.offline.bags import is_bag
    from drive_seg.offline.truth_files import open_folder

    path = at_home(spec)
    if not path.exists():
        raise SourceError(f"ground truth '{spec}' does not exist; expected a folder or a bag")
    if is_bag(path):
        from drive_seg.offline.truth_bags import BagTruth

        if kind not in ("auto", "drive_seg", "carla"):
            raise SourceError(
                f"ground truth {spec} is a bag, whose ids are drive_seg's or those of CARLA's cameras; the format "
                f"{kind} is one of folders. Other classes of a bag are named by a topic label_info beside its truth"
            )
        return BagTruth(path, labels, topic, carla=kind == "carla")
    if path.is_file() and path.suffix != ".json":
        raise SourceError(f"ground truth {spec} is a file; expected a folder, a bag, or a COCO panoptic .json")
    return open_folder(path, labels, kind)
