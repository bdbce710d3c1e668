"""Which classes are scored: the model's and the truth's classes, brought together by name.

Data sets do not agree on what they label. One paints lane markings as road, another calls riders people. A label map
names the scored classes and says which classes of the model and which of the truth count as each, so that both are
asked only what the truth knows::

    classes:
      background: {truth: [building, sky]}          # predicted: the model's class of the same name
      road: {truth: [road], predicted: [road, lane_marking]}
      vehicle: {truth: [car, truck, bus]}
      people: {truth: [person, rider], predicted: [pedestrian, cyclist]}
    instances: false                                # the truth does not tell objects apart (default true)

Classes of the truth that are named nowhere are void: their pixels are not scored. Every class of the model must be
named, or be a scored class itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.documents import read_yaml
from drive_seg.errors import ConfigError, ModelError
from drive_seg.labels import (
    PANOPTIC_DIVISOR,
    PANOPTIC_UNLABELLED,
    UNLABELLED,
    Label,
    LabelSet,
)
from drive_seg.offline.metrics.overlaps import VOID
from drive_seg.resources import at_home, share_dir

LANE = "lane_marking"
"""The scored class whose pixels are the lane markings."""

NUMBER_BITS = 16
"""Of the number of an object in ``scored_ids``: a map has fewer."""

_IDS = np.arange(1 << 16)
CLASS_OF_ID = np.where(_IDS >= PANOPTIC_DIVISOR, _IDS // PANOPTIC_DIVISOR, np.minimum(_IDS, UNLABELLED))
"""int64 (65536,): the class of a panoptic or class id; 255 for ids of neither kind, which are void."""
CLASS_OF_ID[PANOPTIC_UNLABELLED] = UNLABELLED


@dataclass(frozen=True)
class ScoredClass:
    """A row of a label map: names in the truth and in the model that count as this class."""

    name: str
    truth: tuple[str, ...]
    predicted: tuple[str, ...]


@dataclass(frozen=True)
class MapFile:
    """A label map as it is written: names only. ``name`` is for messages."""

    name: str
    classes: tuple[ScoredClass, ...]
    instances: bool = True


@dataclass(frozen=True)
class LabelMap:
    """A label map for one model and one truth.

    Attributes:
        labels: the scored classes.
        truth, predicted: uint8 (256,) from the truth's and the model's class ids to scored ones, 255 is void.
        instances: objects are told apart, so that things can be scored as segments.
    """

    labels: LabelSet
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    instances: bool = True

    @cached_property
    def truth_table(self) -> NDArray[np.uint8]:
        """uint8 (65536,): scored class by panoptic or class id of the truth."""
        return self.truth[CLASS_OF_ID]

    @cached_property
    def predicted_table(self) -> NDArray[np.uint8]:
        """uint8 (65536,): scored class by panoptic or class id of the prediction."""
        return self.predicted[CLASS_OF_ID]

    @property
    def predicts_own(self) -> bool:
        """The class ids of the model, none of which a map may leave out, are the scored ones."""
        own = np.flatnonzero(self.predicted != UNLABELLED)
        return bool((self.predicted[own] == own).all())

    @property
    def lane(self) -> int | None:
        """The scored class of the lane markings, where the truth has them."""
        return next((label.id for label in self.labels if label.name == LANE and label.id in self.truth), None)

    @property
    def countable(self) -> NDArray[np.bool_]:
        """bool (C,): classes whose segments are scored, stuff always."""
        return np.array([self.instances or not label.thing for label in self.labels])

    @classmethod
    def identity(cls, labels: LabelSet, instances: bool = True) -> LabelMap:
        """The truth has the model's own classes."""
        table = np.full(256, UNLABELLED, np.uint8)
        table[: len(labels)] = np.arange(len(labels))
        return cls(labels, table, table, instances)


