"""Ground truth in a topic of a bag, matched by stamp; and the simulator's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from drive_seg.decode import decode_rgb
from drive_seg.errors import MalformedImage, SourceError, one_line
from drive_seg.frame import CameraImage
from drive_seg.labels import UNLABELLED, LabelSet
from drive_seg.offline.bag_images import (
    CLOUD,
    IMAGE,
    LABEL_INFO,
    Topic,
    bag_messages,
    bag_topics,
    lanes_of,
    pixels_of,
    stamp_of,
)
from drive_seg.offline.instance_lists import instances_of
from drive_seg.offline.known_ids import KnownIds
from drive_seg.offline.prefetch import cores_to_spare, prefetch
from drive_seg.offline.scoring import Truth
from drive_seg.offline.truth_carla import CARLA, carla_truth

TOPICS = ("truth/panoptic", "truth/mask", "ground_truth/panoptic", "ground_truth/mask")
"""Endings of truth topics, the best first."""
CARLA_TOPICS = ("instance_segmentation", "semantic_segmentation")
"""What the topics of CARLA's tag cameras have in their names, the best first."""
_WAITING = 8
"""Truths kept that are later, or earlier, than the frame asked for: topics of a recording are a little out of step."""
_MOST = 4 * _WAITING
"""Truths kept of those that come without being asked for."""


class BagTruth:
    """A topic of 16UC1 panoptic ids or mono8 class ids; with ``carla``, of images of CARLA's tag cameras. The topic
    ``lanes`` beside it has the lane boundaries.

    A topic ``instances`` beside one of panoptic ids says by its ids which objects are the same in several frames. One
    called ``label_info`` names the classes; without it they are those of ``labels``.

    Args:
        window: only what was recorded from the first to before the second, ns; ``count`` is of the whole bag.

    Raises:
        SourceError: no such topic; the message lists those there are.
        MissingDependency: rosbags is not installed.
    """

    timed = True

    def __init__(
        self,
        path: Path,
        labels: LabelSet,
        topic: str | None = None,
        carla: bool = False,
        window: tuple[int, int] | None = None,
    ) -> None:
        self.name = str(path)
        self.whole = path if window is None else None
        there = bag_topics(path)
        self.topic, self._carla = _choose(path, there, topic, carla)
        base = self.topic.rpartition("/")[0]
        self.classes: Mapping[str, int] = CARLA
        if not self._carla:
            self.classes = _named(path, f"{base}/label_info", there) or {label.name: label.id for label in labels}
        self.label_map = "carla" if self._carla else None
        self._known = KnownIds(self.classes)
        self.instances = _tells_apart(path, self.topic, self._carla)
        self.count = there[self.topic].count
        listing, lanes = f"{base}/instances", f"{base}/lanes"
        self._listing = listing if self.topic.endswith("panoptic") and listing in there else None
        self._lane_topic = lanes if lanes in there and there[lanes].msgtype == CLOUD else None
        self.tracks, self.lanes = self._listing is not None, self._lane_topic is not None
        self.topics = [name for name in (self.topic, self._listing, self._lane_topic) if name is not None]
        messages = bag_messages(path, self.topics, window)
        self._messages = prefetch(messages) if cores_to_spare() else messages
        self._read_on = self._read
        self._told: Counter[str] = Counter()
        self._last: Any = None
        self._waiting: dict[str, dict[int, Any]] = {topic: {} for topic in self.topics}

    def find(self, stem: str, stamp_ns: int) -> Truth | None:
        """See ``TruthSource.find``; frames are matched by the stamps of their headers."""
        maps, by_topic = self._waiting[self.topic], self._waiting.values()
        while not all(stamp_ns in kept for kept in by_topic) and sum(stamp > stamp_ns for stamp in maps) < _WAITING:
            if not self._read_on():
                break
            self._forget(stamp_ns)
        found = {topic: kept.pop(stamp_ns, None) for topic, kept in self._waiting.items()}
        self._forget(stamp_ns)
        if found[self.topic] is None:
            return None
        truth = self._decode(found[self.topic])
        listed, lanes = found.get(self._listing or ""), found.get(self._lane_topic or "")
        tracks = None if listed is None else listed.tracks
        return replace(truth, tracks=tracks, lanes=None if lanes is None else lanes_of(lanes))

    def follow(self, read_on: Callable[[], bool]) -> None:
        """Somebody else reads the bag and tells of its messages in ``topics``, until too many wait.

        Args:
            read_on: called for a truth that has not come yet; False at the end of the bag.
        """
        self._read_on = read_on

    def tell(self, topic: str, decode: Callable[[], Any]) -> None:
        """Of the next message.

        Raises:
            SourceError: it cannot be decoded, or nobody can say of which frame it is.
        """
        self._told[topic] += 1
        try:
            self._take(topic, decode())
        except SourceError:
            raise
        except Exception as error:  # damaged bytes raise whatever they lead to
            raise SourceError(f"bag {self.name} is damaged: {one_line(error)}") from error

    @property
    def crowded(self) -> bool:
        """So many truths wait for their frames that no more should be told."""
        return max(map(len, self._waiting.values())) > _MOST

    def read_alone(self) -> None:
        """Nobody tells any more: the bag is read from where that ended."""
        self._read_on = self._read

    def _read(self) -> bool:
        for topic, message in self._messages:
            if not self._told[topic]:
                self._take(topic, message)
                return True
            self._told[topic] -= 1  # given twice it would be found twice, where two frames have its stamp
        return False

    def _take(self, topic: str, message: Any) -> None:
        stamp = stamp_of(message)
        if topic == self.topic:
            twice = self._last is not None and stamp_of(self._last) == stamp
            if twice and not np.array_equal(np.asarray(self._last.data), np.asarray(message.data)):
                raise SourceError(
                    f"ground truth {self.topic} of {self.name} has different images of one stamp ({stamp}); "
                    "frames and truth are matched by the stamps of their headers, which must be filled in"
                )
            self._last = message
        self._waiting[topic][stamp] = instances_of(message, stamp) if topic == self._listing else message

    def _forget(self, stamp_ns: int) -> None:
        """What is long before the frame asked for."""
        for kept in self._waiting.values():
            if len(kept) > _WAITING:
                for late in sorted(stamp for stamp in kept if stamp < stamp_ns)[:-_WAITING]:
                    del kept[late]

    def _decode(self, message: Any) -> Truth:
        try:
            if not self._carla:
                where = f"ground truth {self.topic} of {self.name} at {stamp_of(message)}"
                return self._known.check(where, Truth(pixels_of(message)))
            image = CameraImage(
                message.encoding, message.width, message.height, message.step, message.data, bool(message.is_bigendian)
            )
            return carla_truth(self.topic, decode_rgb(image), self.instances)
        except MalformedImage as error:
            raise SourceError(f"ground truth {self.topic} of {self.name} at {stamp_of(message)}: {error}") from error

    def close(self) -> None:
        """Close the bag, and let go of whoever tells of it."""
        self.read_alone()
        for kept in self._waiting.values():
            kept.clear()
        self._last = None
        self._messages.close()


