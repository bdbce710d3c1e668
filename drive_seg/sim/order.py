"""The order of painting: who hides whom among things that stand on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .camera import FloatArray


@dataclass(frozen=True)
class Plans:
    """Rectangles on the ground: what N things cover of it, metres."""

    middles: FloatArray  # (N, 2)
    along: FloatArray  # (N, 2) unit vectors of their lengths
    halves: FloatArray  # (N, 2) half of length and width


def far_to_near(plans: Plans, eye: FloatArray, depths: FloatArray, bearings: FloatArray) -> list[int]:
    """The indices of N things, those that others hide before these.

    Depth alone does not say it: a car that is parked beyond a lorry may be nearer than the middle of the lorry.

    Args:
        plans: of the things.
        eye: where the camera is (2,).
        depths: (N,) in front of the camera; decides where nobody hides the other, or their rectangles overlap.
        bearings: (N, 2) from where to where each is seen, radians; who is seen elsewhere hides nothing.
    """
    order = np.argsort(-depths, kind="stable")
    low, high = bearings[:, 0], bearings[:, 1]
    later = _hides(plans, eye) & (low[:, None] < high) & (low < high[:, None])
    later = later[np.ix_(order, order)]
    if not np.triu(later).any():
        return [int(index) for index in order]
    left = np.ones(len(order), dtype=bool)
    waits_for = later.sum(axis=1)
    sorted_: list[int] = []
    for _ in order:
        # Whoever waits for nobody; where they go round in a circle, the farthest.
        free = np.flatnonzero(left & (waits_for == 0))
        chosen = int(free[0]) if len(free) else int(np.flatnonzero(left)[0])
        left[chosen] = False
        waits_for -= later[:, chosen]
        sorted_.append(int(order[chosen]))
    return sorted_


def _hides(plans: Plans, eye: FloatArray) -> npt.NDArray[np.bool_]:
    """(N, N): whether thing i may hide j, and j cannot hide i.

    If a line parts the two, the one on the camera's side of it is hidden by nothing beyond it.
    """
    count = len(plans.middles)
    never = np.zeros((count, count), dtype=bool)  # i never hides j
    across = np.stack([-plans.along[:, 1], plans.along[:, 0]], axis=1)
    away = plans.middles[None] - plans.middles[:, None]
    towards = eye - plans.middles
    for axis, half in ((plans.along, plans.halves[:, 0]), (across, plans.halves[:, 1])):
        distance = np.einsum("ijk,ik->ij", away, axis)
        reach = np.abs(axis @ plans.along.T) * plans.halves[:, 0] + np.abs(axis @ across.T) * plans.halves[:, 1]
        parted = np.abs(distance) >= half[:, None] + reach
        beyond = np.sign(distance) * np.einsum("ik,ik->i", towards, axis)[:, None] > half[:, None]
        never |= parted & beyond
        never |= (parted & ~beyond).T
    hides: npt.NDArray[np.bool_] = never.T & ~never
    return hides
