"""ROS bags as a source: MCAP, SQLite, rosbag2 folders and ROS 1, read by the library rosbags without ROS."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from drive_seg.errors import MalformedImage, MissingDependency, SourceError, counted, one_line
from drive_seg.frame import CameraImage, CompressedImage, Frame
from drive_seg.offline.bag_images import IMAGE, stamp_of
from drive_seg.offline.bag_types import decoder, open_reader, ros2_types
from drive_seg.offline.passage import Copier, Passage
from drive_seg.offline.read_ahead import read_ahead
from drive_seg.offline.salvage import missing_files, ros2_name, salvage_messages, storage_files
from drive_seg.offline.sources import DEFAULT_FPS, Origin, Unreadable, refuse_pointer
from drive_seg.offline.unpack import plain

BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
IMAGE_TYPES = (IMAGE, "sensor_msgs/msg/CompressedImage")

_VIDEO = ("/CompressedVideo", "/FFMPEGPacket", "theora_image_transport/msg/Packet")
"""How the types of messages end that hold packets of a video."""
_DECODE_VIDEO = (
    "packets of a video have to be decoded first: ros2 run image_transport republish, see docs/troubleshooting.md"
)

_LISTED = 8
"""Topics that are named where none is of images."""


def is_bag(path: Path) -> bool:
    """Whether this is a bag file, or a folder that rosbag2 recorded into (closed properly or not).

    Raises:
        SourceError: its ending is none by which readers of bags know it; its files are compressed, and there is no
            metadata.yaml that says how; or they are pointers of Git LFS.
    """
    found = _is_called_bag(path)
    for file in storage_files(path) if found else ():
        refuse_pointer(file)
    return found


def _is_called_bag(path: Path) -> bool:
    if path.is_file():
        if _packed(path):
            unpack = f"zstd -d {shlex.quote(str(path))}"
            raise SourceError(f"bag {path} is one compressed file: give its folder with metadata.yaml, or do: {unpack}")
        if path.name.endswith(".bag.active"):
            raise SourceError(f"bag {path} was never closed: rename it to {path.stem} to have what is in it")
        ending = path.suffix.lower()
        if ending in BAG_SUFFIXES and ending != path.suffix:
            raise SourceError(f"bag {path} must end in small letters: rename it to {path.with_suffix(ending).name}")
        return ending in BAG_SUFFIXES
    if (path / "metadata.yaml").is_file():
        return True
    if any(map(_packed, path.iterdir())):
        unpack = f"zstd -d --rm {shlex.quote(str(path))}/*.zstd"
        raise SourceError(f"bag {path} has compressed files but no metadata.yaml, it was never closed: do {unpack}")
    return bool(storage_files(path))


def _packed(file: Path) -> bool:
    return file.name.endswith(tuple(f"{ending}.zstd" for ending in BAG_SUFFIXES))


@dataclass(frozen=True)
class _Image:
    recorded_ns: int
    decode: Callable[[], Any]


@dataclass(frozen=True)
class Beside:
    """A message of another topic; ``decode`` raises whatever damaged bytes lead to."""

    topic: str
    decode: Callable[[], Any]


class BagSource:
    """The images of one topic, with their headers' stamps and frame ids.

    Of a bag that is damaged or was cut off, all that can be read is; then iterating raises SourceError.

    Args:
        topic: None takes the only image topic, or the only one called ``image_raw`` (``.../compressed``).
        window: only what was recorded from the first to before the second, ns; a bag that cannot be opened by its
            index is read whole.

    Raises:
        SourceError: unreadable, no image topic, several candidates, or no such topic; the message lists them.
        MissingDependency: rosbags is not installed.
    """

    live = False

    def __init__(self, path: Path, topic: str | None = None, window: tuple[int, int] | None = None) -> None:
        self._window = window
        self.recorded: tuple[int, int] | None = None
        """When the first and the last message were recorded, ns; None where the bag is not read by rosbags."""
        self.name = str(path)
        self._path = path
        self._why = ""  # rosbags does not read it
        self._damage = ""
        try:
            with open_reader(path) as reader:
                counts: dict[str, int] = {}
                kinds = {c.topic: ros2_name(c.msgtype) for c in reader.connections}
                for c in reader.connections:  # a topic has one for each publisher (ROS 1) and each file
                    if ros2_name(c.msgtype) in IMAGE_TYPES:
                        counts[c.topic] = counts.get(c.topic, 0) + c.msgcount
                seconds = reader.duration / 1e9
                self.recorded = (reader.start_time, reader.end_time)
        except MissingDependency:
            raise
        except Exception as error:  # noqa: BLE001 - a damaged file raises whatever its bytes lead to
            self._why = one_line(error) or type(error).__name__
            counts, seconds, kinds, lost = self._survey()
            self._damage = self._why if lost else ""
        self.topic = _choose(path, counts, topic, kinds, self._why if self._damage or not kinds else "")
        self.count: int | None = counts[self.topic] if window is None else None
        rate = (counts[self.topic] - 1) / seconds if seconds > 0 else 0.0
        self.fps = rate if 0.1 < rate < 1000 else DEFAULT_FPS

    @property
    def whole(self) -> Path | None:
        """The bag, where all of it can be read, by rosbags, and is asked for."""
        return self._path if self._window is None and not self._why else None

    @property
    def quick(self) -> bool:
        """Whether nothing has to be decoded, going by how ROS names the topics of compressed images."""
        return not self.topic.endswith("/compressed")

    def _survey(self) -> tuple[dict[str, int], float, dict[str, str], list[str]]:
        """Image count per topic and the duration of what can be salvaged, the type of every topic, and what is lost.

        That may be nothing: rosbags refuses bags for what is beside the images, too (JSON, definitions that it cannot
        parse, a newer metadata.yaml).
        """
        counts: dict[str, int] = {}
        kinds: dict[str, str] = {}
        times = []
        lost = missing_files(self._path)
        for message in salvage_messages(storage_files(self._path), lost):
            kinds[message.topic] = message.msgtype
            if message.msgtype in IMAGE_TYPES:
                counts[message.topic] = counts.get(message.topic, 0) + 1
                times.append(message.recorded_ns)
        return counts, (max(times) - min(times)) / 1e9 if times else 0.0, kinds, lost

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        return (entry for entry in self.entries() if isinstance(entry, (Frame, Unreadable)))

    def entries(
        self, copying: bool = False, beside: Collection[str] = ()
    ) -> Generator[Frame | Unreadable | Passage | Beside, None, None]:
        """What iterating yields; with ``copying`` also every message of the bag, each in its place.

        Args:
            beside: topics whose messages are wanted too, up to where the bag is damaged.
        """
        number = 0
        damage = self._damage
        for item in self._salvaged(copying) if self._why else self._messages(copying, beside):
            if isinstance(item, str):
                damage = item
            elif isinstance(item, (Passage, Beside)):
                yield item
            else:
                yield _entry(number, item)
                number += 1
        if damage:
            what = "is cut short" if self._damage else "is damaged"
            raise SourceError(
                f"bag {self.name} {what}: {counted(number, 'image')} of {self.topic} could be read ({damage})"
            )

        if self.count and not number:  # of the whole bag
            raise SourceError(
                f"bag {self.name} has no images of {self.topic}, though its metadata.yaml counts {self.count}: correct "
                f"it, or do ros2 bag reindex{_topics_of(storage_files(self._path))}"
            )

    def _messages(self, copying: bool, beside: Collection[str]) -> Iterator[_Image | Passage | Beside | str]:
        """What is asked for, in order of recording; where that fails, why, and then what is left."""
        read = 0
        try:
            with open_reader(self._path) as reader:
                copier = Copier(reader) if copying else None
                decode = decoder(reader)
                wanted = [
                    c for c in reader.connections if c.topic == self.topic and ros2_name(c.msgtype) in IMAGE_TYPES
                ]
                others = [c for c in reader.connections if c.topic in beside]
                start, stop = self._window or (None, None)
                messages = reader.messages(() if copier else wanted + others, start, stop)
                span = reader.start_time, reader.end_time
                for connection, recorded, packed in read_ahead(storage_files(self._path), span, messages):
                    raw = plain(packed) if reader.is2 else packed
                    if connection in others:
                        yield Beside(connection.topic, partial(decode, raw, connection.msgtype))
                        if not copier:
                            continue
                    passage = copier and copier.copied(connection, recorded, raw)
                    if passage:
                        yield passage
                    if connection in wanted:
                        yield _Image(recorded, partial(decode, raw, connection.msgtype))
                    read += 1
                return
        except Exception as error:  # noqa: BLE001 - see __init__
            yield one_line(error) or type(error).__name__
        yield from self._salvaged(copying, read, self._window)

    def _salvaged(
        self, copying: bool, skip: int = 0, window: tuple[int, int] | None = None
    ) -> Iterator[_Image | Passage]:
        """As ``_messages``, in the order of the file and without its index, but for the first ``skip``."""
        store = ros2_types()
        copier = Copier() if copying else None
        messages = (m for m in salvage_messages(storage_files(self._path)) if copier or m.topic == self.topic)
        if window is not None:
            messages = (m for m in messages if window[0] <= m.recorded_ns < window[1])
        for message in islice(messages, skip, None):
            passage = copier and copier.salvaged(message)
            if passage:
                yield passage
            if message.topic == self.topic and message.msgtype in IMAGE_TYPES:
                yield _Image(message.recorded_ns, partial(store.deserialize_cdr, message.data, message.msgtype))
        if copier and copier.left_out and self._why and not self._damage:
            topics = ", ".join(sorted(copier.left_out))
            raise SourceError(f"bag {self.name}: all but the messages of {topics} could be copied ({self._why})")


class BagCopy:
    """A bag's images as of its ``BagSource``, and every message of the bag beside them: for an output bag that has all.

    Results of an earlier run are left out, and so are topics whose type neither the bag nor ROS defines.
    """

    def __init__(self, bag: BagSource) -> None:
        self.count = bag.count
        self._bag = bag

    def __iter__(self) -> Iterator[Frame | Unreadable | Passage]:
        return (entry for entry in self._bag.entries(copying=True) if not isinstance(entry, Beside))


def _topics_of(files: Collection[Path]) -> str:
    """Those that storage files have themselves, whatever is said of them beside; as the end of a message."""
    found: set[str] = set()
    for file in files:
        with suppress(Exception), open_reader(file) as reader:  # see BagSource.__init__
            found.update(connection.topic for connection in reader.connections)
    return f"; its files have {', '.join(sorted(found))}" if found else ""


def _choose(path: Path, counts: dict[str, int], topic: str | None, kinds: dict[str, str], refused: str) -> str:
    if not counts:
        why = f"; it is damaged, or of another kind: {refused}" if refused else ""
        there = [f"{name} ({kind})" for name, kind in sorted(kinds.items())]
        listed = ", ".join(there[:_LISTED]) + (f" and {len(there) - _LISTED} more" if len(there) > _LISTED else "")
        has = f"; it has {listed}" if there else ""
        video = f"; {_DECODE_VIDEO}" if any(kind.endswith(_VIDEO) for kind in kinds.values()) else ""
        raise SourceError(f"bag {path} has no readable image topic of type {' or '.join(IMAGE_TYPES)}{has}{video}{why}")
    listed = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    if topic is not None:
        if topic not in counts:
            kind = kinds.get(topic, "")
            video = f"; {_DECODE_VIDEO}" if kind.endswith(_VIDEO) else ""
            other = f", that is {kind}{video}" if kind else ""
            raise SourceError(f"bag {path} has no image topic '{topic}'{other}; it has {listed}")
        return topic
    cameras = [name for name in counts if name.removesuffix("/compressed").endswith("/image_raw")]
    candidates = cameras if len(counts) > 1 else list(counts)
    if len(candidates) != 1:
        raise SourceError(f"bag {path} has several image topics, choose one with --topic: {listed}")
    return candidates[0]


def _entry(number: int, item: _Image) -> Frame | Unreadable:
    stem = f"{number:06d}"
    try:
        message = item.decode()
    except Exception as error:  # noqa: BLE001 - a damaged message raises whatever its bytes lead to
        return Unreadable(stem, MalformedImage(f"no message: {one_line(error)}"))
    data = np.asarray(message.data).view(np.uint8)
    image: CameraImage | CompressedImage
    if hasattr(message, "format"):
        image = CompressedImage(data, message.format)
    else:
        try:
            image = CameraImage(
                message.encoding, message.width, message.height, message.step, data, bool(message.is_bigendian)
            )
        except MalformedImage as error:
            return Unreadable(stem, error)
    origin = Origin(stem, message.header.frame_id, item.recorded_ns, numbered=True)
    return Frame(image, stamp_ns=stamp_of(message), received_ns=time.monotonic_ns(), token=origin)