def _tells_apart(path: Path, topic: str, carla: bool) -> bool:
    """Whether a topic has ids of objects, by its name; where that says nothing, by the first message."""
    if carla:
        return "semantic" not in topic
    if topic.endswith(TOPICS):
        return topic.endswith("panoptic")
    try:
        first = _first(path, topic)
    except SourceError:
        return True  # whoever reads on will hear of it
    return first is None or str(first.encoding) not in ("mono8", "8UC1")


def _named(path: Path, topic: str, there: Mapping[str, Topic]) -> dict[str, int] | None:
    """Class ids by name, as the first message of a ``label_info`` topic has them; None where there is none.

    Raises:
        SourceError: it has no such message that can be read, or ids that no label image can have.
    """
    if topic not in there or there[topic].msgtype != LABEL_INFO:
        return None
    first = _first(path, topic)
    if first is None:
        return None
    classes = {str(entry.class_name): int(entry.class_id) for entry in first.class_map}
    if len(classes) < len(first.class_map) or not all(number < UNLABELLED for number in classes.values()):
        raise SourceError(f"bag {path}: {topic} has classes of one name, or ids beyond {UNLABELLED - 1}: {classes}")
    return classes


def _first(path: Path, topic: str) -> Any | None:
    with closing(bag_messages(path, [topic])) as messages:
        return next(messages, (topic, None))[1]


def _choose(path: Path, there: Mapping[str, Topic], topic: str | None, carla: bool) -> tuple[str, bool]:
    images = [name for name, found in there.items() if found.msgtype == IMAGE]
    if topic is not None:
        if topic not in images:
            listed = ", ".join(sorted(images)) or "none"
            raise SourceError(f"bag {path} has no topic '{topic}' of {IMAGE}, as truth has to be; it has {listed}")
        return topic, carla
    if not carla:
        for ending in TOPICS:
            found = [name for name in images if name.endswith(ending)]
            if len(found) == 1:
                return found[0], False
            if found:
                raise SourceError(f"bag {path} has several truth topics, name one: {', '.join(sorted(found))}")
    for part in CARLA_TOPICS:
        found = [name for name in images if part in name]
        if len(found) == 1:
            return found[0], True
    expected = ", ".join([f".../{ending}" for ending in TOPICS] + list(CARLA_TOPICS))
    raise SourceError(
        f"bag {path} has no ground truth topic ({expected}); it has {', '.join(sorted(images)) or 'none'}; "
        "name its topic with --truth-topic, or another folder or bag with --ground-truth"
    )
