"""The letterbox kernel on the CPU against the Preprocessor: any encoding, size and row step, on x86 every bit."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import cv2
import numpy as np
import pytest
from cuda_on_cpu import Order
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_slot import Slot, no_outputs
from numpy.typing import NDArray

from drive_seg.encodings import ENCODINGS
from drive_seg.engines import kernels
from drive_seg.frame import CameraImage
from drive_seg.labels import DRIVING
from drive_seg.postprocess import FusionOptions
from drive_seg.preprocess import Preprocessor

ON_X86 = platform.machine() in ("x86_64", "AMD64")


def camera_image(
    encoding: str, width: int, height: int, padding: int, seed: int, big_endian: bool = False
) -> CameraImage:
    """Random bytes, padding included; a third of the rows are white or black, where rounding and clipping show."""
    layout = ENCODINGS[encoding]
    width = max(width, layout.even_width, layout.least_side)
    height = max(height, layout.even_height, layout.least_side)
    width, height = width - width % layout.even_width, height - height % layout.even_height
    step = width * layout.bytes_per_pixel + padding
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (layout.rows(height), step), dtype=np.uint8)
    data[::3] = rng.choice(np.array([0, 255], np.uint8), data[::3].shape)
    return CameraImage(encoding, width, height, step, data.reshape(-1), big_endian)


def letterboxed(images: list[CameraImage], network: tuple[int, int], seed: int = 0) -> list[NDArray[np.uint8]]:
    sizes = kernels.Sizes(network, network, (1, 1), 1)
    slot = Slot(sizes, DRIVING)
    raw = no_outputs(len(images), sizes)
    return [answer.input for answer in slot.run(images, raw, FusionOptions(), Order(seed, 2), (kernels.LETTERBOX,))]


def expected(image: CameraImage, network: tuple[int, int]) -> NDArray[np.uint8]:
    out = np.full((network[1], network[0], 3), 77, np.uint8)
    Preprocessor(network)(image, out)
    return out


def check_input(found: NDArray[np.uint8], image: CameraImage, network: tuple[int, int]) -> None:
    """``found`` is what the Preprocessor makes of ``image``; its every bit on x86, whose OpenCV the kernels copy."""
    wanted = expected(image, network)
    if ON_X86:
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found.astype(np.int16), wanted, rtol=0, atol=2)


@settings(max_examples=150, deadline=None)
@example("rgb8", (640, 360), 0, (320, 192), 1)  # halved once, the usual case
@example("nv12", (1920, 1080), 64, (640, 384), 2)  # halved once, then interpolated
@example("bayer_gbrg8", (964, 606), 0, (240, 160), 3)  # halved, then means of parts of pixels
@example("bgra8", (963, 603), 5, (320, 224), 4)  # 3 x 3 means of an odd size
@example("uyvy", (30, 500), 3, (96, 64), 5)
@example("mono16", (2050, 1152), 0, (64, 36), 6)  # halved four times
@given(
    encoding=st.sampled_from(sorted(ENCODINGS)),
    native=st.tuples(st.integers(1, 420), st.integers(1, 300)),
    padding=st.sampled_from([0, 0, 1, 7, 64]),
    network=st.sampled_from([(96, 64), (64, 96), (128, 32), (33, 21), (160, 96)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_network_input_equals_the_preprocessors(
    encoding: str, native: tuple[int, int], padding: int, network: tuple[int, int], seed: int
) -> None:
    image = camera_image(encoding, *native, padding, seed, big_endian=seed % 2 == 1)
    check_input(letterboxed([image], network)[0], image, network)


def test_cameras_of_one_batch_may_differ_in_size_and_encoding() -> None:
    images = [
        camera_image("rgb8", 320, 180, 0, 1),
        camera_image("yuyv", 200, 333, 12, 2),
        camera_image("bayer_rggb8", 640, 480, 0, 3),
        camera_image("nv21", 64, 48, 0, 4),
    ]
    for image, found in zip(images, letterboxed(images, (160, 96), seed=5), strict=True):
        check_input(found, image, (160, 96))


def test_an_image_32_times_the_networks_size_is_refused() -> None:
    with pytest.raises(ValueError, match="halve an image 4 times"):
        letterboxed([camera_image("mono8", 1024, 1024, 0, 0)], (32, 32))


@pytest.mark.skipif("DRIVE_SEG_DATA" not in os.environ, reason="DRIVE_SEG_DATA names no folder with real images")
@pytest.mark.parametrize("network", [(640, 384), (960, 544)])
def test_real_images(network: tuple[int, int]) -> None:
    files = sorted(path for path in Path(os.environ["DRIVE_SEG_DATA"]).rglob("*.jpg") if path.is_file())
    pictures = [cv2.imread(str(path)) for path in files[:: max(1, len(files) // 6)]]
    images = [CameraImage.from_bgr(np.asarray(picture, np.uint8)) for picture in pictures if picture is not None]
    assert images, "no readable .jpg under DRIVE_SEG_DATA"
    for image in images:
        check_input(letterboxed([image], network)[0], image, network)
