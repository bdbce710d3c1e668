"""Labels of which only a part is known.

Public data sets do not agree on what they label: some paint the markings into the road, some do not tell a cyclist from
a pedestrian, some label only the road. A pixel's label is therefore a *code*: one class, or a set of classes of which
one is right ("road or lane_marking"). The loss then asks only for what the data set knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from drive_seg.labels import DRIVING

VOID = 255
"""Any class: nothing is known."""
_IDS = tuple(label.id for label in DRIVING)
SETS = {
    len(_IDS) + number: members
    for number, members in enumerate(members for size in range(2, len(_IDS)) for members in combinations(_IDS, size))
}
"""Codes above the class ids: every set of two or more classes, but not all."""
_CODES = {frozenset(members): code for code, members in SETS.items()}


def code_of(classes: Iterable[int]) -> int:
    """The code of "one of these class ids"; all of them are ``VOID``."""
    members = frozenset(classes)
    if len(members) == 1:
        return next(iter(members))
    return VOID if members == frozenset(_IDS) else _CODES[members]


def is_thing(code: int) -> bool:
    """Whether a pixel of this code belongs to an object, though maybe to one of several classes."""
    members = SETS.get(code, (code,))
    return all(member in _IDS and DRIVING[member].thing for member in members)


ROAD_OR_MARKING = code_of((1, 2))
PEDESTRIAN_OR_CYCLIST = code_of((4, 5))
NOT_ROAD = code_of((0, 3, 4, 5))
NOT_PEDESTRIAN = code_of((0, 1, 2, 3, 5))
NO_THING = code_of((0, 1, 2))