def load_map(name_or_path: str) -> MapFile:
    """Read a label map: the path of a YAML file, or the name of one in ``config/label_maps``.

    Raises:
        ConfigError: missing, no YAML, or not of the form above; the message says what is wrong.
    """
    path = at_home(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        folder = share_dir() / "config" / "label_maps"
        path = folder / f"{name_or_path}.yaml"
        if not path.is_file():
            there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
            raise ConfigError(f"no label map '{name_or_path}', there are {there}; or give the path of a YAML file")
    return _parse(path.name, read_yaml(path, "label map"))


def _parse(name: str, document: Any) -> MapFile:
    if not isinstance(document, dict) or not isinstance(document.get("classes"), dict) or not document["classes"]:
        raise ConfigError(f"label map {name} must have 'classes: {{name: {{truth: [...]}}}}', got {document!r:.80}")
    unknown = document.keys() - {"classes", "instances"}
    if unknown:
        raise ConfigError(f"label map {name} has unknown keys {sorted(map(str, unknown))}; expected classes, instances")
    rows = []
    for scored, row in document["classes"].items():
        if not isinstance(scored, str):  # YAML reads no and null as other things
            raise ConfigError(
                f"label map {name}: the names of classes must be text, in quotes if need be, got {scored!r:.80}"
            )
        names = row if isinstance(row, dict) else {}
        lists = {key: names.get(key, [scored]) for key in ("truth", "predicted")}
        if not isinstance(row, dict) or names.keys() - lists.keys() or not all(map(_is_names, lists.values())):
            raise ConfigError(
                f"label map {name}: class '{scored}' must be {{truth: [...], predicted: [...]}}, got {row}"
            )
        rows.append(ScoredClass(scored, tuple(lists["truth"]), tuple(lists["predicted"])))
    instances = document.get("instances", True)
    if not isinstance(instances, bool):
        raise ConfigError(f"label map {name}: instances must be true or false, got {instances!r}")
    return MapFile(name, tuple(rows), instances)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def bind(file: MapFile, model: LabelSet, truth: Mapping[str, int]) -> LabelMap:
    """A label map for a model's labels and the truth's class ids by name.

    A scored class is a thing where all of the model's classes in it are. Classes that the truth does not have are
    scored too: the truth then never shows them.

    Raises:
        ConfigError: a name that the model does not have, one named twice, a class of the model left out, or scored
            classes that no label set has.
    """
    ids = {label.name: label.id for label in model}
    named = [name for row in file.classes for name in row.predicted]
    _check_names(file.name, "the model", named, ids)
    left_out = [name for name in ids if name not in named]
    if left_out:
        raise ConfigError(
            f"label map {file.name} leaves out {left_out} of the model; add them to a class's 'predicted'"
        )
    asked = [name for row in file.classes for name in row.truth]
    if not any(name in truth for name in asked):
        raise ConfigError(f"label map {file.name} names no class of the truth, which has {', '.join(truth)}")
    _check_names(file.name, "the truth", [name for name in asked if name in truth], truth)
    members = [[model[ids[name]] for name in row.predicted] for row in file.classes]
    labels = tuple(
        Label(number, row.name, bool(of) and all(label.thing for label in of), of[0].color if of else (128, 128, 128))
        for number, (row, of) in enumerate(zip(file.classes, members, strict=True))
    )
    try:
        scored = LabelSet(labels)
    except ModelError as error:
        raise ConfigError(f"label map {file.name}: {error}") from error
    tables = [np.full(256, UNLABELLED, np.uint8) for _ in range(2)]
    for number, (row, of) in enumerate(zip(file.classes, members, strict=True)):
        tables[0][[truth[name] for name in row.truth if name in truth]] = number
        tables[1][[label.id for label in of]] = number
    return LabelMap(scored, tables[0], tables[1], file.instances)


def _check_names(file: str, side: str, named: Sequence[str], known: Mapping[str, int]) -> None:
    for name in named:
        if name not in known:
            raise ConfigError(f"label map {file} names '{name}', which {side} does not have; it has {', '.join(known)}")
        if named.count(name) > 1:
            raise ConfigError(f"label map {file} names '{name}' of {side} more than once")


def scored_ids(
    ids: NDArray[np.uint16] | NDArray[np.uint8], classes: NDArray[np.uint8], labels: LabelSet
) -> NDArray[np.int32]:
    """int32 (H, W): a map's segments in the scored classes, ``class << NUMBER_BITS | number``, ``VOID`` without one.

    The objects of a class are numbered anew from 1; 0 is stuff, and objects that are not told apart. No panoptic ids:
    a map may score things as its first class, and behind the ids that fit these.

    Args:
        classes: uint8 (N,) scored class by value of the map, 255 is void.
    """
    table = np.full(1 << 16, VOID, np.int32)
    numbers = dict.fromkeys(range(len(labels)), 0)
    for value in np.flatnonzero(np.bincount(ids.reshape(-1), minlength=1)).tolist():
        scored = int(classes[value])
        if scored == UNLABELLED:
            continue
        numbers[scored] += ids.dtype == np.uint16 and labels[scored].thing
        table[value] = scored << NUMBER_BITS | numbers[scored]
    return np.take(table, ids)
