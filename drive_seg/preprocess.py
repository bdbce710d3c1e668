"""Pre-processing: a camera image in any encoding, letterboxed as RGB straight into the engine's input."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.decode import PIXELWISE, decode_rgb, high_bytes, pixels, pixelwise_rgb
from drive_seg.frame import CameraImage
from drive_seg.letterbox import Geometry

PADDING = 114
"""Grey value around the content: one that pictures have inside, too, and that training pads with. Black bars, which no
view of the training had, cost PQ .003."""


class Preprocessor:
    """Letterboxes camera images to one network size. Keeps its scratch memory: one per thread.

    Args:
        network: (width, height) of the network's input.
    """

    def __init__(self, network: tuple[int, int]) -> None:
        self.network = network
        self._scratch: dict[str, NDArray[np.uint8]] = {}

    def __call__(self, image: CameraImage, out: NDArray[np.uint8]) -> Geometry:
        """Write ``image`` to ``out`` and say where it lies.

        Args:
            image: any accepted encoding; read where it is.
            out: uint8 (H_net, W_net, 3), C-contiguous: one image of the engine's batch. All of it is written.

        Raises:
            ValueError: ``out`` does not fit.
        """
        shape = (self.network[1], self.network[0], 3)
        if out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous uint8 {shape}, got {out.dtype} {out.shape}")
        geometry = Geometry.letterbox((image.width, image.height), self.network)
        left, top = geometry.x0, geometry.y0
        right, bottom = left + geometry.content_width, top + geometry.content_height
        for stripe in (out[:top], out[bottom:], out[top:bottom, :left], out[top:bottom, right:]):
            stripe.fill(PADDING)
        self._write_content(image, out[top:bottom, left:right])
        return geometry

    def _write_content(self, image: CameraImage, content: NDArray[np.uint8]) -> None:
        """Resize before converting where pixels are independent: the big image is then passed over once."""
        if image.encoding == "rgb8":
            self._resize(pixels(image), content)
        elif image.encoding in PIXELWISE or image.encoding == "mono16":
            encoding, source = image.encoding, pixels(image)
            if encoding == "mono16":
                encoding, source = "mono8", high_bytes(image, self._buffer("mono", source.shape[:2]))
            small = self._buffer("small", (*content.shape[:2], *source.shape[2:]))
            self._resize(source, small)
            pixelwise_rgb(small, encoding, content)
        else:
            self._resize(decode_rgb(image, self._buffer("rgb", (image.height, image.width, 3))), content)

    def _resize(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
        """Shrink without aliasing: cv2 averages 2x2 blocks ten times faster than any other area, so halve
        while that is exact, then interpolate the last factor below two."""
        height, width = target.shape[:2]
        halvings = 0
        while source.shape[0] >= 2 * height and source.shape[1] >= 2 * width:
            tall, wide = source.shape[:2]
            if (tall, wide) == (2 * height, 2 * width) or tall % 2 or wide % 2:
                cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_AREA)
                return
            half = self._buffer(f"half {halvings}", (tall // 2, wide // 2, *source.shape[2:]))
            cv2.resize(source, (wide // 2, tall // 2), dst=half, interpolation=cv2.INTER_AREA)
            source = half
            halvings += 1
        cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)

    def _buffer(self, role: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Scratch memory of ``shape``; grows to the largest camera and is then never allocated again."""
        size = int(np.prod(shape))
        memory = self._scratch.get(role)
        if memory is None or memory.size < size:
            memory = self._scratch[role] = np.empty(size, np.uint8)
        return memory[:size].reshape(shape)
