"""Predictions that were made before: the folders and bags that ``drive_seg run`` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from drive_seg.errors import MalformedImage, SourceError
from drive_seg.frame import Lane
from drive_seg.labels import LabelSet
from drive_seg.offline.bag_images import CLOUD, Topic, bag_messages, bag_topics, lanes_of, pixels_of, stamp_of
from drive_seg.offline.bags import is_bag
from drive_seg.offline.instance_lists import ListedInstances, instances_of, read_instances
from drive_seg.offline.label_image import read_label_image
from drive_seg.offline.lane_files import open_lanes
from drive_seg.offline.scoring import Prediction
from drive_seg.offline.sources import DEFAULT_FPS
from drive_seg.offline.truth_files import mask_truth, panoptic_truth, png_files
from drive_seg.resources import at_home

_RESULT = re.compile(r"(.*\bsegmentation/(?:[^/]+/)?)(panoptic|mask)")
"""The node's topics: of its one camera, or ``segmentation/CAMERA/`` of several."""
_WAITING = 8


@dataclass(frozen=True)
class Answer:
    """What was predicted for one frame; ``stem`` and ``stamp_ns`` find its truth.

    ``stem`` is empty in bags, where frames have stamps only: a running number is another one as soon as one is missing.
    """

    stem: str
    stamp_ns: int
    prediction: Prediction


class PredictionSource(Protocol):
    """Predictions in order.

    Attributes:
        name: for messages.
        count: number of frames, None where that is unknown.
        instances: they tell objects apart.
        summary: what the run that made them reported, ``summary.json``; empty where there is none.
        damage: why some may be missing, once they are read; empty where none is.
    """

    name: str
    count: int | None
    instances: bool
    summary: Mapping[str, Any]
    damage: str

    def __iter__(self) -> Iterator[Answer]: ...


def open_predictions(spec: str, labels: LabelSet, topic: str | None = None) -> PredictionSource | None:
    """The predictions at a path; None where it is something to predict from: images, a video, a bag of a camera.

    Args:
        topic: of a bag with predictions of several cameras, one of a camera; one that has none is to be predicted from.

    Raises:
        SourceError: predictions for classes that the model does not have, or of several cameras.
        MissingDependency: a bag without the package rosbags.
    """
    path = at_home(spec)
    if path.is_dir() and not (path / "image").is_dir() and ((path / "panoptic").is_dir() or (path / "mask").is_dir()):
        return FolderPredictions(path, labels)
    if path.exists() and is_bag(path):
        there = bag_topics(path)
        results = list(filter(None, map(_RESULT.fullmatch, there)))
        if topic is not None:
            return BagPredictions(path, there, topic, labels) if any(topic == result[0] for result in results) else None
        cameras: dict[str, str] = {}
        for result in sorted(results, key=lambda result: result[2] != "panoptic"):
            cameras.setdefault(result[1], result[0])
        if len(cameras) > 1:
            found = ", ".join(sorted(cameras.values()))
            raise SourceError(f"bag {path} has predictions of several cameras; choose one with --topic: {found}")
        for only in cameras.values():
            return BagPredictions(path, there, only, labels)
    return None


class FolderPredictions:
    """``panoptic/`` or ``mask/``, with scores, tracks and stamps from ``instances.jsonl`` and lane boundaries from
    ``lanes.jsonl`` where they are there."""

    def __init__(self, path: Path, labels: LabelSet) -> None:
        self.name = str(path)
        self._classes = {label.name: label.id for label in labels}
        self.instances = (path / "panoptic").is_dir()
        self._files = png_files(path / ("panoptic" if self.instances else "mask"))
        self.count: int | None = len(self._files)
        self.summary = _read_summary(path / "summary.json")
        self.damage = ""
        self._lines = path / "instances.jsonl"
        self._lanes = open_lanes(path)

    def __iter__(self) -> Iterator[Answer]:
        decode = panoptic_truth if self.instances else mask_truth
        seen: set[str] = set()
        before: ListedInstances | None = None
        for number, row in enumerate(self._listed()):
            path = self._files.get(row.frame)
            if path is None or row.frame in seen:
                continue
            seen.add(row.frame)
            stamp = round(number * 1e9 / DEFAULT_FPS) if row.stamp_ns is None else row.stamp_ns
            # A clock that was set back leaves the names of a run in order.
            if before is not None and row.frame < before.frame and stamp < (before.stamp_ns or 0):
                raise SourceError(
                    f"{self._lines}: frame {row.frame} comes behind {before.frame} and was taken before it; its lines "
                    "must be in the order of time, which tracking and flicker are scored in"
                )
            before = row
            pixels = read_label_image(path, "prediction")
            lanes = None if self._lanes is None else self._lanes.find(row.frame)
            _check_scores(row, f"{self._lines}: frame {row.frame}")
            found = Prediction(decode(path, pixels).map, row.scores, tracks=row.tracks, lanes=lanes)
            yield Answer(row.frame, stamp, found)
        if left := [stem for stem in self._files if stem not in seen]:
            self.damage = (
                f"{self._lines} has no line for {len(left)} of the {len(self._files)} frames of the folder, such as "
                f'{left[0]}; they were not scored. A frame without objects has one, too, with "instances": []'
            )
        if not seen:
            raise SourceError(self.damage)

    def _listed(self) -> Iterator[ListedInstances]:
        """In the order of the run, where there is a list: it alone knows of time."""
        if self._lines.is_file():
            yield from read_instances(self._lines, self._classes)
            return
        for stem in self._files:
            yield ListedInstances(stem, None, {}, None)


