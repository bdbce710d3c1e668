"""The vectorised fusion against an independent, pixel-by-pixel version that works in native pixels."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
from between import class_between
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drive_seg.frame import Box, CameraImage, Extent, Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING, PANOPTIC_UNLABELLED, UNLABELLED, mask_of
from drive_seg.letterbox import Geometry
from drive_seg.postprocess import FusionOptions, PostProcessor

NETWORK = (96, 64)
STRIDE = 4


def frame(native: tuple[int, int]) -> Frame:
    width, height = native
    return Frame(CameraImage("mono8", width, height, width, np.zeros(width * height, np.uint8)))


def processor(options: FusionOptions) -> PostProcessor:
    return PostProcessor(DRIVING, NETWORK, options, lambda frame, name, shape, dtype: np.empty(shape, dtype))


def random_outputs(seed: int, peaks: int, thing_share: float, map_stride: int = 1) -> RawOutputs:
    rng = np.random.default_rng(seed)
    width, height = NETWORK
    coarse = rng.choice(
        6,
        size=(height // 8, width // 8),
        p=[0.4, 0.4 - thing_share / 2, 0.2 - thing_share / 2] + [thing_share / 3] * 3,
    )
    semantic = np.kron(coarse, np.ones((8, 8), int)).astype(np.uint8)
    speckles = rng.random(semantic.shape) < 0.05
    semantic[speckles] = rng.integers(0, 6, int(speckles.sum()))
    semantic = np.ascontiguousarray(semantic[::map_stride, ::map_stride])
    centers = np.zeros((1, 3, height // STRIDE, width // STRIDE), np.float32)
    where = tuple(rng.integers(0, size, peaks) for size in centers.shape[1:])
    centers[(0, *where)] = rng.uniform(0.05, 1.0, peaks)
    offsets = rng.normal(0, 12, (1, 2, height // STRIDE, width // STRIDE)).astype(np.float32)
    confidence = rng.integers(0, 256, (1, *semantic.shape), dtype=np.uint8)
    return RawOutputs(semantic[None], confidence, centers, offsets)


def brute_force(
    raw: RawOutputs, geometry: Geometry, options: FusionOptions
) -> tuple[NDArray[np.uint16], dict[int, tuple[float, Box, int]]]:
    """Loops over native pixels; instances by panoptic id as (score, box, area)."""
    semantic, confidence = raw.semantic[0], raw.confidence[0]
    map_stride = NETWORK[1] // semantic.shape[0]
    per_cell = STRIDE // map_stride
    columns, rows = (axis.cells // map_stride for axis in geometry.axes())
    content = {(int(y), int(x)) for y in range(rows[0], rows[-1] + 1) for x in range(columns[0], columns[-1] + 1)}

    owner: dict[tuple[int, int], tuple[int, int]] = {}
    heat_of: dict[tuple[int, int], float] = {}
    for channel, class_id in enumerate((3, 4, 5)):
        pixels = sorted(p for p in content if semantic[p] == class_id)
        needed = sorted({(y // per_cell, x // per_cell) for y, x in pixels})
        peaks = [tuple(p) for p in np.argwhere(raw.centers[0, channel] >= options.center_threshold)]
        closest: dict[tuple[int, int], int] = {}
        near: set[tuple[int, int]] = set()
        for cell in needed if peaks else []:
            offset = [raw.offsets[0, axis][cell] for axis in (0, 1)]
            vote = [np.float32(c * STRIDE + 1.5) + offset[axis] for axis, c in enumerate(cell)]
            distance = [
                (vote[0] - np.float32(y * STRIDE + 1.5)) ** 2 + (vote[1] - np.float32(x * STRIDE + 1.5)) ** 2
                for y, x in peaks
            ]
            closest[cell] = int(np.argmin(distance))
            if min(distance) <= 256 + (offset[0] ** 2 + offset[1] ** 2) / 4:
                near.add(cell)
        heat = [float(raw.centers[0, channel][p]) for p in peaks]
        cell_owner: dict[tuple[int, int], int] = {}
        for cell in needed:
            if cell in cell_owner:
                continue
            component, stack = set(), [cell]
            while stack:
                y, x = stack.pop()
                if (y, x) in needed and (y, x) not in component:
                    component.add((y, x))
                    stack += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            if component & near:
                cell_owner |= {member: closest[member] for member in component}
            else:
                cell_owner |= dict.fromkeys(component, len(heat))
                heat.append(options.center_threshold)
        for y, x in pixels:
            owner[y, x] = (class_id, cell_owner[y // per_cell, x // per_cell])
        heat_of.update({(class_id, number): value for number, value in enumerate(heat)})

    native: dict[tuple[int, int], list[tuple[int, int]]] = {}
    panoptic = np.zeros((len(rows), len(columns)), np.uint16)
    for y, map_y in enumerate(rows):
        for x, map_x in enumerate(columns):
            place = (int(map_y), int(map_x))
            if place in owner:
                native.setdefault(owner[place], []).append((y, x))
                panoptic[y, x] = PANOPTIC_UNLABELLED
            else:
                panoptic[y, x] = class_between(semantic, confidence, geometry, map_stride, y, x)
    instances: dict[int, tuple[float, Box, int]] = {}
    for class_id in (3, 4, 5):
        scored = []
        for segment, members in native.items():
            if segment[0] != class_id:
                continue
            own = [confidence[p] for p, o in owner.items() if o == segment]
            score = (heat_of[segment] * (sum(map(int, own)) / (255.0 * len(own)))) ** 0.75
            if len(members) >= max(1, options.min_instance_area) and score >= options.score_threshold:
                scored.append((-score, members))
        for k, (negative, members) in enumerate(sorted(scored, key=lambda item: item[0]), start=1):
            ys, xs = [y for y, _ in members], [x for _, x in members]
            box = Box(min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)
            instances[class_id * 1000 + k] = (-negative, box, len(members))
            for y, x in members:
                panoptic[y, x] = class_id * 1000 + k
    return panoptic, instances


def check_invariants(result: PanopticResult) -> None:
    np.testing.assert_array_equal(result.mask, mask_of(result.panoptic))
    in_map = set(
        np.unique(result.panoptic[(result.panoptic >= 1000) & (result.panoptic != PANOPTIC_UNLABELLED)]).tolist()
    )
    assert in_map == {instance.panoptic_id for instance in result.instances}
    assert not np.isin(result.panoptic, [3, 4, 5]).any()
    for instance in result.instances:
        assert int((result.panoptic == instance.panoptic_id).sum()) == instance.area


@settings(max_examples=60, deadline=None)
@example(133, 0, 0.05, (56, 6), 0, 0.0, 1)  # two vehicles of equal score: raster order decides
@example(1700809, 1, 0.05, (61, 7), 0, 0.0, 1)
@example(2, 3, 0.05, (120, 80), 0, 0.0, 1)  # some camera pixels share a network pixel
@given(
    seed=st.integers(0, 2**32 - 1),
    peaks=st.sampled_from([0, 1, 3, 12]),
    thing_share=st.sampled_from([0.05, 0.3]),
    native=st.tuples(st.integers(1, 150), st.integers(1, 110)),
    minimum=st.sampled_from([0, 40]),
    threshold=st.sampled_from([0.0, 0.2, 0.45]),
    map_stride=st.sampled_from([1, 2, 4]),
)
def test_fusion_equals_brute_force(
    seed: int,
    peaks: int,
    thing_share: float,
    native: tuple[int, int],
    minimum: int,
    threshold: float,
    map_stride: int,
) -> None:
    raw = random_outputs(seed, peaks, thing_share, map_stride)
    options = FusionOptions(score_threshold=threshold, min_instance_area=minimum, confidence=seed % 2 == 0)
    assert_is_brute_force(raw, native, options)


def assert_is_brute_force(raw: RawOutputs, native: tuple[int, int], options: FusionOptions) -> None:
    geometry = Geometry.letterbox(native, NETWORK)
    result = processor(options)(frame(native), raw, 0, geometry)
    panoptic, instances = brute_force(raw, geometry, options)
    np.testing.assert_array_equal(result.panoptic, panoptic)
    check_invariants(result)
    if options.confidence:
        places = (axis.cells // (NETWORK[1] // raw.confidence.shape[1]) for axis in geometry.axes()[::-1])
        np.testing.assert_array_equal(result.confidence, raw.confidence[0][np.ix_(*places)])
    else:
        assert result.confidence is None
    assert [i.panoptic_id for i in result.instances] == sorted(instances)
    for instance in result.instances:
        score, box, area = instances[instance.panoptic_id]
        assert (instance.box, instance.area) == (box, area)
        assert instance.score == pytest.approx(score, abs=1e-6)
        assert instance.class_name == DRIVING[instance.panoptic_id // 1000].name
        rows, columns = np.nonzero(panoptic == instance.panoptic_id)
        core = instance.core
        assert core is not None
        for first, size, pixels in ((core.x, core.width, columns), (core.y, core.height, rows)):
            assert first + size / 2 - 0.5 == pytest.approx(pixels.mean())
            assert (size**2 - 1) / 12 == pytest.approx(pixels.var(), abs=1e-6)


def one_vehicle() -> RawOutputs:
    raw = random_outputs(0, 0, 0.0)
    raw.semantic[:] = 1
    raw.semantic[0, 20:40, 8:48] = 3
    raw.confidence[:] = 255
    raw.offsets[:] = 0
    raw.centers[0, 0, 7, 3] = raw.centers[0, 0, 7, 10] = 0.8
    return raw


def test_pixels_far_from_every_centre_do_not_stretch_an_object() -> None:
    raw = one_vehicle()
    raw.semantic[0, 20:40, 28:48] = 1
    raw.centers[0, 0, 7, 10] = 0
    raw.semantic[0, 28:32, 80:88] = 3  # 16 pixels that nobody voted for a vehicle with
    geometry = Geometry.letterbox(NETWORK, NETWORK)
    alone = FusionOptions(min_instance_area=0)
    (vehicle, stray) = processor(alone)(frame(NETWORK), raw, 0, geometry).instances
    assert (vehicle.box, vehicle.area) == (Box(8, 20, 20, 20), 400)
    assert (stray.box, stray.area) == (Box(80, 28, 8, 4), 32) and stray.score == pytest.approx(0.3**0.75)
    raw.offsets[0, 1, 7, 20:22] = -60  # behind a post, it points at the vehicle: a part of it
    (vehicle,) = processor(alone)(frame(NETWORK), raw, 0, geometry).instances
    assert (vehicle.box, vehicle.area) == (Box(8, 20, 80, 20), 432)


def test_the_core_is_the_box_of_what_is_whole_and_hardly_moved_by_a_few_pixels() -> None:
    raw = one_vehicle()
    raw.centers[0, 0, 7, 10] = 0
    geometry = Geometry.letterbox(NETWORK, NETWORK)
    (vehicle,) = processor(FusionOptions())(frame(NETWORK), raw, 0, geometry).instances
    assert (vehicle.box, vehicle.core) == (Box(8, 20, 40, 20), Extent(8.0, 20.0, 40.0, 20.0))
    raw.semantic[0, 30, 48:64] = 3
    (vehicle,) = processor(FusionOptions())(frame(NETWORK), raw, 0, geometry).instances
    assert vehicle.box == Box(8, 20, 56, 20) and vehicle.core is not None
    assert vehicle.core.x == pytest.approx(8, abs=2) and vehicle.core.width == pytest.approx(40, abs=4)


@pytest.mark.parametrize("threshold", [0.3, 0.8])
def test_offsets_split_touching_vehicles(threshold: float) -> None:
    raw = one_vehicle()  # whose peaks are 0.8
    geometry = Geometry.letterbox(NETWORK, NETWORK)
    result = processor(FusionOptions(center_threshold=threshold))(frame(NETWORK), raw, 0, geometry)
    assert [i.panoptic_id for i in result.instances] == [3001, 3002]
    assert result.instances[0].box == Box(8, 20, 20, 20)
    assert result.instances[1].box == Box(28, 20, 20, 20)


def test_one_centre_more_than_may_be_used_is_left_out() -> None:
    raw = one_vehicle()
    raw.centers[0, 0, 7, 10] = 0.9
    geometry = Geometry.letterbox(NETWORK, NETWORK)
    result = processor(FusionOptions(max_centers=1))(frame(NETWORK), raw, 0, geometry)
    assert [(i.box, i.score) for i in result.instances] == [(Box(8, 20, 40, 20), pytest.approx(0.9**0.75))]


@pytest.mark.parametrize(("cells", "heat"), [(4, 0.8), (5, 0.3)])
def test_a_vote_may_miss_its_centre_by_the_limit(cells: int, heat: float) -> None:
    raw = one_vehicle()
    raw.semantic[:] = 1
    raw.semantic[0, 28:32, 40:44] = 3
    raw.centers[0, 0] = 0
    raw.centers[0, 0, 7, 10 - cells] = 0.8  # so many cells of 4 pixels to the left: 16 are near enough
    options = FusionOptions(min_instance_area=0)
    (found,) = processor(options)(frame(NETWORK), raw, 0, Geometry.letterbox(NETWORK, NETWORK)).instances
    assert found.score == pytest.approx(heat**0.75)


def test_a_score_is_at_most_1_whatever_the_heat() -> None:
    raw = one_vehicle()
    raw.centers[0, 0, 7, 3] = 1.5
    result = processor(FusionOptions())(frame(NETWORK), raw, 0, Geometry.letterbox(NETWORK, NETWORK))
    assert [i.score for i in result.instances] == [1.0, pytest.approx(0.8**0.75)]


def test_an_object_may_reach_from_one_edge_of_the_image_to_the_other() -> None:
    raw = one_vehicle()
    raw.semantic[0, 48:] = 3
    assert_is_brute_force(raw, NETWORK, FusionOptions())


def test_a_class_has_no_more_instances_than_its_ids_can_tell_apart() -> None:
    size = (512, 256)
    semantic = np.ones((256, 512), np.uint8)
    semantic.reshape(32, 8, 64, 8)[:, :2, :, :2] = 3  # 2048 vehicles of four pixels
    confidence = np.full_like(semantic, 255)
    confidence[:128] = 200
    nothing = np.zeros((1, 3, 64, 128), np.float32)
    raw = RawOutputs(semantic[None], confidence[None], nothing, nothing[:, :2])
    options = FusionOptions(min_instance_area=0, score_threshold=0.0)
    fuse = PostProcessor(DRIVING, size, options, lambda frame, name, shape, dtype: np.empty(shape, dtype))
    result = fuse(frame(size), raw, 0, Geometry.letterbox(size, size))
    check_invariants(result)
    assert [i.panoptic_id for i in result.instances] == list(range(3001, 4000))
    places = [(y, x) for y in range(128, 256, 8) for x in range(0, 512, 8)]  # the surer ones, from above
    assert [(i.box.y, i.box.x) for i in result.instances] == places[:999]
    assert int((result.mask == UNLABELLED).sum()) == 4 * (2048 - 999)


def test_what_is_given_up_is_unlabelled_everywhere() -> None:
    raw = one_vehicle()
    geometry = Geometry.letterbox(NETWORK, NETWORK)
    result = processor(FusionOptions(min_instance_area=401))(frame(NETWORK), raw, 0, geometry)
    assert result.instances == ()
    assert (result.mask[20:40, 8:48] == UNLABELLED).all() and (
        result.panoptic[20:40, 8:48] == PANOPTIC_UNLABELLED
    ).all()


def test_classes_the_labels_do_not_have_are_unlabelled() -> None:
    raw = one_vehicle()
    raw.semantic[0, :10] = 77
    result = processor(FusionOptions())(frame(NETWORK), raw, 0, Geometry.letterbox(NETWORK, NETWORK))
    assert (result.mask[:10] == UNLABELLED).all() and (result.panoptic[:10] == PANOPTIC_UNLABELLED).all()
    check_invariants(result)


def test_network_resolution_leaves_out_the_bars_and_keeps_native_boxes() -> None:
    native = (192, 64)  # letterboxed into 96 x 32 in the middle of 96 x 64
    raw = one_vehicle()
    geometry = Geometry.letterbox(native, NETWORK)
    options = FusionOptions(output_resolution="network", min_instance_area=0)
    small = processor(options)(frame(native), raw, 0, geometry)
    full = processor(replace(options, output_resolution="native"))(frame(native), raw, 0, geometry)
    assert small.panoptic.shape == (32, 96) and full.panoptic.shape == (64, 192)
    assert small.instances == full.instances
    np.testing.assert_array_equal(np.kron(small.panoptic, np.ones((2, 2), np.uint16)), full.panoptic)


@pytest.mark.parametrize(("native", "map_stride"), [((1920, 1208), 4), ((640, 481), 8), ((50, 30), 1), ((64, 64), 4)])
def test_the_extent_says_where_a_camera_pixel_lies_in_maps_of_the_networks_resolution(
    native: tuple[int, int], map_stride: int
) -> None:
    geometry = Geometry.letterbox(native, NETWORK)
    raw = random_outputs(0, 0, 0.0, map_stride)
    for axis, pixels in enumerate(native):
        raw.semantic[0] = np.indices(raw.semantic[0].shape)[1 - axis] % 3  # stripes of one cell
        full, small = (
            processor(FusionOptions(output_resolution=resolution))(frame(native), raw, 0, geometry)
            for resolution in ("native", "network")
        )
        assert full.extent is None and small.extent is not None
        begin, length = ((small.extent.x, small.extent.width), (small.extent.y, small.extent.height))[axis]
        at = begin + (np.arange(pixels) + 0.5) * length / pixels
        clear = np.abs(at - np.rint(at)) > 0.02  # not on the edge of a cell
        line, cells = ((result.mask if axis else result.mask.T)[:, 0] for result in (full, small))
        assert clear.sum() > pixels / 2
        np.testing.assert_array_equal(line[clear], cells[at[clear].astype(int)])


def test_at_network_resolution_outlines_are_those_of_the_network() -> None:
    native = (192, 64)
    raw = one_vehicle()
    raw.semantic[0] = 1 + np.tri(64, 96, 8, np.uint8)
    raw.confidence[raw.semantic == 1] = 180
    geometry = Geometry.letterbox(native, NETWORK)
    small = processor(FusionOptions(output_resolution="network"))(frame(native), raw, 0, geometry)
    full = processor(FusionOptions())(frame(native), raw, 0, geometry)
    np.testing.assert_array_equal(small.mask, raw.semantic[0, 16:48])
    assert (full.mask != np.kron(small.mask, np.ones((2, 2), np.uint8))).any(), "borders run between cells there"


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_over_the_limit_it_is_as_if_there_were_the_strongest_peaks_only(seed: int, limit: int) -> None:
    raw = random_outputs(seed, 12, 0.3)
    weakest = np.sort(raw.centers, axis=None)[-limit]
    fewer = replace(raw, centers=np.where(raw.centers >= weakest, raw.centers, np.float32(0)))
    geometry = Geometry.letterbox(NETWORK, NETWORK)
    limited, few, all_of_them = (
        processor(FusionOptions(max_centers=most, score_threshold=0.0))(frame(NETWORK), maps, 0, geometry)
        for most, maps in ((limit, raw), (128, fewer), (128, raw))
    )
    np.testing.assert_array_equal(limited.panoptic, few.panoptic)
    assert limited.instances == few.instances != all_of_them.instances


def test_a_folder_of_images_of_many_sizes_fills_no_memory() -> None:
    def tables() -> int:
        gc.collect()
        return sum(type(found).__name__ == "_Tables" for found in gc.get_objects())

    raw, before = one_vehicle(), tables()
    fuse = processor(FusionOptions())
    sizes = [(width, 40) for width in range(30, 70)]
    first, again = (
        [fuse(frame(size), raw, 0, Geometry.letterbox(size, NETWORK)).panoptic for size in sizes] for _ in range(2)
    )
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert tables() - before <= 16
