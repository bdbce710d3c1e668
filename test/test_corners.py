"""Outlines at the camera's resolution: corners of stuff are cut as Scale2x says, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drive_seg.corners import are_cut, cut_corners
from drive_seg.letterbox import Geometry

STUFF = np.arange(256) < 3


def enlarged(classes: NDArray[np.uint8], native: tuple[int, int]) -> NDArray[np.uint8]:
    """The map of a network of its own size, as the camera sees it."""
    geometry = Geometry.letterbox(native, (classes.shape[1], classes.shape[0]))
    across, down = geometry.axes()
    out = geometry.restore(classes)
    if are_cut(geometry, 1):
        window = down.window, across.window
        places, values = cut_corners(classes, window, STUFF).places(geometry, 1)
        out.reshape(-1)[places] = values
    return out


def scale2x(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cell by cell, as https://www.scale2x.it/algorithm has it; without the cells on the edge and without things."""
    out = classes.repeat(2, axis=0).repeat(2, axis=1)
    for y in range(1, classes.shape[0] - 1):
        for x in range(1, classes.shape[1] - 1):
            b, d, e, f, h = (int(classes[y + j, x + i]) for j, i in ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)))
            if b != h and d != f:
                quarters = [d if d == b else e, f if b == f else e, d if d == h else e, f if h == f else e]
                for quarter, value in enumerate(quarters):
                    if STUFF[e] and STUFF[value]:
                        out[2 * y + quarter // 2, 2 * x + quarter % 2] = value
    return out


maps = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 5])).map(
    lambda of: np.random.default_rng(of[2]).integers(0, of[3], (of[0], of[1])).astype(np.uint8)
)


@settings(max_examples=200, deadline=None)
@given(maps)
def test_twice_the_size_is_scale2x(classes: NDArray[np.uint8]) -> None:
    height, width = classes.shape
    np.testing.assert_array_equal(enlarged(classes, (2 * width, 2 * height)), scale2x(classes))


@settings(max_examples=100, deadline=None)
@given(maps, st.integers(2, 5))
def test_larger_maps_take_the_quarter_their_middle_lies_in(classes: NDArray[np.uint8], half: int) -> None:
    height, width = classes.shape
    twice = scale2x(classes)
    expected = twice.repeat(half, axis=0).repeat(half, axis=1)
    np.testing.assert_array_equal(enlarged(classes, (2 * half * width, 2 * half * height)), expected)


@pytest.mark.parametrize("native", [(16, 12), (18, 13), (8, 6), (5, 4)])
def test_maps_that_hardly_grow_or_shrink_stay_as_they_are(native: tuple[int, int]) -> None:
    classes = np.random.default_rng(0).integers(0, 3, (12, 16)).astype(np.uint8)
    geometry = Geometry.letterbox(native, (16, 12))
    np.testing.assert_array_equal(enlarged(classes, native), geometry.restore(classes))


def test_a_diagonal_becomes_smoother_and_thin_lines_and_things_stay() -> None:
    step = np.tril(np.ones((8, 8), np.uint8))
    assert np.count_nonzero(enlarged(step, (16, 16)) != step.repeat(2, 0).repeat(2, 1)) > 0
    line = np.eye(8, dtype=np.uint8)
    assert enlarged(line, (16, 16))[line.repeat(2, 0).repeat(2, 1) == 1].all(), (
        "only what is between its cells is filled"
    )
    straight = np.zeros((8, 8), np.uint8)
    straight[:, 3], straight[5] = 1, 2
    for kept in (4 * step, straight):
        np.testing.assert_array_equal(enlarged(kept, (16, 16)), kept.repeat(2, 0).repeat(2, 1))


@settings(max_examples=200, deadline=None)
@given(maps, st.integers(4, 11), st.integers(4, 11))
def test_the_cells_are_found_again_where_each_quarter_has_a_pixel(
    classes: NDArray[np.uint8], across: int, down: int
) -> None:
    height, width = classes.shape
    native = width * across // 2, height * down // 2
    geometry = Geometry.letterbox(native, (width, height))
    seen = classes[geometry.axes()[1].window, geometry.axes()[0].window]
    np.testing.assert_array_equal(geometry.content_of(enlarged(classes, native)), seen)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(1, 300), st.sampled_from([1, 2, 4]))
def test_halves_are_those_of_their_cells(width: int, height: int, stride: int) -> None:
    geometry = Geometry.letterbox((width, height), (96, 64))
    sizes = ((width, geometry.x0, geometry.content_width), (height, geometry.y0, geometry.content_height))
    for axis, (native, begin, content) in zip(geometry.axes(stride), sizes, strict=True):
        np.testing.assert_array_equal(axis.halves // 2, axis.cells)
        assert (np.diff(axis.halves) >= 0).all()
        middle = (begin + (np.arange(native) + 0.5) * content / native) / stride
        assert (np.abs(middle * 2 - axis.halves - 0.5) <= 0.5 + 0.1 / stride * 2).all()
        np.testing.assert_array_equal(
            np.repeat(np.arange(axis.half_starts.size - 1), np.diff(axis.half_starts)), axis.halves
        )
