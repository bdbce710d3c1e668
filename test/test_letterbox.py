"""The letterbox and its inverse, against the definition written out."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drive_seg.frame import Box
from drive_seg.letterbox import Geometry
from drive_seg.network_size import fitted_size

sides = st.integers(1, 2600)
networks = st.tuples(st.integers(1, 24), st.integers(1, 24)).map(lambda size: (32 * size[0], 32 * size[1]))
strides = st.sampled_from([1, 2, 4, 8, 16])


@settings(max_examples=300, deadline=None)
@given(width=sides, height=sides, network=networks)
def test_every_native_pixel_maps_back_to_where_it_came_from(width: int, height: int, network: tuple[int, int]):
    geometry = Geometry.letterbox((width, height), network)
    assert geometry.content_width == network[0] or geometry.content_height == network[1]
    across, down = geometry.axes()
    axes = (
        (across.cells, width, network[0], geometry.x0, geometry.content_width),
        (down.cells, height, network[1], geometry.y0, geometry.content_height),
    )
    for cells, native, whole, start, content in axes:
        assert cells.shape == (native,)
        assert cells.dtype == np.int32
        assert 1 <= content <= whole
        assert abs((whole - content - start) - start) <= 1, "centred"
        assert np.all(np.diff(cells) >= 0)
        assert cells[0] >= start
        assert cells[-1] < start + content
        # The middle of the native pixel, brought forward, lies in its cell (cv2 steps in 16-bit fractions).
        middle = start + (np.arange(native) + 0.5) * content / native
        assert np.all(middle >= cells - 0.05)
        assert np.all(middle <= cells + 1.05)
    scale = min(network[0] / width, network[1] / height)
    assert abs(geometry.content_width - max(1, width * scale)) <= 0.5 + 1e-9
    assert abs(geometry.content_height - max(1, height * scale)) <= 0.5 + 1e-9


@settings(max_examples=200, deadline=None)
@given(
    width=sides,
    height=st.integers(1, 700),
    network=networks,
    stride=strides,
    kind=st.sampled_from([np.uint8, np.uint16]),
    given_out=st.booleans(),
)
def test_restore_is_the_lookup_it_promises(
    width: int, height: int, network: tuple[int, int], stride: int, kind: type, given_out: bool
):
    geometry = Geometry.letterbox((width, height), network)
    shape = (network[1] // stride, network[0] // stride)
    network_map = np.random.default_rng(width).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    out = np.empty((height, width), kind) if given_out else None
    restored = geometry.restore(network_map, out)
    assert restored.dtype == kind
    assert restored is out or out is None
    columns, rows = (axis.cells // stride for axis in geometry.axes())
    np.testing.assert_array_equal(restored, network_map[np.ix_(rows, columns)])


@settings(max_examples=200, deadline=None)
@given(width=sides, height=sides, network=networks, stride=strides, data=st.data())
def test_weights_and_boxes_count_native_pixels(
    width: int, height: int, network: tuple[int, int], stride: int, data: st.DataObject
):
    geometry = Geometry.letterbox((width, height), network)
    cells_x, cells_y = (axis.cells // stride for axis in geometry.axes())
    across, down = geometry.axes(stride)
    np.testing.assert_array_equal(across.weights, np.bincount(cells_x, minlength=network[0] // stride))
    np.testing.assert_array_equal(down.weights, np.bincount(cells_y, minlength=network[1] // stride))
    for axis, cells, native in ((across, cells_x, width), (down, cells_y, height)):
        assert (axis.window.start, axis.window.stop) == (cells[0], cells[-1] + 1)
        assert (axis.starts[0], axis.starts[-1]) == (0, native)

    first_col, last_col = sorted(data.draw(st.tuples(*[st.integers(0, network[0] // stride - 1)] * 2)))
    first_row, last_row = sorted(data.draw(st.tuples(*[st.integers(0, network[1] // stride - 1)] * 2)))
    box = geometry.native_box(first_col, last_col, first_row, last_row, stride)
    columns = np.flatnonzero((cells_x >= first_col) & (cells_x <= last_col))
    rows = np.flatnonzero((cells_y >= first_row) & (cells_y <= last_row))
    assert (box.width, box.height) == (columns.size, rows.size)
    if columns.size:
        assert (box.x, box.x + box.width - 1) == (columns[0], columns[-1])
    if rows.size:
        assert (box.y, box.y + box.height - 1) == (rows[0], rows[-1])


def test_the_usual_camera_in_numbers():
    geometry = Geometry.letterbox((1280, 720), (640, 384))
    assert (geometry.x0, geometry.y0, geometry.content_width, geometry.content_height) == (0, 12, 640, 360)
    across, down = geometry.axes()
    np.testing.assert_array_equal(across.cells, np.arange(1280) // 2)
    np.testing.assert_array_equal(down.cells, 12 + np.arange(720) // 2)
    assert geometry.native_box(10, 19, 12, 12) == Box(20, 0, 20, 2)
    assert geometry.native_box(0, 639, 0, 11).height == 0, "only padding"


def test_padding_never_bleeds_in():
    for native in ((1280, 720), (400, 900), (333, 17), (3000, 3), (2, 2)):
        geometry = Geometry.letterbox(native, (640, 384))
        network_map = np.full((384, 640), 77, np.uint8)
        right, bottom = geometry.x0 + geometry.content_width, geometry.y0 + geometry.content_height
        network_map[geometry.y0 : bottom, geometry.x0 : right] = 5
        assert np.all(geometry.restore(network_map) == 5), native


def test_equal_sizes_share_one_geometry_and_nobody_can_spoil_it():
    geometry = Geometry.letterbox((800, 600), (640, 384))
    assert Geometry.letterbox((800, 600), (640, 384)) is geometry
    with pytest.raises(ValueError, match="read-only"):
        geometry.axes()[0].cells[0] = 1


@pytest.mark.parametrize("sizes", [((0, 5), (640, 384)), ((5, -1), (640, 384)), ((5, 5), (0, 384))])
def test_a_size_without_pixels_is_refused(sizes: tuple[tuple[int, int], tuple[int, int]]):
    with pytest.raises(ValueError, match="positive"):
        Geometry.letterbox(*sizes)


def test_restore_says_what_does_not_fit():
    geometry = Geometry.letterbox((1280, 720), (640, 384))
    with pytest.raises(ValueError, match=r"whole fraction.*\(380, 640\)"):
        geometry.restore(np.zeros((380, 640), np.uint8))
    with pytest.raises(ValueError, match="whole fraction"):
        geometry.restore(np.zeros((192, 640), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        geometry.restore(np.zeros((384, 640), np.float32))  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"out must be uint8 \(720, 1280\)"):
        geometry.restore(np.zeros((384, 640), np.uint8), np.empty((1280, 720), np.uint8))
    with pytest.raises(ValueError, match="out must be uint16"):
        geometry.restore(np.zeros((384, 640), np.uint16), np.empty((720, 1280), np.uint8))  # type: ignore[type-var]
    for stride in (7, 5, 3, 0, -1):  # 5 divides the width only, 3 the height only
        with pytest.raises(ValueError, match="stride must divide"):
            geometry.axes(stride)


@pytest.mark.parametrize(
    ("camera", "size"),
    [
        ((1280, 720), (640, 384)),
        ((1920, 1080), (640, 384)),
        ((640, 360), (640, 384)),
        ((960, 720), (640, 480)),
        ((640, 480), (640, 480)),
        ((1920, 1200), (640, 416)),
        ((960, 290), (640, 224)),
        ((640, 640), (544, 544)),
        ((720, 1280), (384, 704)),
    ],
)
def test_the_network_takes_the_shape_of_usual_cameras(camera: tuple[int, int], size: tuple[int, int]) -> None:
    assert fitted_size(camera, (640, 384)) == size


@settings(max_examples=300, deadline=None)
@given(width=sides, height=sides, network=networks)
def test_a_fitted_size_is_the_largest_that_may_be(width: int, height: int, network: tuple[int, int]) -> None:
    """Against all sizes there are: those whose rows are what the picture needs, not too many pixels, the widest."""
    found = fitted_size((width, height), network)
    most = 1.25 * network[0] * network[1]
    assert all(side > 0 and side % 32 == 0 for side in found)
    assert found[0] <= network[0] and found[0] * found[1] <= most
    possible = [(w, 32 * ceil(Fraction(w * height, 32 * width))) for w in range(32, network[0] + 1, 32)]
    possible = [size for size in possible if size[0] * size[1] <= most]
    if possible:
        assert found == possible[-1]
        fitted, boxed = (Geometry.letterbox((width, height), size) for size in (found, network))
        if network[0] * height <= network[1] * width:  # wider than the network: nothing is lost
            assert fitted.content_width == boxed.content_width