class BagPredictions:
    """A ``segmentation/panoptic`` topic, or else ``mask``, with the scores and tracks of ``instances`` and the lane
    boundaries of ``lanes`` beside it."""

    def __init__(self, path: Path, there: Mapping[str, Topic], topic: str, labels: LabelSet) -> None:
        self.name = str(path)
        self.instances = topic.endswith("panoptic")
        self.count = there[topic].count
        own = "summary.json"
        self.summary = _read_summary(path / own if path.is_dir() else path.with_name(f"{path.name}.{own}"))
        self.damage = ""
        self._path, self._there, self._topic, self._labels = path, there, topic, labels
        base = topic.rpartition("/")[0]
        self._instances, self._info = f"{base}/instances", f"{base}/label_info"
        self._lanes = f"{base}/lanes"

    def __iter__(self) -> Iterator[Answer]:
        maps: dict[int, Any] = {}
        listed: dict[int, ListedInstances] = {}
        lanes: dict[int, tuple[Lane, ...]] = {}
        if self.count is None:
            self.damage = f"bag {self.name} is cut short or damaged; what could be read of it was scored"
        # What comes beside a map, where the bag has it.
        beside: list[Mapping[int, Any]] = [listed] if self._instances in self._there and self.instances else []
        topics = [self._topic, self._instances, self._info]
        if self._lanes in self._there and self._there[self._lanes].msgtype == CLOUD:
            beside.append(lanes)
            topics.append(self._lanes)
        for topic, message in bag_messages(self._path, topics):
            if topic == self._info:
                self._check(message)
                continue
            stamp = stamp_of(message)
            if topic == self._instances:
                listed[stamp] = instances_of(message, stamp)
            elif topic == self._lanes:
                lanes[stamp] = lanes_of(message)
            else:
                maps[stamp] = message
            # The node publishes those of a frame together; what does not come is given up after a while. Until then
            # the maps behind it wait: truth, and who is who, are looked for in order.
            while maps:
                stamp = next(iter(maps))
                if len(maps) <= _WAITING and not all(stamp in others for others in beside):
                    break
                yield self._answer(stamp, maps.pop(stamp), listed.pop(stamp, None), lanes.pop(stamp, None))
            for others in (listed, lanes):
                if len(others) > _WAITING:
                    del others[min(others)]
        for stamp in sorted(maps):
            yield self._answer(stamp, maps[stamp], listed.get(stamp), lanes.get(stamp))

    def _answer(
        self, stamp: int, message: Any, listed: ListedInstances | None, lanes: tuple[Lane, ...] | None
    ) -> Answer:
        rows = listed or ListedInstances("", stamp, {}, None)
        _check_scores(rows, f"{self._instances} of {self.name} at {stamp}")
        try:
            found = Prediction(pixels_of(message), rows.scores, tracks=rows.tracks, lanes=lanes)
            return Answer("", stamp, found)
        except MalformedImage as error:
            raise SourceError(f"{self._topic} of {self.name} at {stamp}: {error}") from error

    def _check(self, message: Any) -> None:
        recorded = [(entry.class_id, entry.class_name) for entry in message.class_map]
        own = [(label.id, label.name) for label in self._labels]
        if recorded != own:
            raise SourceError(
                f"bag {self.name} was segmented into {[name for _, name in recorded]}, the model has "
                f"{[name for _, name in own]}; name its model with --model"
            )


def _check_scores(listed: ListedInstances, where: str) -> None:
    """Raise SourceError where one is not within 0..1, but for rounding: logits or percents would all count as sure."""
    scores = listed.scores.items()
    strange = [f"{value} of instance {number}" for number, value in scores if not 0 <= round(value, 3) <= 1]
    if strange:
        raise SourceError(f"{where} has the score {strange[0]}; expected 0..1")


def _read_summary(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # only what the report says beside the figures comes from it
    return document if isinstance(document, dict) else {}
