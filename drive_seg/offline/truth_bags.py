"""Ground truth in a topic of a bag, matched by stamp; and the simulator's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from drive_seg.errors import MalformedImage, SourceError
from drive_seg.frame import CameraImage
from drive_seg.labels import LabelSet
from drive_seg.offline.bag_images import CLOUD, bag_counts, bag_messages, bag_topics, lanes_of, pixels_of, stamp_of
from drive_seg.offline.bags import IMAGE_TYPES
from drive_seg.offline.prefetch import prefetch
from drive_seg.offline.scoring import Truth
from drive_seg.offline.truth_carla import CARLA, carla_truth
from drive_seg.preprocess import decode_rgb

TOPICS = ("truth/panoptic", "truth/mask", "ground_truth/panoptic", "ground_truth/mask")
"""Endings of truth topics, the best first."""
CARLA_TOPICS = ("instance_segmentation", "semantic_segmentation")
"""What the topics of CARLA's tag cameras have in their names, the best first."""
_WAITING = 8
"""Truths kept that are later, or earlier, than the frame asked for: topics of a recording are a little out of step."""


class BagTruth:
    """A topic of 16UC1 panoptic ids or mono8 class ids; with ``carla``, of images of CARLA's tag cameras. The topic
    ``lanes`` beside it has the lane boundaries.

    Args:
        window: only what was recorded from the first to before the second, ns; ``count`` is of the whole bag.

    Raises:
        SourceError: no such topic; the message lists those there are.
        MissingDependency: rosbags is not installed.
    """

    def __init__(
        self,
        path: Path,
        labels: LabelSet,
        topic: str | None = None,
        carla: bool = False,
        window: tuple[int, int] | None = None,
    ) -> None:
        self.name = str(path)
        self.topic, self._carla = _choose(path, topic, carla)
        self.classes: Mapping[str, int] = CARLA if self._carla else {label.name: label.id for label in labels}
        self.label_map = "carla" if self._carla else None
        self.instances = not self.topic.endswith("mask") and "semantic" not in self.topic
        counts = bag_counts(path)
        self.count: int | None = None if counts is None else counts[self.topic]
        beside = f"{self.topic.rpartition('/')[0]}/lanes"
        self._lane_topic = beside if bag_topics(path).get(beside) == CLOUD else None
        topics = [self.topic] + ([self._lane_topic] if self._lane_topic else [])
        self._messages = prefetch(bag_messages(path, topics, window))
        self._waiting: dict[int, Any] = {}
        self._lanes: dict[int, Any] = {}

    def find(self, stem: str, stamp_ns: int) -> Truth | None:
        """See ``TruthSource.find``; frames are matched by the stamps of their headers."""
        wanted = [self._waiting] + ([self._lanes] if self._lane_topic else [])
        while any(stamp_ns not in kind and self._later(kind, stamp_ns) < _WAITING for kind in wanted):
            topic, message = next(self._messages, (None, None))
            if message is None:
                break
            kept = self._lanes if topic == self._lane_topic else self._waiting
            kept[stamp_of(message)] = message
        message, lanes = self._waiting.pop(stamp_ns, None), self._lanes.pop(stamp_ns, None)
        for kind in wanted:
            for late in sorted(stamp for stamp in kind if stamp < stamp_ns)[:-_WAITING]:
                del kind[late]
        if message is None:
            return None
        truth = self._decode(message)
        return truth if lanes is None else replace(truth, lanes=lanes_of(lanes))

    @staticmethod
    def _later(kind: Mapping[int, Any], stamp_ns: int) -> int:
        return sum(stamp > stamp_ns for stamp in kind)

    def _decode(self, message: Any) -> Truth:
        try:
            if not self._carla:
                return Truth(pixels_of(message))
            image = CameraImage(
                message.encoding, message.width, message.height, message.step, message.data, bool(message.is_bigendian)
            )
            return carla_truth(self.topic, decode_rgb(image), self.instances)
        except MalformedImage as error:
            raise SourceError(f"ground truth {self.topic} of {self.name} at {stamp_of(message)}: {error}") from error

    def close(self) -> None:
        """Close the bag."""
        self._waiting.clear()
        self._lanes.clear()
        self._messages.close()


def _choose(path: Path, topic: str | None, carla: bool) -> tuple[str, bool]:
    images = [name for name, msgtype in bag_topics(path).items() if msgtype in IMAGE_TYPES]
    if topic is not None:
        if topic not in images:
            raise SourceError(f"bag {path} has no image topic '{topic}'; it has {', '.join(sorted(images)) or 'none'}")
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
