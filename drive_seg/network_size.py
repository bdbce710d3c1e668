"""The size of a network's input: the model's own, or one of the shape of the camera's images."""

from __future__ import annotations

import argparse

from drive_seg.frame import MAX_SIDE

STEP = 32
"""Sides of a network's input are multiples of its coarsest stride."""
MOST_PIXELS = 1 << 23
"""Of a network's input: 3840x2176 takes 34 times as long as 640x384, and 1.1 GB (bf16) to 3.5 GB (ONNX Runtime)."""
_MOST = 1.25
"""Of the pixels of the network's own size: what a taller camera may cost more."""


def size_of(text: str) -> tuple[int, int]:
    """(width, height) of ``960x544``, as a type of argparse."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"a size is WxH in pixels, as 960x544; got '{text}'")
    return int(width), int(height)


def too_large(width: int, height: int) -> str:
    """Why a network cannot have an input of this size; empty where it can."""
    if max(width, height) <= MAX_SIDE and width * height <= MOST_PIXELS:
        return ""
    return f"{width}x{height} is over the limit of {MOST_PIXELS} pixels (3840x2176), or of {MAX_SIDE} a side"


def fitted_size(native: tuple[int, int], network: tuple[int, int]) -> tuple[int, int]:
    """The network size that takes the shape of a camera instead of letterboxing it.

    As wide as ``network``, and as high as the picture is then, in multiples of 32. A 16:9 camera keeps 640x384; a 4:3
    camera gets 640x480, where the letterbox would have left it 512x384. Pictures so high that this were more than 1.25
    times the pixels of ``network`` get the largest size that is not.

    Args:
        native: (width, height) of the camera's images.
        network: (width, height) that the model was made for, multiples of 32.
    """
    most = _MOST * network[0] * network[1]
    for width in range(network[0], 0, -STEP):
        height = max(1, -(-width * native[1] // (native[0] * STEP))) * STEP
        if width * height <= most:
            return width, height
    return STEP, max(1, int(most) // STEP**2) * STEP
