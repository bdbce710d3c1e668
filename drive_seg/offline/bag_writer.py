"""Bags that ROS 2 Humble and later play: the node's topics with the recording's own stamps."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.decode import decode_rgb
from drive_seg.errors import ConfigError, DriveSegError
from drive_seg.frame import CameraImage, Instance, Lane, PanopticResult
from drive_seg.labels import LabelSet
from drive_seg.lanes.table import FIELDS, POINT_FIELD_TYPES, RECORD, to_records
from drive_seg.offline.bag_images import CLOUD, IMAGE, LABEL_INFO
from drive_seg.offline.bag_types import ros2_types
from drive_seg.offline.disk import require_room
from drive_seg.offline.passage import Channel, Passage
from drive_seg.offline.sources import origin_of
from drive_seg.offline.unpack import bound_rosbags
from drive_seg.overlay import draw_overlay

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
DETECTIONS = "vision_msgs/msg/Detection2DArray"


class BagFile:
    """A bag being written: ``NAME.mcap`` is one MCAP file, ``NAME.bag2`` a rosbag2 folder with SQLite storage.

    The file is made by the first ``write``, and by its thread, since SQLite is bound to one.

    Raises:
        ConfigError: there can be no such bag at ``path``.
        MissingDependency: rosbags is not installed, or too old.
    """

    def __init__(self, path: Path) -> None:
        bound_rosbags()
        if path.suffix != ".mcap" and any(sign in str(path) for sign in "#?%"):
            # rosbags hands SQLite the path as a URI, in which they mean something else.
            raise ConfigError(f"a bag with SQLite storage cannot be in a path with # ? or %: {path}; write .mcap")
        self.path = path
        self._store = ros2_types()
        self.types: Any = self._store.types
        self._scratch: Path | None = None
        self._writer: Any = None
        self._database: sqlite3.Connection | None = None
        self._channels: dict[str, Channel] = {}
        self._connections: dict[tuple[str, str], Any] = {}

    def write(self, topic: str, msgtype: str, message: Any, recorded_ns: int, latched: bool = False) -> None:
        """Append one message of ``types``; raises DriveSegError where that fails."""
        if topic not in self._channels:
            definition, _ = self._store.generate_msgdef(msgtype, ros_version=2)
            digest = self._store.hash_rihs01(msgtype)
            self._channels[topic] = Channel(topic, msgtype, definition, digest, [self._profile(latched)])
        self.carry(Passage(self._channels[topic], recorded_ns, self._store.serialize_cdr(message, msgtype)))

    def announce(self, topic: str, labels: LabelSet, header: Any, recorded_ns: int) -> None:
        """Append a latched vision_msgs/LabelInfo, once; raises DriveSegError where that fails."""
        if topic not in self._channels:
            classes = [self.types["vision_msgs/msg/VisionClass"](label.id, label.name) for label in labels]
            self.write(topic, LABEL_INFO, self.types[LABEL_INFO](header, classes, 0.0), recorded_ns, latched=True)

    def carry(self, passage: Passage) -> None:
        """Append a serialised message; raises DriveSegError where that fails."""
        channel = passage.channel
        try:
            if self._writer is None:
                self._writer = self._open()
            key = (channel.topic, channel.msgtype)
            if key not in self._connections:
                self._connections[key] = self._writer.add_connection(
                    channel.topic,
                    channel.msgtype,
                    msgdef=channel.definition,
                    rihs01=channel.digest,
                    offered_qos_profiles=channel.qos,
                )
            self._writer.write(self._connections[key], passage.recorded_ns, passage.data)
        except Exception as error:  # of SQLite, the system or rosbags, by what fails
            if self._database is not None:
                self._database.rollback()
            raise DriveSegError(f"cannot write bag {self.path}: {error}") from error

    def require_room(self, size: int) -> None:
        """Raise DriveSegError unless ``size`` more bytes fit on the disk, so that the bag can still be closed."""
        # Twice: rosbags holds a chunk of MCAP in memory before it writes it.
        require_room(self.path.parent, 2 * size)

    def commit(self) -> None:
        """Have SQLite keep what was written so far, whatever becomes of the rest; MCAP does as it goes.

        Raises:
            DriveSegError: it could not; nothing since the last time is in the bag.
        """
        if self._database is None:
            return
        try:
            self._database.commit()
        except sqlite3.Error as error:
            self._database.rollback()
            raise DriveSegError(f"cannot write bag {self.path}: {error}") from error

    def _open(self) -> Any:
        from rosbags.rosbag2 import StoragePlugin, Writer

        if self.path.suffix != ".mcap":
            if self.path.is_dir():
                self.path.rmdir()
            folder, plugin = self.path, StoragePlugin.SQLITE3
        else:
            # rosbags makes folders; a single MCAP file is moved out of its folder at the end.
            self._scratch = Path(tempfile.mkdtemp(prefix=".drive_seg_", dir=self.path.parent))
            folder, plugin = self._scratch / self.path.stem, StoragePlugin.MCAP
        writer = Writer(folder, version=8, storage_plugin=plugin)
        writer.open()
        self._database = getattr(writer.storage, "conn", None)
        if self._database is not None:
            # As rosbag2 does it: the bag survives the end of this process, not that of the machine's power.
            self._database.execute("PRAGMA synchronous = OFF")
        return writer

    def _profile(self, latched: bool) -> Any:
        from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

        forever = QosTime(2147483647, 4294967295)
        durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
        return Qos(
            QosHistory.KEEP_LAST,
            1 if latched else 10,
            QosReliability.RELIABLE,
            durability,
            forever,
            forever,
            QosLiveliness.AUTOMATIC,
            forever,
            False,
        )

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        """std_msgs/Header. A stamp beyond 2038 keeps what its seconds cannot hold in the nanoseconds, as it came."""
        seconds = min(stamp_ns // 1_000_000_000, 2**31 - 1)
        stamp = self.types["builtin_interfaces/msg/Time"](seconds, stamp_ns - seconds * 1_000_000_000)
        return self.types["std_msgs/msg/Header"](stamp, frame_id)

    def image(self, header: Any, encoding: str, pixels: NDArray[Any]) -> Any:
        """sensor_msgs/Image of a (H, W) or (H, W, channels) array."""
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        return self.types[IMAGE](header, height, width, encoding, 0, data.size // height, data)

    def camera_info(self, header: Any, size: tuple[int, ...], intrinsics: NDArray[np.float64]) -> Any:
        """sensor_msgs/CameraInfo of a pinhole camera: ``size`` is (H, W) pixels, ``intrinsics`` K (3, 3)."""
        everything = self.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        p = np.hstack([intrinsics, np.zeros((3, 1))]).reshape(-1)
        k, r = intrinsics.reshape(-1), np.eye(3).reshape(-1)
        return self.types[CAMERA_INFO](header, size[0], size[1], "plumb_bob", np.zeros(5), k, r, p, 0, 0, everything)

    def lanes(self, header: Any, lanes: Sequence[Lane]) -> Any:
        """sensor_msgs/PointCloud2 of lane boundaries, see ``drive_seg.lanes.table``; without a calibration."""
        field = self.types["sensor_msgs/msg/PointField"]
        fields = [field(name, offset, POINT_FIELD_TYPES[kind], 1) for name, offset, kind in FIELDS]
        records = to_records(lanes)
        step, data = RECORD.itemsize, records.view(np.uint8)
        return self.types[CLOUD](header, 1, records.size, fields, False, step, data.size, data, False)

    def detections(self, header: Any, instances: Sequence[Instance]) -> Any:
        """vision_msgs/Detection2DArray."""
        return self.types[DETECTIONS](header, [self._detection(header, instance) for instance in instances])

    def _detection(self, header: Any, instance: Instance) -> Any:
        types = self.types
        box = instance.box
        point = types["vision_msgs/msg/Point2D"](box.x + box.width / 2, box.y + box.height / 2)
        center = types["vision_msgs/msg/Pose2D"](point, 0.0)
        bbox = types["vision_msgs/msg/BoundingBox2D"](center, float(box.width), float(box.height))
        nowhere = types["geometry_msgs/msg/Pose"](
            types["geometry_msgs/msg/Point"](0.0, 0.0, 0.0), types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        )
        pose = types["geometry_msgs/msg/PoseWithCovariance"](nowhere, np.zeros(36))
        hypothesis = types["vision_msgs/msg/ObjectHypothesis"](instance.class_name, float(instance.score))
        result = types["vision_msgs/msg/ObjectHypothesisWithPose"](hypothesis, pose)
        return types["vision_msgs/msg/Detection2D"](header, [result], bbox, instance.id)

    def close(self) -> None:
        """Write index and metadata; a bag without messages leaves no file.

        Raises:
            DriveSegError: they cannot be written. The messages stay, and are read like those of a bag cut short.
        """
        if self._writer is None:
            return
        try:
            self._writer.close()
        except (OSError, sqlite3.Error) as error:
            with suppress(OSError, sqlite3.Error):  # the same again: it writes what it still has in its hands
                self._writer.abort()
            raise DriveSegError(f"cannot finish bag {self.path}: {error}; it is readable, without index") from error
        finally:
            if self._scratch is not None:
                self._move_out(self._scratch)

    def _move_out(self, scratch: Path) -> None:
        try:
            for file in (scratch / self.path.stem).glob("*.mcap"):
                file.replace(self.path)
        except OSError as error:
            raise DriveSegError(f"cannot put bag {self.path} in its place: {error}; it is in {scratch}") from error
        shutil.rmtree(scratch, ignore_errors=True)


class BagSink:
    """``/segmentation/mask``, ``panoptic``, ``instances``, ``label_info``, ``lanes`` where results have them, and
    ``overlay/compressed`` if asked for; the summary in the bag's folder, or as ``NAME.mcap.summary.json`` beside a
    single file."""

    def __init__(self, path: Path, labels: LabelSet, overlay: bool = False) -> None:
        single = path.suffix == ".mcap"
        self.summary_path = path.with_name(f"{path.name}.summary.json") if single else path / "summary.json"
        self._bag = BagFile(path)
        self._labels = labels
        self._overlay = overlay

    def write(self, result: PanopticResult) -> None:
        """Append the messages of one frame, all with the camera's header."""
        origin, bag = origin_of(result.frame), self._bag
        bag.require_room(result.mask.nbytes + result.panoptic.nbytes)
        at = origin.recorded_ns
        header = bag.header(result.frame.stamp_ns, origin.frame_id)
        bag.announce("/segmentation/label_info", self._labels, header, at)
        bag.write("/segmentation/mask", IMAGE, bag.image(header, "mono8", result.mask), at)
        bag.write("/segmentation/panoptic", IMAGE, bag.image(header, "16UC1", result.panoptic), at)
        bag.write("/segmentation/instances", DETECTIONS, bag.detections(header, result.instances), at)
        if result.lanes is not None:
            bag.write("/segmentation/lanes", CLOUD, bag.lanes(header, result.lanes), at)
        if self._overlay and isinstance(result.frame.image, CameraImage):
            drawn = draw_overlay(decode_rgb(result.frame.image), result, self._labels, result.times)
            jpeg = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1]
            message = bag.types[COMPRESSED](header, "jpeg", jpeg.reshape(-1))
            bag.write("/segmentation/overlay/compressed", COMPRESSED, message, at)
        bag.commit()

    def carry(self, passage: Passage) -> None:
        """Append a message of the source as it is."""
        self._bag.require_room(len(passage.data))
        self._bag.carry(passage)

    def close(self) -> None:
        """Finish the bag."""
        self._bag.close()
