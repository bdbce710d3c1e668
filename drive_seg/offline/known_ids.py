"""Label files that are of another format than was thought: they show it by ids that theirs does not have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from drive_seg.errors import SourceError
from drive_seg.labels import PANOPTIC_DIVISOR, PANOPTIC_UNLABELLED, UNLABELLED
from drive_seg.offline.label_map import CLASS_OF_ID
from drive_seg.offline.scoring import Truth
from drive_seg.places import places

_FEW = 12
"""Classes that are listed in a message one by one."""


class KnownIds:
    """The ids that a truth may show: its classes', and void. Others would silently be void too, and be in no figure.

    Args:
        classes: class ids by name.
    """

    def __init__(self, classes: Mapping[str, int]) -> None:
        self._classes = classes
        self._masks = np.zeros(1 << 8, np.bool_)
        self._masks[list(classes.values())] = True
        self._panoptic = self._masks[CLASS_OF_ID]
        self._masks[UNLABELLED] = self._panoptic[PANOPTIC_UNLABELLED] = True

    def check(self, name: str, truth: Truth) -> Truth:
        """The truth itself; ``name`` is for the message.

        Raises:
            SourceError: it has another id; the message names the first one.
        """
        ids = truth.map
        if truth.classes is not None:
            allowed = self._masks[truth.classes]
        else:
            allowed = self._panoptic if ids.dtype == np.uint16 else self._masks
        flat = ids.reshape(-1)
        values = np.append(flat[:1], flat[places(flat[1:] != flat[:-1]) + 1])  # of all runs: far fewer than pixels
        strange = values[~allowed[values]]
        if strange.size:
            raise SourceError(f"{name} has {self._describe(truth, int(strange[0]))}")
        return truth

    def _describe(self, truth: Truth, value: int) -> str:
        void = UNLABELLED
        if truth.classes is not None:
            found = f"class id {int(truth.classes[value])}"
        elif truth.map.dtype == np.uint16:
            found, void = f"panoptic id {value}", PANOPTIC_UNLABELLED
            found += f" (class {value // PANOPTIC_DIVISOR})" if value >= PANOPTIC_DIVISOR else ""
        else:
            found = f"class id {value}"
        names = [f"{number} {name}" for name, number in sorted(self._classes.items(), key=lambda item: item[1])]
        known = ", ".join(names) if len(names) <= _FEW else f"{len(names)} from {names[0]} to {names[-1]}"
        return (
            f"{found}, which is no class of its format: these are {known}, and {void} is void; "
            "name the right format with --format, or change the ids in the files"
        )
