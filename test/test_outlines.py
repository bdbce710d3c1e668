"""Outlines at the camera's resolution: borders of stuff are those of interpolated logits, and nothing else changes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from between import STUFF, class_between, share
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drive_seg import outlines
from drive_seg.letterbox import Geometry
from drive_seg.outlines import Outlines, are_moved

Map = NDArray[np.uint8]


def enlarged(classes: Map, confidence: Map, native: tuple[int, int]) -> Map:
    """The map of a network of its own size, as the camera sees it."""
    geometry = Geometry.letterbox(native, (classes.shape[1], classes.shape[0]))
    out = geometry.restore(classes)
    if are_moved(geometry, 1):
        pixels, values = Outlines(geometry, 1, STUFF)(classes, confidence)
        assert np.unique(pixels).size == pixels.size
        assert (out.reshape(-1)[pixels] != values).all()
        out.reshape(-1)[pixels] = values
    return out


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    native=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32 - 1),
    most=st.sampled_from([2, 3, 5]),
)
def test_borders_are_where_brute_force_finds_them(
    shape: tuple[int, int], native: tuple[int, int], seed: int, most: int
) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, most, shape).astype(np.uint8)
    confidence = rng.choice(np.array([0, 60, 127, 140, 200, 230, 254, 255], np.uint8), shape)
    geometry = Geometry.letterbox(native, shape[::-1])
    places = np.ndindex(native[::-1])
    expected = [class_between(classes, confidence, geometry, 1, y, x) for y, x in places]
    np.testing.assert_array_equal(enlarged(classes, confidence, native).reshape(-1), expected)


@pytest.mark.parametrize("scale", [1.25, 1.5, 2, 3, 6])
def test_two_classes_are_those_of_the_interpolated_logits(scale: float) -> None:
    height, width = 24, 32
    rng = np.random.default_rng(int(10 * scale))
    waves = [rng.normal(0, 1, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1) for _ in range(2)]
    logit = 2 * waves[0] + np.roll(waves[1], (2, 2), (0, 1)) + rng.normal(0, 0.3, (height, width))
    logit = np.clip(logit, -4, 4)  # what a byte of probability can say
    classes = (logit > 0).astype(np.uint8)
    confidence = np.rint(255 / (1 + np.exp(-np.abs(logit)))).astype(np.uint8)
    native = round(width * scale), round(height * scale)
    y, x = ((np.arange(size) + 0.5) / scale - 0.5 for size in (native[1], native[0]))
    y, x = y[(y > 1) & (y < height - 2)], x[(x > 1) & (x < width - 2)]
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - top)[:, None], x - left
    rows = logit[top] * (1 - fy) + logit[top + 1] * fy
    between = rows[:, left] * (1 - fx) + rows[:, left + 1] * fx
    full = enlarged(classes, confidence, native)
    rows_of, columns_of = (np.rint((at + 0.5) * scale - 0.5).astype(int) for at in (y, x))
    found = full[np.ix_(rows_of, columns_of)]
    clear = np.abs(between) > 0.25  # leads are whole numbers, of 16 parts
    np.testing.assert_array_equal(found[clear], (between > 0)[clear])
    nearest = Geometry.letterbox(native, (width, height)).restore(classes)[np.ix_(rows_of, columns_of)]
    wrong = np.count_nonzero(nearest != (between > 0)), np.count_nonzero(found != (between > 0))
    assert wrong[1] < wrong[0] / 3, "what is not clear is mostly right, too"


@pytest.mark.parametrize("native", [(16, 12), (8, 6), (5, 4)])
def test_maps_that_do_not_grow_stay_as_they_are(native: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    classes, confidence = (rng.integers(0, most, (12, 16)).astype(np.uint8) for most in (3, 256))
    geometry = Geometry.letterbox(native, (16, 12))
    np.testing.assert_array_equal(enlarged(classes, confidence, native), geometry.restore(classes))


def test_an_unsure_line_becomes_thinner_a_sure_one_wider_and_things_stay() -> None:
    line = np.zeros((9, 12), np.uint8)
    line[:, 6] = 1
    sure = np.full(line.shape, 250, np.uint8)
    unsure = np.where(line == 1, 210, sure).astype(np.uint8)
    doubted = np.where(line == 1, sure, 130).astype(np.uint8)
    native = (48, 36)
    thin, same, wide = (np.count_nonzero(enlarged(line, of, native)[18]) for of in (unsure, sure, doubted))
    assert 0 < thin < same == 4 < wide < 9
    for things in (line * 4, line * 3 + 1, np.where(line == 1, 0, 255).astype(np.uint8)):
        np.testing.assert_array_equal(enlarged(things, doubted, native), things.repeat(4, 0).repeat(4, 1))


def test_noise_takes_little_memory_and_parts_of_a_border_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    classes, confidence = (rng.integers(0, most, (96, 160)).astype(np.uint8) for most in (3, 256))
    native = (1920, 1152)
    tracemalloc.start()
    try:
        whole = enlarged(classes, confidence, native)
        tracemalloc.clear_traces()
        tracemalloc.reset_peak()
        pixels, values = Outlines(Geometry.letterbox(native, (160, 96)), 1, STUFF)(classes, confidence)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pixels.size > 200_000 and peak < 3 * (pixels.nbytes + values.nbytes), f"{peak / 1e6:.0f} MB"
    monkeypatch.setattr(outlines, "_AT_ONCE", 1000)  # 6 cells
    np.testing.assert_array_equal(enlarged(classes, confidence, native), whole)


@settings(max_examples=100, deadline=None)
@example(56, 59, 2)  # some middles lie between two parts
@given(st.integers(1, 400), st.integers(1, 300), st.sampled_from([1, 2, 4]))
def test_shares_say_where_in_its_cell_a_pixel_is(width: int, height: int, stride: int) -> None:
    geometry = Geometry.letterbox((width, height), (96, 64))
    sizes = ((width, geometry.x0, geometry.content_width), (height, geometry.y0, geometry.content_height))
    for axis, (native, begin, content) in zip(geometry.axes(stride), sizes, strict=True):
        middle = (begin + (np.arange(native) + 0.5) * content / native) / stride
        assert (np.abs(axis.cells + 0.5 + axis.shares / 16 - middle) <= 1 / 32 + 0.1 / stride).all()
        assert np.abs(axis.shares).max() <= 8
        expected = [share(begin, content, native, stride, int(cell), i) for i, cell in enumerate(axis.cells)]
        np.testing.assert_array_equal(axis.shares, expected)
