"""The Python API as a program builds on it: what it is given wrongly, how it is used, how long its answers last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from drive_seg import CameraImage, Frame
from drive_seg.errors import MalformedImage
from drive_seg.frame import CompressedImage

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CameraImage("rgb8", 4, 4, 12, np.zeros(96, np.uint8)[::2]), "contiguous"),
        (lambda: CameraImage("rgb8", 4, 4, 12, np.zeros(48, np.uint8)[::-1]), "contiguous"),
        (lambda: CameraImage("rgb8", 4, 4, 12, np.zeros(48, np.float32)), r"uint8 array, got float32 \(48,\)"),
        (lambda: CameraImage("rgb8", 4, 4, 12, bytes(48)), "got bytes; numpy.frombuffer"),
        (lambda: CameraImage("rgb8", 4.0, 4, 12, np.zeros(48, np.uint8)), "width must be a whole number, got 4.0"),
        (lambda: CameraImage("rgb8", 4, "4", 12, np.zeros(48, np.uint8)), "height must be a whole number, got '4'"),
        (lambda: CameraImage(None, 4, 4, 12, np.zeros(48, np.uint8)), "encoding must be one of rgb8.*NoneType"),
        (lambda: CompressedImage(b"\xff\xd8"), "got bytes; numpy.frombuffer"),
        (lambda: Frame(IMAGE), "got ndarray; CameraImage.from_rgb"),
    ],
)
def test_what_is_no_image_is_refused_when_it_is_made(make: Callable[[], Any], message: str):
    with pytest.raises(MalformedImage, match=message):
        make()
