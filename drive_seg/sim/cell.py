"""What one cell of the road holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .scenery import Barrier, House, Post, Tree
from .surface import Patch
from .traffic import Actor


@dataclass(frozen=True)
class Crosser:
    """Someone who crosses while the camera comes nearer: a function of the distance left, not of time."""

    actor: Actor
    begin: float  # metres ahead of the camera at which the crossing starts and ends
    end: float
    d_from: float
    d_to: float

    def at(self, distance: float) -> Actor:
        """The crosser, waiting, on the way or across, with the camera `distance` metres before the place."""
        part = min(max((self.begin - distance) / (self.begin - self.end), 0.0), 1.0)
        d = self.d_from + part * (self.d_to - self.d_from)
        yaw = np.pi / 2 if self.d_to > self.d_from else -np.pi / 2
        return replace(self.actor, d=d, yaw=yaw, gone=abs(d - self.d_from), standing=part in (0.0, 1.0))


@dataclass(frozen=True)
class Cell:
    """The still life of CELL metres of road."""

    houses: Sequence[House] = ()
    barriers: Sequence[Barrier] = ()
    trees: Sequence[Tree] = ()
    posts: Sequence[Post] = ()
    patches: Sequence[Patch] = ()
    actors: Sequence[Actor] = ()
    crossers: Sequence[Crosser] = ()
