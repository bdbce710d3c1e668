"""Lane boundaries in maps whose roads are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from roads import BACKGROUND, CAR, HEIGHT, PAINT, ROAD, WIDTH, FlatRoad, fill, orders_of, worst

from drive_seg.engines import FunctionEngine
from drive_seg.errors import MalformedImage
from drive_seg.frame import Lane, RawOutputs
from drive_seg.labels import DRIVING, UNLABELLED, LabelSet
from drive_seg.lanes import LaneFinder
from drive_seg.lanes.strokes import find_strokes
from drive_seg.lanes.table import FIELDS, POINT_FIELD_TYPES, RECORD, from_records, parse_records, to_records
from drive_seg.letterbox import Geometry
from drive_seg.pipeline import Pipeline
from drive_seg.postprocess import FusionOptions

FIND = LaneFinder(DRIVING)
NATIVE = (2 * WIDTH, 2 * HEIGHT)
SLACK = 6.0
"""Columns of the map by which a point may miss: 12 camera pixels at 1280x720."""
OWN_LANE = FlatRoad((-1.1, 1.2))
TWO_LANES = FlatRoad((-3.4, -1.1, 1.2), dashed=(False, True, False))

roads = st.builds(
    lambda first, gaps, **shape: FlatRoad(tuple(first + sum(gaps[:n]) for n in range(len(gaps) + 1)), **shape),
    st.floats(-3.5, -0.8),
    st.lists(st.floats(1.7, 2.6), min_size=1, max_size=2),
    horizon=st.floats(110, 170),
    vanish=st.floats(250, 390),
    curve=st.floats(-250, 250),
    width=st.floats(0.07, 0.14),
).filter(lambda road: min(map(abs, road.sides)) > 0.3)


def find(mask: NDArray[np.uint8]) -> tuple[Lane, ...]:
    return FIND(mask, NATIVE)


def assert_is(found: tuple[Lane, ...], road: FlatRoad, slack: float = SLACK, above: float = 14.0) -> None:
    """Exactly these boundaries, in place, from left to right, well formed."""
    assert [lane.order for lane in found] == orders_of(road.sides)
    for lane, side in zip(found, road.sides, strict=True):
        assert worst(lane.points, road, side, 2.0, above) <= slack
        assert (np.diff(lane.points[:, 1]) < 0).all()
        assert 0 < lane.confidence <= 1 and lane.support > 0


@settings(max_examples=40, deadline=None)
@given(roads)
def test_boundaries_are_where_they_were_painted(road: FlatRoad) -> None:
    assert_is(find(road.draw()), road)


LEAVING = FlatRoad((-1.59375, 0.59375, 2.3125), horizon=122.5, vanish=250.0)
"""Its solid line leaves the image at the side, where a part of its width is seen."""


# The same roads every time: of the sharpest bends with the fewest dashes in sight one in a thousand is missed by more.
@settings(max_examples=25, deadline=None, derandomize=True)
@given(roads, st.floats(0, 9))
@example(LEAVING, 8.5)
def test_dashes_are_found_through_their_gaps(road: FlatRoad, phase: float) -> None:
    gappy = FlatRoad(road.sides, road.horizon, road.vanish, road.curve, (False, *[True] * (len(road.sides) - 1)))
    found = find(gappy.draw(phase))
    assert [lane.order for lane in found] == orders_of(road.sides)
    for number, lane in enumerate(found):  # further away and nearer than its paint, a gap hides where it bends
        seen = lane.points[lane.points[:, 1] / 2 <= gappy.nearest_paint(number, phase)]
        assert worst(seen, gappy, road.sides[number], 2.0, above=24.0) <= 2 * SLACK
    assert found[0].dashed is not True
    assert not any(lane.dashed is False for lane in found[1:])


@settings(max_examples=25, deadline=None)
@given(roads)
def test_a_mirror_image_has_mirrored_boundaries(road: FlatRoad) -> None:
    mask = road.draw()
    straight, mirrored = find(mask), find(np.ascontiguousarray(mask[:, ::-1]))
    assert [-lane.order for lane in reversed(mirrored)] == [lane.order for lane in straight]
    for lane, other in zip(straight, reversed(mirrored), strict=True):
        assert worst(other.points, flipped(road), -side_of(road, lane), 2.0) <= SLACK


@settings(max_examples=20, deadline=None)
@given(roads, st.integers(-60, 60), st.integers(-25, 25))
def test_a_moved_road_has_moved_boundaries(road: FlatRoad, right: int, down: int) -> None:
    moved = FlatRoad(road.sides, road.horizon + down, road.vanish + right, road.curve, width=road.width)
    assert_is(find(moved.draw()), moved)


@settings(max_examples=20, deadline=None)
@given(roads, st.integers(0, 2**32 - 1))
def test_specks_change_nothing(road: FlatRoad, seed: int) -> None:
    mask = road.draw()
    random = np.random.default_rng(seed)
    mask[(mask == ROAD) & (random.random(mask.shape) < 0.001)] = PAINT
    mask[(mask == PAINT) & (random.random(mask.shape) < 0.1)] = ROAD
    assert_is(find(mask), road, 2 * SLACK)


def test_what_lies_across_the_road_is_no_boundary() -> None:
    mask = TWO_LANES.draw()
    mask[300:306, 200:480] = PAINT  # a stop line
    mask[345:349, 20:600] = PAINT  # the edge of a bonnet
    for row in (240, 250, 262):  # expansion joints
        mask[row, 220:460] = PAINT
    mask[346:352, 100:620:23] = PAINT  # its reflections
    assert_is(find(mask), TWO_LANES)


def test_the_bars_of_a_crossing_are_no_boundaries() -> None:
    mask = TWO_LANES.draw()
    for row in range(250, 300):
        for side in np.arange(-0.8, 1.0, 0.55):
            u = row - TWO_LANES.horizon
            fill(mask, row, TWO_LANES.column(side, row) - 0.12 * u, TWO_LANES.column(side, row) + 0.12 * u, PAINT)
    assert_is(find(mask), TWO_LANES)


def test_an_arrow_is_no_boundary() -> None:
    mask = TWO_LANES.draw()
    for row in range(230, 275):
        u = row - TWO_LANES.horizon
        half = 0.06 * u if row > 245 else 0.28 * u * (row - 229) / 16
        fill(mask, row, TWO_LANES.column(0.05, row) - half, TWO_LANES.column(0.05, row) + half, PAINT)
    assert_is(find(mask), TWO_LANES)


@pytest.mark.parametrize("side", [0.0, 0.05])
def test_an_arrow_without_a_head_is_no_boundary(side: float) -> None:
    """As one that turns off, or whose head is under a vehicle: too close to a line to be one."""
    road = FlatRoad((-3.4, -1.1, 1.05), dashed=(False, True, False))
    mask = road.draw()
    for row in range(230, 262):
        u = row - road.horizon
        fill(mask, row, road.column(side, row) - 0.06 * u, road.column(side, row) + 0.06 * u, PAINT)
    assert_is(find(mask), road, 1.5 * SLACK)


def test_a_double_line_is_one_boundary_in_its_middle() -> None:
    pair = FlatRoad((-1.25, -1.05, 1.3), width=0.08)
    found = find(pair.draw())
    assert_is(found, FlatRoad((-1.15, 1.3)))
    assert found[0].dashed is False


@pytest.mark.parametrize(("side", "width", "gap"), [(2.6, 0.12, 0.04), (2.9, 0.1, 0.08), (-3.2, 0.1, 0.04)])
def test_a_double_line_far_to_the_side_is_found_though_a_row_of_blur_widens_it(
    side: float, width: float, gap: float
) -> None:
    apart = (width + gap) / 2
    pair = tuple(sorted((-0.9, 1.1, side - apart, side + apart)))
    mask = FlatRoad(pair, width=width).draw()
    painted = mask == PAINT
    mask[1:-1][painted[2:] | painted[:-2]] = PAINT
    assert_is(find(mask), FlatRoad(tuple(sorted((-0.9, 1.1, side)))))


@pytest.mark.parametrize("side", [1.2, 2.9])
def test_a_double_line_is_found_though_its_gap_is_closed_here_and_there(side: float) -> None:
    pair = FlatRoad((-1.1, side - 0.14, side + 0.14), width=0.12)
    mask = pair.draw()
    for row in range(int(pair.horizon) + 4, HEIGHT):
        if row % 5 < 3:
            fill(mask, row, pair.column(side - 0.14, row), pair.column(side + 0.14, row), PAINT)
    found = find(mask)
    assert_is(found, FlatRoad((-1.1, side)))
    assert found[1].dashed is False


def test_a_boundary_goes_on_behind_a_vehicle_and_ends_at_the_bonnet() -> None:
    mask = TWO_LANES.draw()
    mask[180:260, 150:260] = CAR
    mask[330:] = 0
    found = find(mask)
    assert_is(found, TWO_LANES)
    for lane in found[:1]:
        assert lane.points[0, 1] < 2 * 331
        assert lane.points[-1, 1] < 2 * 180


@pytest.mark.parametrize(
    ("value", "nearest"),
    [(CAR, HEIGHT), (UNLABELLED, HEIGHT), (len(DRIVING), HEIGHT), (ROAD, HEIGHT), (0, 320)],
)
def test_what_hides_the_road_before_the_camera_does_not_end_a_boundary(value: int, nearest: int) -> None:
    mask = OWN_LANE.draw()
    mask[320:] = value
    found = find(mask)
    assert_is(found, OWN_LANE)
    for lane in found:
        assert nearest - 2 <= lane.points[0, 1] / 2 <= nearest


def test_a_boundary_goes_on_beyond_its_last_paint_but_not_for_ever() -> None:
    """To three times the distance, as long as there is road."""
    mask = OWN_LANE.draw()
    mask[:300][mask[:300] == PAINT] = ROAD
    found = find(mask)
    assert_is(found, OWN_LANE)
    third = OWN_LANE.horizon + (300 - OWN_LANE.horizon) / 3
    assert all(abs(lane.points[-1, 1] / 2 - third) <= 8 for lane in found)


def test_whether_a_boundary_is_dashed_is_not_said_of_a_short_piece_of_road() -> None:
    mask = TWO_LANES.draw()
    assert [lane.dashed for lane in find(mask)] == [False, True, False]
    mask[175:][mask[175:] != 0] = CAR
    assert {lane.dashed for lane in find(mask)} == {None}


def test_support_is_the_paint_in_pixels_of_the_camera() -> None:
    mask = OWN_LANE.draw()
    pixels = int(np.count_nonzero(mask == PAINT))
    for scale in (1, 2, 3):
        support = sum(lane.support for lane in FIND(mask, (scale * WIDTH, scale * HEIGHT)))
        assert 0.95 * pixels * scale**2 < support <= pixels * scale**2


def test_a_few_cells_of_road_in_the_sky_change_nothing() -> None:
    mask = TWO_LANES.draw()
    mask[10:12, 100:110] = mask[40, 500] = ROAD
    assert_is(find(mask), TWO_LANES)


@pytest.mark.parametrize("curve", [-900.0, 900.0])
def test_sharp_bends_are_followed(curve: float) -> None:
    road = FlatRoad((-3.4, -1.1, 1.2), curve=curve)
    assert_is(find(road.draw()), road)


@pytest.mark.parametrize("seed", [202, 309, 358])
def test_ragged_dashes_are_found_where_they_are(seed: int) -> None:
    """Nothing but dashes, each row moved by up to a cell: any two of them point to another road than the rest."""
    random = np.random.default_rng(seed)
    first = random.uniform(-2, -0.6)
    road = FlatRoad((first, first + 2.3, first + 4.6), curve=random.uniform(-200, 200), dashed=(True, True, True))
    mask = road.draw(random.uniform(0, 9))
    assert_is(find(np.stack([np.roll(row, random.integers(-1, 2)) for row in mask])), road)


@pytest.mark.parametrize("size", [(320, 180), (960, 540), (1280, 720)])
def test_the_resolution_of_the_map_does_not_matter(size: tuple[int, int]) -> None:
    rows = (np.arange(size[1]) + 0.5) * HEIGHT / size[1]
    columns = (np.arange(size[0]) + 0.5) * WIDTH / size[0]
    mask = TWO_LANES.draw()[rows.astype(int)[:, None], columns.astype(int)]
    assert_is(find(mask), TWO_LANES)


def test_the_same_map_in_smaller_cells_has_the_same_boundaries() -> None:
    """Bends, dashes and short roads, which rules with lengths in them decide about: they must grow with the map."""
    random = np.random.default_rng(0)
    for _ in range(60):
        gaps, first = random.uniform(1.7, 2.6, random.integers(1, 3)), random.uniform(-3.5, -0.8)
        road = FlatRoad(
            tuple(np.cumsum([first, *gaps]).tolist()),
            random.uniform(110, 170),
            random.uniform(250, 390),
            random.uniform(-250, 250),
            tuple((random.random(3) < 0.5).tolist()),
        )
        if min(map(abs, road.sides)) < 0.3:
            continue
        mask = road.draw(random.uniform(0, 9))
        mask[random.integers(200, 361) :] = BACKGROUND
        expected = find(mask)
        for scale in (2, 3):
            found = find(mask.repeat(scale, axis=0).repeat(scale, axis=1))
            assert [lane.order for lane in found] == [lane.order for lane in expected]
            for lane, other in zip(found, expected, strict=True):
                (_, near), (_, far) = lane.points[0], lane.points[-1]
                assert abs(near - other.points[0, 1]) <= 3 and abs(far - other.points[-1, 1]) <= 12
                assert abs(lane.confidence - other.confidence) <= 0.25
                rows = lane.points[lane.points[:, 1] > 2 * (road.horizon + 14), 1]
                columns = (np.interp(rows, line.points[::-1, 1], line.points[::-1, 0]) for line in (lane, other))
                assert np.abs(np.subtract(*columns)).max(initial=0) <= 2 * SLACK


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 60)), elements=st.sampled_from([0, 1, 2, 3, 255])),
    st.integers(1, 3),
)
def test_any_map_gives_boundaries_inside_the_image(mask: NDArray[np.uint8], scale: int) -> None:
    mask = np.ascontiguousarray(mask.repeat(scale * 4, axis=0).repeat(scale * 4, axis=1))
    before = mask.copy()
    found = FIND(mask, (mask.shape[1], mask.shape[0]))
    assert np.array_equal(mask, before)
    for lane in found:
        assert np.isfinite(lane.points).all()
        assert (lane.points >= -1).all() and (lane.points <= mask.shape[::-1]).all()
    orders = [lane.order for lane in found]
    assert orders == sorted(set(orders)) and 0 not in orders


@pytest.mark.parametrize("density", [0.05, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("seed", range(5))
def test_strokes_are_the_connected_pieces_of_their_runs(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    paint = (rng.random((90, 641 if seed % 2 else 160)) < density).astype(np.uint8)
    for _ in range(4):
        ends = rng.integers(0, paint.shape[::-1], (2, 2)).tolist()
        cv2.line(paint, ends[0], ends[1], 1, int(rng.integers(1, 6)))
    strokes = find_strokes(paint, 0)
    assert strokes is not None
    drawn = np.zeros_like(paint)
    begin = (strokes.x - (strokes.width - 1) / 2).astype(int)
    for row, first, width in zip(strokes.row.astype(int), begin, strokes.width.astype(int), strict=True):
        drawn[row, first : first + width] = 1
    _, pieces = cv2.connectedComponents(drawn, connectivity=8)
    pairs = {
        (int(pieces[int(row), first]), int(stroke))
        for row, first, stroke in zip(strokes.row, begin, strokes.stroke, strict=True)
    }
    assert len(pairs) > 3
    assert len({piece for piece, _ in pairs}) == len(pairs) == len({stroke for _, stroke in pairs})
    # Each run is all of the paint that is there, and none is cut off by the side of the image.
    rows, past = strokes.row.astype(int), begin + strokes.width.astype(int)
    assert begin.min() > 0 and past.max() < paint.shape[1] - 1
    assert (paint[rows, begin] & paint[rows, past - 1]).all()
    assert not (paint[rows, begin - 1] | paint[rows, past]).any()
    for stroke in np.unique(strokes.stroke):
        mine = strokes.stroke == stroke
        y, x = strokes.row[mine], strokes.x[mine]
        assert (strokes.mean_row[stroke], strokes.mean_x[stroke]) == pytest.approx((y.mean(), x.mean()))
        if y.size == np.ptp(y) + 1 == np.unique(y).size > 1:
            assert strokes.rows[stroke] == pytest.approx(y.size)
            assert strokes.slope[stroke] == pytest.approx(np.polyfit(y - y.mean(), x, 1)[0], abs=1e-6)


def test_a_model_without_markings_has_no_boundaries() -> None:
    labels = LabelSet(tuple(label for label in DRIVING if label.id < 2))
    assert LaneFinder(labels)(np.ones((90, 160), np.uint8), (160, 90)) == ()


def test_the_pipeline_finds_them_where_asked_in_the_camera_s_pixels() -> None:
    """A camera of another shape than the network: the way back goes through the letterbox."""
    semantic = np.zeros((1, 384, 640), np.uint8)
    semantic[0, 12:372] = TWO_LANES.draw()
    nothing = np.zeros((1, 3, 96, 160), np.float32)
    outputs = RawOutputs(semantic, np.full_like(semantic, 255), nothing, nothing[:, :2])
    image = np.zeros((720, 1280, 3), np.uint8)
    with Pipeline(FunctionEngine(lambda batch: outputs, (640, 384)), DRIVING) as pipeline:
        assert pipeline(image).lanes is None
        both = []
        for resolution in ("native", "network"):
            pipeline.options = FusionOptions(output_resolution=resolution, lanes=True)
            found = pipeline(image).lanes
            assert found is not None
            assert_is(found, TWO_LANES)
            both.append(np.stack([lane.points for lane in found]))
        np.testing.assert_array_equal(both[0], both[1], "borders that move in the camera's pixels move nothing")


def test_an_image_that_begins_within_a_cell_has_its_boundaries_in_place() -> None:
    """Maps of 4x4 pixels; the letterbox leaves 15 pixels at either side."""
    network, native, stride = (640, 384), (1920, 1208), 4
    road = FlatRoad((-3.4, -1.1, 1.2, 3.3), width=0.14)
    way = Geometry.letterbox(native, network)
    assert way.x0 % stride

    def middles(begin: int, content: int, cells: int, size: int) -> NDArray[np.intp]:
        places = (np.arange(cells) + 0.5) * stride - begin
        return np.clip(places * size / content, 0, size - 1).astype(np.intp)

    rows = middles(way.y0, way.content_height, network[1] // stride, HEIGHT)
    columns = middles(way.x0, way.content_width, network[0] // stride, WIDTH)
    semantic = np.ascontiguousarray(road.draw()[rows][:, columns])[None]
    nothing = np.zeros((1, 3, 96, 160), np.float32)
    outputs = RawOutputs(semantic, np.full_like(semantic, 255), nothing, nothing[:, :2])
    with Pipeline(FunctionEngine(lambda batch: outputs, network), DRIVING, FusionOptions(lanes=True)) as pipeline:
        found = pipeline(np.zeros((native[1], native[0], 3), np.uint8)).lanes
    assert found is not None and [lane.order for lane in found] == orders_of(road.sides)
    for lane, side in list(zip(found, road.sides, strict=True))[2:]:
        places = (lane.points.astype(float) + 0.5) * (WIDTH / native[0], HEIGHT / native[1]) - 0.5
        assert worst(places, road, side, 1.0, 30.0) * native[0] / WIDTH < 4


lanes = st.lists(
    st.builds(
        Lane,
        st.just(1),
        arrays(np.float32, st.tuples(st.integers(2, 9), st.just(2)), elements=st.floats(-9, 5000, width=32)),
        st.floats(0, 1, width=32),
        st.integers(0, 2**32 - 1),
        st.sampled_from([None, True, False]),
    ),
    max_size=5,
).map(
    lambda many: [
        Lane(n - 3 or 9, one.points[np.argsort(-one.points[:, 1])], one.confidence, one.support, one.dashed)
        for n, one in enumerate(many)
    ]
)


@given(lanes, st.booleans())
def test_records_hold_everything_and_may_lie_anywhere_in_a_point(many: list[Lane], spread: bool) -> None:
    records = to_records(many, lambda pixels: pixels.astype(float) / 2)
    if records.size:
        np.testing.assert_allclose(records["x"], records["u"] / 2)
        assert (records["z"] == 1).all()
    fields = [(name, at, POINT_FIELD_TYPES[kind]) for name, at, kind in FIELDS]
    data, step = records.view(np.uint8), RECORD.itemsize
    if spread:  # another layout: the fields in the opposite order, five bytes apart
        step = 12 * len(fields)
        moved = np.zeros((records.size, step), np.uint8)
        for number, (name, at, kind) in enumerate(FIELDS):
            size = np.dtype(kind).itemsize
            place = step - 12 * (number + 1)
            moved[:, place : place + size] = data.reshape(-1, RECORD.itemsize)[:, at : at + size]
            fields[number] = (name, place, POINT_FIELD_TYPES[kind])
        data = moved.reshape(-1)
    found = from_records(parse_records(fields, step, records.size, data))
    assert [(one.order, one.confidence, one.support, one.dashed) for one in found] == [
        (one.order, one.confidence, one.support, one.dashed) for one in many
    ]
    for one, other in zip(found, many, strict=True):
        np.testing.assert_array_equal(one.points, other.points)


def test_without_a_calibration_there_are_no_rays() -> None:
    records = to_records([Lane(-1, np.zeros((2, 2), np.float32))])
    assert np.isnan([records[axis] for axis in "xyz"]).all()


def test_other_point_clouds_are_refused() -> None:
    with pytest.raises(MalformedImage, match="field x of kind f4, got none"):
        parse_records([], 16, 1, np.zeros(16, np.uint8))
    with pytest.raises(MalformedImage, match="field x of kind f4, got f8"):
        parse_records([("x", 0, 8)], 16, 1, np.zeros(16, np.uint8))
    with pytest.raises(MalformedImage, match="field x of kind f4"):  # it reaches beyond its point
        parse_records([("x", 14, 7)], 16, 1, np.zeros(16, np.uint8))
    with pytest.raises(MalformedImage, match="need 3200 bytes, got 16"):
        parse_records([], 32, 100, np.zeros(16, np.uint8))
    with pytest.raises(MalformedImage, match="points of 0 bytes"):
        parse_records([], 0, 1 << 45, np.zeros(16, np.uint8))


def test_what_is_reserved_need_not_be_there() -> None:
    lane = Lane(-1, np.array([[9, 80], [7, 50]], np.float32))
    fields = [(name, at, POINT_FIELD_TYPES[kind]) for name, at, kind in FIELDS if name != "reserved"]
    (found,) = from_records(parse_records(fields, RECORD.itemsize, 2, to_records([lane]).view(np.uint8)))
    np.testing.assert_array_equal(found.points, lane.points)


def test_points_of_another_writer_may_go_from_far_to_near() -> None:
    points = np.array([[9, 80], [7, 50], [6, 30]], np.float32)
    records = to_records([Lane(-1, points), Lane(1, points)])
    for order in ([0, 1, 2], [2, 1, 0]):
        for lane in from_records(records[[*order, 3, 4, 5]]):
            np.testing.assert_array_equal(lane.points, points)


def test_points_that_are_no_line_are_refused() -> None:
    records = to_records([Lane(-1, np.array([[9, 80], [7, 50], [6, 30]], np.float32))])
    with pytest.raises(MalformedImage, match="boundary -1: rows must fall from point to point"):
        from_records(records[[0, 2, 1]])
    with pytest.raises(MalformedImage, match=r"boundary -1: points must be float32 \(N >= 2, 2\)"):
        from_records(records[:1])
    records["u"][1] = np.nan
    with pytest.raises(MalformedImage, match="boundary -1: points must be finite"):
        from_records(records)


def test_a_lane_s_points_are_checked() -> None:
    with pytest.raises(ValueError, match=r"float32 \(N >= 2, 2\), got float64"):
        Lane(1, np.zeros((3, 2)))  # type: ignore[arg-type]


def flipped(road: FlatRoad) -> FlatRoad:
    sides = tuple(-side for side in reversed(road.sides))
    return FlatRoad(sides, road.horizon, WIDTH - 1 - road.vanish, -road.curve, width=road.width)


def side_of(road: FlatRoad, lane: Lane) -> float:
    return dict(zip(orders_of(road.sides), road.sides, strict=True))[lane.order]
