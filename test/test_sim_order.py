"""Who hides whom in the simulator, against lines of sight that are followed one by one."""

from __future__ import annotations

import numpy as np
import pytest

from drive_seg.sim.camera import FloatArray
from drive_seg.sim.order import Plans, far_to_near

QUARTER = np.array([[0.0, 1.0], [-1.0, 0.0]])


def turned(angles: FloatArray) -> FloatArray:
    """Unit vectors (N, 2)."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def begins(plans: Plans, eye: FloatArray, ray: FloatArray) -> FloatArray:
    """How far along a line of sight each rectangle (N,) begins; infinite where it is missed."""
    near, far = np.zeros(len(plans.middles)), np.full(len(plans.middles), np.inf)
    for axis, half in ((plans.along, plans.halves[:, 0]), (plans.along @ QUARTER, plans.halves[:, 1])):
        start, pace = ((plans.middles - eye) * axis).sum(axis=1), axis @ ray
        ends = np.sort([(start - half) / pace, (start + half) / pace], axis=0)
        near, far = np.maximum(near, ends[0]), np.minimum(far, ends[1])
    return np.where(near < far, near, np.inf)


@pytest.mark.parametrize("seed", [*range(20), 27, 43])
def test_what_a_line_of_sight_meets_first_is_painted_last(seed: int) -> None:
    """Lanes that slant, a thing somewhere in each field of them: what hides another often has the farther middle."""
    random = np.random.default_rng(seed)
    eye, slant = random.uniform(-50, 50, 2), random.uniform(0.2, 1.4)
    fields = np.stack(np.meshgrid([-12.0, 0.0, 12.0], np.arange(-6.0, 7.0, 3.0)), axis=-1).reshape(-1, 2)
    halves = random.uniform((0.2, 0.1), (5.8, 1.2), fields.shape)
    fields[:, 0] += random.uniform(-1, 1, 15) * (5.8 - halves[:, 0])
    across, short = random.random((2, 15)) < 0.5
    halves[across] = halves[across, ::-1]
    halves[short] = random.uniform((0.2, 0.1), (1.4, 0.5), (short.sum(), 2))
    places = fields @ turned(np.array([slant, slant + np.pi / 2])) + (25, 0)
    along = turned(slant + across * np.pi / 2 + random.uniform(-1, 1, 15) * np.where(short, np.pi, 0.03))
    plans = Plans(places + eye, along, halves)
    ends, sides = along * plans.halves[:, :1], along @ QUARTER * plans.halves[:, 1:]
    corners = places + np.array([ends + sides, ends - sides, sides - ends, -ends - sides])
    seen = np.arctan2(corners[..., 1], corners[..., 0])
    order = far_to_near(plans, eye, places[:, 0], np.stack([seen.min(axis=0), seen.max(axis=0)], axis=1))
    assert sorted(order) == list(range(15))
    for ray in turned(np.linspace(-0.9, 0.9, 201)):
        met = begins(plans, eye, ray)[order]
        assert (np.diff(met[np.isfinite(met)]) < 0).all()


@pytest.mark.parametrize("mirror", [1, -1])
def test_where_no_order_is_right_the_farthest_is_painted_first(mirror: int) -> None:
    """Four walls around the camera, each with an end behind the next one, and two things in one place."""
    walls = np.array([[5.0, 2.0], [-2.0, 5.0], [-5.0, -2.0], [2.0, -5.0]]) * (1, mirror)
    plans = Plans(walls, turned(np.array([1, 0, 1, 0]) * np.pi / 2), np.tile([6.0, 0.1], (4, 1)))
    order = far_to_near(plans, np.zeros(2), np.array([5.0, -2.0, -5.0, 7.0]), np.tile([-4.0, 4.0], (4, 1)))
    assert order[0] == 3 and sorted(order) == [0, 1, 2, 3]
    same = Plans(walls[[0, 0]], plans.along[:2], plans.halves[:2])
    assert far_to_near(same, np.zeros(2), np.array([5.0, 6.0]), np.tile([-1.0, 1.0], (2, 1))) == [1, 0]
