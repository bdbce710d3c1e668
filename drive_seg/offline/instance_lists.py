"""Which instances a frame has, as ``instances.jsonl`` and Detection2DArray messages list them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drive_seg.errors import SourceError
from drive_seg.frame import split_id

_DIGITS = 18
"""Of the longest number in an id: what fits 64 bits. Python itself refuses to read some thousands."""


@dataclass(frozen=True)
class ListedInstances:
    """The instances of one frame.

    Attributes:
        frame: its name; empty where it has none.
        stamp_ns: acquisition time; None where it is not known.
        scores: 0..1 by panoptic id.
        tracks: by panoptic id; None where any has none, or was left out.
    """

    frame: str
    stamp_ns: int | None
    scores: Mapping[int, float]
    tracks: Mapping[int, int] | None

    @classmethod
    def of(cls, frame: str, stamp_ns: int, rows: Iterable[tuple[str, float]]) -> ListedInstances:
        """From ids (``Instance.id``) with scores; raises ValueError for other ids."""
        scores, tracks = {}, {}
        for text, score in rows:
            value, track = split_id(text)
            scores[value] = score
            if track is not None:
                tracks[value] = track
        return cls(frame, stamp_ns, scores, tracks if len(tracks) == len(scores) else None)


def read_instances(path: Path, classes: Mapping[str, int]) -> Iterator[ListedInstances]:
    """The lines of ``instances.jsonl`` in order. Ids may be numbers, as they were before there was tracking.

    Args:
        classes: ids by name, those of the model.

    Raises:
        SourceError: it cannot be read, a line is not what ``drive_seg run`` writes, or its classes are another model's.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield _listed(path, number, line, classes)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path}: {error}") from error


def _listed(path: Path, number: int, line: str, classes: Mapping[str, int]) -> ListedInstances:
    try:
        row = json.loads(line)
        instances = [(str(one["id"]), float(one["score"])) for one in row["instances"]]
        listed = ListedInstances.of(str(row["frame"]), int(row["stamp_ns"]), instances)
        named = [(one["class"], one["class_id"]) for one in row["instances"] if "class" in one and "class_id" in one]
        strange = [f"'{name}' has the id {value}" for name, value in named if classes.get(name) != value]
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise SourceError(f"{path} line {number} is not what drive_seg run writes: {error}") from error
    if strange:
        raise SourceError(
            f"{path} has the classes of another model: in line {number} {strange[0]}, while the model has "
            f"{', '.join(f'{value} {name}' for name, value in classes.items())}; name it with --model"
        )
    return listed


def instances_of(message: Any, stamp_ns: int) -> ListedInstances:
    """From a vision_msgs/Detection2DArray; detections that are not ours, without such an id, are left out."""
    rows = [
        (detection.id, float(detection.results[0].hypothesis.score))
        for detection in message.detections
        if len(detection.results)
        and all(part.isdecimal() and len(part) <= _DIGITS for part in detection.id.split("/", 1))
    ]
    listed = ListedInstances.of("", stamp_ns, rows)
    return listed if len(rows) == len(message.detections) else replace(listed, tracks=None)
