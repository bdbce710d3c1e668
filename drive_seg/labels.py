"""The label set: class ids, names, thing or stuff, colours, and the arithmetic of panoptic ids.

Panoptic ids follow the Cityscapes ``instanceIds`` rule: a stuff pixel carries its class id, a thing pixel
``class_id * 1000 + k`` with k = 1.. within the frame and the class, an unlabelled pixel 65535.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from drive_seg.documents import whole_number
from drive_seg.errors import ModelError

UNLABELLED = 255
PANOPTIC_UNLABELLED = 65535
PANOPTIC_DIVISOR = 1000
MAX_INSTANCES_PER_CLASS = PANOPTIC_DIVISOR - 1
_MAX_THING_ID = (PANOPTIC_UNLABELLED - 1) // PANOPTIC_DIVISOR - 1
_NO_TEXT = ("Cc", "Cs")
"""Characters that no name has: terminals obey control characters, messages cannot hold half of a surrogate pair."""


@dataclass(frozen=True)
class Label:
    """One class. ``thing``: countable, its pixels carry instance ids. ``color``: RGB, 0..255."""

    id: int
    name: str
    thing: bool
    color: tuple[int, int, int]


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of labels with contiguous ids 0..n-1 (the channel order of the network).

    Raises:
        ModelError: ids not contiguous from 0, doubled or unusable names, or a colour out of range.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        ids = [label.id for label in self.labels]
        if ids != list(range(len(ids))) or not ids:
            raise ModelError(f"label ids must be 0..n-1 in order, got {ids}")
        names = [label.name for label in self.labels]
        for name in names:
            if not name or names.count(name) > 1 or any(category(sign) in _NO_TEXT for sign in name):
                raise ModelError(
                    f"label names must be non-empty, unique and without control characters; {name!r:.80} is not"
                )
        for label in self.labels:
            if len(label.color) != 3 or not all(0 <= c <= 255 for c in label.color):
                raise ModelError(f"colour of '{label.name}' must be three values 0..255, got {label.color}")
        if len(ids) > UNLABELLED:
            raise ModelError(f"at most {UNLABELLED} classes fit a mono8 mask, got {len(ids)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __getitem__(self, class_id: int) -> Label:
        return self.labels[class_id]

    @cached_property
    def things(self) -> tuple[Label, ...]:
        """The thing classes in id order: the channel order of the network's centre heatmaps."""
        return tuple(label for label in self.labels if label.thing)

    @cached_property
    def palette(self) -> NDArray[np.uint8]:
        """uint8 (256, 3) RGB colour by class id; black where there is none. Everyone's: change a copy."""
        table = np.zeros((256, 3), np.uint8)
        for label in self.labels:
            table[label.id] = label.color
        table.setflags(write=False)
        return table

    @cached_property
    def is_thing(self) -> NDArray[np.bool_]:
        """bool (256,): whether a mask value is a thing class. Everyone's: change a copy."""
        table = np.zeros(256, np.bool_)
        table[[label.id for label in self.things]] = True
        table.setflags(write=False)
        return table

    def check_panoptic(self) -> None:
        """See that panoptic ids can tell every object from all else: a model's labels need it, scored ones do not.

        Raises:
            ModelError: a thing has id 0, or one beyond what fits 16 bits.
        """
        for label in self.things:
            which = (
                f"label {label.id}, '{label.name}', is a thing: its panoptic ids, {label.id} * {PANOPTIC_DIVISOR} + k,"
            )
            if label.id == 0:
                raise ModelError(
                    f"{which} would be those of other classes; give id 0 to a class that is none, such as background"
                )
            if label.id > _MAX_THING_ID:
                raise ModelError(
                    f"{which} do not fit 16 bits; things have ids up to {_MAX_THING_ID}. With a `decoder:` the labels "
                    "may be in any order, its `classes` say which one each channel is; else mark it as no thing"
                )

    def by_name(self, name: str) -> Label:
        """The label called ``name``.

        Raises:
            KeyError: there is none; the message lists the names there are.
        """
        for label in self.labels:
            if label.name == name:
                return label
        raise KeyError(f"no label '{name}', there are {[label.name for label in self.labels]}")

    @classmethod
    def from_dicts(cls, rows: Sequence[Mapping[str, Any]]) -> LabelSet:
        """Build from the ``labels:`` list of a model sidecar: ``[{id, name, thing, color}, ...]``."""
        labels = []
        for number, row in enumerate(rows):
            try:
                color = tuple(whole_number(c, "color") for c in row["color"])
                if not isinstance(row["thing"], bool):  # "no" in quotes would be true
                    raise ValueError(f"thing must be true or false, got {row['thing']!r:.80}")
                if not isinstance(row["name"], str):  # YAML reads no and null as other things, which are no names
                    raise ValueError(f"name must be text, in quotes if need be, got {row['name']!r:.80}")
                labels.append(Label(whole_number(row["id"], "id"), row["name"], row["thing"], color))  # type: ignore[arg-type]
            except (KeyError, TypeError, ValueError) as error:
                why = f" ({error})" if isinstance(error, ValueError) else ""
                raise ModelError(
                    f"label {number} must have id, name, thing and color [r, g, b], got {row!r:.200}{why}"
                ) from error
        return cls(tuple(labels))


def mask_of(panoptic: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """uint8 class ids of a uint16 panoptic map of any shape (the inverse of the id rule)."""
    mask = np.where(panoptic >= PANOPTIC_DIVISOR, panoptic // PANOPTIC_DIVISOR, panoptic)
    mask[panoptic == PANOPTIC_UNLABELLED] = UNLABELLED
    return mask.astype(np.uint8)


DRIVING = LabelSet(
    (
        Label(0, "background", False, (70, 70, 70)),
        Label(1, "road", False, (128, 64, 128)),
        Label(2, "lane_marking", False, (255, 255, 0)),
        Label(3, "vehicle", True, (30, 110, 255)),
        Label(4, "pedestrian", True, (220, 20, 60)),
        Label(5, "cyclist", True, (255, 140, 0)),
    )
)
"""The default label set."""
