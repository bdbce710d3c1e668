"""Where rendered frames of the simulator go: a bag or a folder that later commands read as a source or as truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import ConfigError
from drive_seg.labels import DRIVING
from drive_seg.offline.bag_images import CLOUD, IMAGE
from drive_seg.offline.bag_writer import CAMERA_INFO, DETECTIONS, BagFile
from drive_seg.offline.lane_files import LANES_FILE
from drive_seg.offline.sinks import BAGS, NO_FOLDERS, FrameFolder, make_room
from drive_seg.resources import at_home
from drive_seg.sim import SimFrame


def open_render_sink(
    path: Path, overwrite: bool = False, intrinsics: NDArray[np.float64] | None = None
) -> _BagRender | _FolderRender:
    """A bag for ``.mcap`` and ``.bag2``, else a folder; both take rendered frames in order.

    Args:
        intrinsics: K (3, 3) of the camera, for the bag's ``camera_info``; None writes none.

    Raises:
        ConfigError: ``path`` is taken, or its ending is that of another kind of file.
        MissingDependency: a bag without the package rosbags.
    """
    path = at_home(path)
    if path.suffix in BAGS:
        make_room(path, overwrite, {"metadata.yaml"} if path.suffix == ".bag2" else set())
        return _BagRender(path, intrinsics)
    if path.suffix.lower() in (".mp4", *BAGS, *NO_FOLDERS):
        raise ConfigError(f"output '{path}' must end in .mcap or .bag2, or be a folder; got {path.suffix}")
    make_room(path, overwrite, {"image", "mask", "panoptic", "instances.jsonl", LANES_FILE})
    return _FolderRender(path, ("image", "mask", "panoptic"))


class _FolderRender(FrameFolder):
    def write(self, number: int, frame: SimFrame) -> None:
        bgr, things = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), frame.instances()
        maps: dict[str, NDArray[Any]] = {"image": bgr, "mask": frame.mask, "panoptic": frame.panoptic}
        self.add(f"{number:06d}", frame.stamp_ns, things, frame.lanes, **maps)


class _BagRender:
    def __init__(self, path: Path, intrinsics: NDArray[np.float64] | None) -> None:
        self._bag = BagFile(path)
        self._intrinsics = intrinsics

    def write(self, number: int, frame: SimFrame) -> None:
        bag, at = self._bag, frame.stamp_ns
        bag.require_room(frame.image.nbytes + frame.mask.nbytes + frame.panoptic.nbytes)
        header = bag.header(at, "camera_optical_frame")
        bag.announce("/camera/truth/label_info", DRIVING, header, at)
        bag.write("/camera/image_raw", IMAGE, bag.image(header, "rgb8", frame.image), at)
        if self._intrinsics is not None:
            info = bag.camera_info(header, frame.image.shape[:2], self._intrinsics)
            bag.write("/camera/camera_info", CAMERA_INFO, info, at)
        bag.write("/camera/truth/mask", IMAGE, bag.image(header, "mono8", frame.mask), at)
        bag.write("/camera/truth/panoptic", IMAGE, bag.image(header, "16UC1", frame.panoptic), at)
        bag.write("/camera/truth/lanes", CLOUD, bag.lanes(header, frame.lanes), at)
        bag.write("/camera/truth/instances", DETECTIONS, bag.detections(header, frame.instances()), at)
        bag.commit()

    def close(self) -> None:
        self._bag.close()
