"""The kernels on a real GPU, against the CPU path: what the emulation cannot show. Needs the driver and a compiler."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from cuda_on_gpu import Device, GpuMemory
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_slot import Slot, no_outputs
from test_kernels_fusion import NETWORK, check, color_image, expected, one_cell_per_pixel, random_outputs
from test_kernels_letterbox import camera_image, check_input

from drive_seg.encodings import ENCODINGS
from drive_seg.engines import kernels
from drive_seg.errors import EngineError
from drive_seg.labels import DRIVING
from drive_seg.postprocess import FusionOptions

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> Device:
    try:
        return Device.open()
    except EngineError as error:
        pytest.skip(str(error))


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from(sorted(ENCODINGS)),
    native=st.tuples(st.integers(1, 1300), st.integers(1, 800)),
    padding=st.sampled_from([0, 1, 64]),
    network=st.sampled_from([(96, 64), (65, 43), (640, 384), (960, 544)]),  # none 32 times smaller than an image
    seed=st.integers(0, 2**32 - 1),
)
def test_letterbox(
    device: Device, encoding: str, native: tuple[int, int], padding: int, network: tuple[int, int], seed: int
) -> None:
    image = camera_image(encoding, *native, padding, seed)
    sizes = kernels.Sizes(network, network, (1, 1), 1)
    slot = Slot(sizes, DRIVING, partial(GpuMemory, device), most=1)
    (answer,) = slot.run([image], no_outputs(1, sizes), FusionOptions(), only=(kernels.LETTERBOX,))
    check_input(answer.input, image, network)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    peaks=st.sampled_from([0, 3, 60, 400]),
    native=st.tuples(st.integers(1, 1300), st.integers(1, 800)),
    network=st.sampled_from([NETWORK, (640, 384), (960, 544)]),
    resolution=st.sampled_from(["native", "network"]),
)
def test_fusion(
    device: Device, seed: int, peaks: int, native: tuple[int, int], network: tuple[int, int], resolution: str
) -> None:
    raw = random_outputs(seed, peaks, network=network, blob=(8, 24, 60)[seed % 3])
    options = FusionOptions(0.1 * (seed % 4), 40 * (seed % 2), resolution, confidence=seed % 2 == 0)
    slot = Slot(kernels.Sizes.of(network, raw), DRIVING, partial(GpuMemory, device), most=1)
    image = color_image(native)
    result = expected(image, raw, 0, options, DRIVING, network)
    for _ in range(3):
        (answer,) = slot.run([image], raw, options)
        check(answer.outcome, result)


def test_a_batch_of_four_cameras(device: Device) -> None:
    network = (640, 384)
    cameras = [color_image(size) for size in ((1280, 720), (1920, 1080), (640, 480), (333, 777))]
    slot = Slot(kernels.Sizes(network, network, (160, 96), 3), DRIVING, partial(GpuMemory, device))
    for frame, peaks in enumerate([60, 0, 3, 200, 12]):
        options = FusionOptions(0.0, 20 * frame, confidence=True)
        raw = random_outputs(frame, peaks, batch=4, network=network, blob=20)
        answers = slot.run(cameras, raw, options)
        for index, (camera, answer) in enumerate(zip(cameras, answers, strict=True)):
            check(answer.outcome, expected(camera, raw, index, options, DRIVING, network))
            check_input(answer.input, camera, network)


@pytest.mark.parametrize("pattern", ["snake", "checkers", "random"])
def test_union_find_under_real_concurrency(device: Device, pattern: str) -> None:
    """One component, or thousands, over a grid that fills the GPU; fifty times, since races are rare."""
    network = (960, 544)
    y, x = np.mgrid[: network[1], : network[0]]
    thing = {
        "snake": (y % 2 == 0) | (x == np.where(y % 4 == 1, network[0] - 1, 0)),
        "checkers": (x + y) % 2 == 0,
        "random": np.random.default_rng(0).random(y.shape) < 0.55,
    }[pattern]
    semantic = np.where(thing, 3, 0).astype(np.uint8)
    raw = one_cell_per_pixel(semantic, np.full_like(semantic, 200))
    options = FusionOptions(0.0, 0)
    slot = Slot(kernels.Sizes.of(network, raw), DRIVING, partial(GpuMemory, device), most=1)
    image = color_image(network)
    result = expected(image, raw, 0, options, DRIVING, network)
    for _ in range(50):
        (answer,) = slot.run([image], raw, options, only=kernels.FUSION)
        check(answer.outcome, result)
