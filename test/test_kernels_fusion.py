"""The fusion kernels, run on the CPU, against the PostProcessor: maps, instances, overlay, in any order of threads."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from cuda_on_cpu import CONSTANTS, STRUCTS, Order, emulator
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_slot import Slot
from numpy.typing import NDArray

from drive_seg.engines import kernels
from drive_seg.engines.kernels import launch, layout, tables
from drive_seg.frame import CameraImage, Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.letterbox import Geometry
from drive_seg.overlay import draw_overlay
from drive_seg.postprocess import FusionOptions, PostProcessor

NETWORK = (96, 64)
STRIDE = 4


def color_image(native: tuple[int, int], seed: int = 0) -> CameraImage:
    width, height = native
    return CameraImage.from_rgb(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def random_outputs(
    seed: int,
    peaks: int,
    batch: int = 1,
    map_stride: int = 1,
    labels: LabelSet = DRIVING,
    network: tuple[int, int] = NETWORK,
    blob: int = 8,
) -> RawOutputs:
    """Blobs of classes with speckles, peaks of few different heats so that there are ties, offsets of any length."""
    rng = np.random.default_rng(seed)
    width, height = network
    share = np.full(len(labels), 1.0)
    share[rng.integers(0, len(labels))] = 4
    coarse = rng.choice(len(labels), size=(batch, height // blob + 1, width // blob + 1), p=share / share.sum())
    semantic = np.kron(coarse, np.ones((1, blob, blob), int)).astype(np.uint8)[:, :height, :width]
    speckles = rng.random(semantic.shape) < 0.05
    semantic[speckles] = rng.integers(0, len(labels) + 2, int(speckles.sum()))  # also ids that are no class
    semantic = np.ascontiguousarray(semantic[:, ::map_stride, ::map_stride])
    centers = np.zeros((batch, len(labels.things), height // STRIDE, width // STRIDE), np.float32)
    for index in range(batch):
        where = tuple(rng.integers(0, size, peaks) for size in centers.shape[1:])
        centers[(index, *where)] = rng.choice(np.float32([0.05, 0.1, 0.3, 0.6, 0.6000001, 1.0, 1.2]), peaks)
    offsets = rng.normal(0, 12, (batch, 2, height // STRIDE, width // STRIDE)).astype(np.float32)
    offsets[rng.random(offsets.shape) < 0.5] = 0  # equal distances
    confidence = rng.choice(np.array([0, 90, 128, 200, 240, 255], np.uint8), semantic.shape)
    return RawOutputs(semantic, confidence, centers, offsets)


def expected(
    image: CameraImage,
    raw: RawOutputs,
    index: int,
    options: FusionOptions,
    labels: LabelSet,
    network: tuple[int, int] = NETWORK,
) -> PanopticResult:
    fuse = PostProcessor(labels, network, options, lambda frame, name, shape, dtype: np.empty(shape, dtype))
    geometry = Geometry.letterbox((image.width, image.height), network)
    return fuse(Frame(image), raw, index, geometry)


def check(outcome: kernels.Outcome, result: PanopticResult) -> None:
    assert outcome.flags == 0
    assert np.array_equal(outcome.mask, result.mask)
    assert np.array_equal(outcome.panoptic, result.panoptic)
    assert outcome.instances == result.instances
    if result.confidence is None:
        assert outcome.confidence is None
    else:
        assert np.array_equal(outcome.confidence, result.confidence)


@settings(max_examples=120, deadline=None)
@example(133, 0, (56, 6), 0, 0.0, 1, "native", 0)
@example(7, 12, (131, 90), 0, 0.0, 1, "native", 3)
@given(
    seed=st.integers(0, 2**32 - 1),
    peaks=st.sampled_from([0, 1, 3, 12, 60]),
    native=st.tuples(st.integers(1, 150), st.integers(1, 110)),
    minimum=st.sampled_from([0, 40]),
    threshold=st.sampled_from([0.0, 0.45]),
    map_stride=st.sampled_from([1, 2, 4]),
    resolution=st.sampled_from(["native", "network"]),
    order=st.integers(0, 5),
)
def test_maps_and_instances_equal_the_postprocessors(
    seed: int,
    peaks: int,
    native: tuple[int, int],
    minimum: int,
    threshold: float,
    map_stride: int,
    resolution: str,
    order: int,
) -> None:
    raw = random_outputs(seed, peaks, map_stride=map_stride)
    options = FusionOptions(threshold, minimum, resolution, max_centers=(128, 5, 0)[seed % 3], confidence=seed % 2 == 0)
    slot = Slot(kernels.Sizes.of(NETWORK, raw), DRIVING)
    image = color_image(native)
    (answer,) = slot.run([image], raw, options, Order(order, 1, 100 * order))
    check(answer.outcome, expected(image, raw, 0, options, DRIVING))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), blob=st.sampled_from([2, 4, 30]))
def test_components_do_not_depend_on_the_order_of_threads(seed: int, blob: int) -> None:
    """No class has a centre: everything is union-find, blocks side by side, threads pausing at every second atomic."""
    network = (192, 128)
    raw = random_outputs(seed, 0, network=network, blob=blob)
    options = FusionOptions(0.0, 0)
    slot = Slot(kernels.Sizes.of(network, raw), DRIVING)
    image = color_image((200, 150))
    result = expected(image, raw, 0, options, DRIVING, network)
    for order in (Order(), Order(seed % 1000 + 1, 2, 512), Order(seed % 1000 + 2, 4, 64)):
        (answer,) = slot.run([image], raw, options, order, kernels.FUSION)
        check(answer.outcome, result)


@pytest.mark.parametrize("pattern", ["snake", "comb", "checkers", "full"])
def test_components_of_difficult_shapes(pattern: str) -> None:
    """Long ways, many late joins, diagonals only, everything at once."""
    height, width = NETWORK[1], NETWORK[0]
    y, x = np.mgrid[:height, :width]
    shapes = {
        "snake": (y % 2 == 0) | (x == np.where(y % 4 == 1, width - 1, 0)),
        "comb": (x % 2 == 0) | (y == height - 1),
        "checkers": (x + y) % 2 == 0,
        "full": np.ones((height, width), bool),
    }
    semantic = np.where(shapes[pattern], 3, 0).astype(np.uint8)
    raw = one_cell_per_pixel(semantic, np.full_like(semantic, 200))
    options = FusionOptions(0.0, 0)
    slot = Slot(kernels.Sizes.of(NETWORK, raw), DRIVING)
    image = color_image(NETWORK)
    for order in (Order(), Order(1, 2, 300), Order(2, 3, 900)):
        (answer,) = slot.run([image], raw, options, order, kernels.FUSION)
        assert len(answer.outcome.instances) == 1
        check(answer.outcome, expected(image, raw, 0, options, DRIVING))


def test_a_batch_of_different_cameras_and_frames_in_a_row_leave_nothing_behind() -> None:
    """The scratch of one slot serves frames with many segments, then few, without being cleared."""
    cameras = [color_image((150, 100)), color_image((61, 110)), color_image((96, 64))]
    slot = Slot(kernels.Sizes(NETWORK, NETWORK, (24, 16), 3), DRIVING)
    for frame, peaks in enumerate([60, 0, 3, 0, 12]):
        options = FusionOptions(0.0, 20 * frame, confidence=True)
        raw = random_outputs(frame, peaks, batch=len(cameras))
        answers = slot.run(cameras, raw, options, Order(frame, 2, 100))
        for index, (camera, answer) in enumerate(zip(cameras, answers, strict=True)):
            check(answer.outcome, expected(camera, raw, index, options, DRIVING))


def one_cell_per_pixel(semantic: NDArray[np.uint8], confidence: NDArray[np.uint8], heat: float = 0) -> RawOutputs:
    """Maps (H, W) of a network whose cells are as fine as its maps, so that shapes are those of the grid."""
    centers = np.full((1, len(DRIVING.things), *semantic.shape), heat, np.float32)
    return RawOutputs(semantic[None], confidence[None], centers, np.zeros((1, 2, *semantic.shape), np.float32))


def test_more_instances_than_a_class_has_numbers() -> None:
    """1536 lone pixels: 999 get numbers, best first and then in raster order; more than the usual copy brings."""
    semantic = np.zeros((NETWORK[1], NETWORK[0]), np.uint8)
    semantic[1::2, 1::2] = 3
    confidence = np.random.default_rng(0).choice(np.array([50, 100, 200], np.uint8), semantic.shape)
    raw = one_cell_per_pixel(semantic, confidence)
    image = color_image(NETWORK)
    options = FusionOptions(0.0, 0)
    (answer,) = Slot(kernels.Sizes.of(NETWORK, raw), DRIVING).run([image], raw, options)
    assert len(answer.outcome.instances) == 999
    check(answer.outcome, expected(image, raw, 0, options, DRIVING))


def test_too_much_is_reported_and_the_next_frame_is_right() -> None:
    network = (192, 128)
    lone = np.zeros((128, 192), np.uint8)
    lone[1::2, 1::2] = 3  # 6144 components
    full = np.full_like(lone, 255)
    slot = Slot(kernels.Sizes(network, network, network, len(DRIVING.things)), DRIVING)
    image = color_image(network)
    options = FusionOptions(0.0, 0)
    for raw, flags in (
        (one_cell_per_pixel(lone, full), layout.TOO_MANY_SEGMENTS),
        # Of all these peaks max_centers are taken, which leaves most components without one.
        (one_cell_per_pixel(lone, full, heat=0.5), layout.TOO_MANY_CANDIDATES | layout.TOO_MANY_SEGMENTS),
    ):
        (answer,) = slot.run([image], raw, options, Order(3, 2, 50))
        assert answer.outcome.flags == flags
        assert answer.outcome.instances == ()
        few = np.zeros_like(lone)
        few[20:60, 30:90] = 4
        good = one_cell_per_pixel(few, full)
        (answer,) = slot.run([image], good, options)
        check(answer.outcome, expected(image, good, 0, options, DRIVING, network))


def test_offsets_that_are_no_numbers_do_what_they_do_on_the_cpu() -> None:
    raw = random_outputs(11, 12)
    raw.offsets[0, :, ::2] = np.nan
    raw.offsets[0, 0, :, ::3] = np.inf
    options = FusionOptions(0.0, 0)
    image = color_image((120, 80))
    (answer,) = Slot(kernels.Sizes.of(NETWORK, raw), DRIVING).run([image], raw, options)
    with np.errstate(invalid="ignore"):
        check(answer.outcome, expected(image, raw, 0, options, DRIVING))


def crowd(things: int, stuff: int) -> LabelSet:
    """A class of stuff, so many of things, and so many more of stuff: no thing may have id 0."""
    labels = [Label(i, f"thing {i}", True, (i * 3 % 256, 250 - i, 40)) for i in range(1, things + 1)]
    rest = (Label(things + 1 + i, f"stuff {i}", False, (i % 256, 0, 99)) for i in range(stuff))
    return LabelSet((Label(0, "ground", False, (9, 9, 9)), *labels, *rest))


@settings(max_examples=40, deadline=None)
@example(1, (1030, 580), DRIVING, "network")  # borders of more than one pixel to either side
@example(0, (1, 7), DRIVING, "network")  # pixels outside of their instance's box
@given(
    seed=st.integers(0, 2**32 - 1),
    native=st.tuples(st.integers(1, 130), st.integers(1, 90)),
    labels=st.sampled_from([DRIVING, crowd(1, 0), crowd(64, 9), crowd(2, 249), crowd(3, 251)]),
    resolution=st.sampled_from(["native", "network"]),
)
def test_overlay_equals_the_drawn_one_but_for_names(
    seed: int, native: tuple[int, int], labels: LabelSet, resolution: str
) -> None:
    """Also where instances outnumber the codes of a picture: 3 and none are free beside 252 and 255 classes."""
    raw = random_outputs(seed, 20, labels=labels)
    options = FusionOptions(0.0, 0, resolution)
    image = color_image(native, seed)
    (answer,) = Slot(kernels.Sizes.of(NETWORK, raw), labels).run([image], raw, options)
    result = expected(image, raw, 0, options, labels)
    check(answer.outcome, result)
    with mock.patch("drive_seg.overlay._name_instances"):
        drawn = draw_overlay(image.data.reshape(native[1], native[0], 3), result, labels)
    difference = np.abs(answer.overlay.astype(int) - drawn)
    assert difference.max() <= 1  # cv2 rounds otherwise on processors without fused multiply-add
    assert (difference > 0).mean() <= 0.01


def test_records_and_constants_are_those_of_the_source() -> None:
    for struct, dtype in STRUCTS.items():
        offsets = [dtype.fields[name][1] for name in dtype.names]
        assert emulator().fields(struct) == [*offsets, dtype.itemsize], struct
    ours = {**vars(layout), **vars(tables), **vars(launch)}
    for name in CONSTANTS:
        assert emulator().constant(name) == ours[name], name
