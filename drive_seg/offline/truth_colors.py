"""Classes painted in colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import SourceError
from drive_seg.labels import UNLABELLED
from drive_seg.offline.scoring import Truth


class Palette:
    """Turns colours into class ids by a table of all colours (16 MB), since images have a million pixels.

    Args:
        colors: RGB by name, in the order of the class ids.
    """

    def __init__(self, colors: Mapping[str, tuple[int, int, int]]) -> None:
        self._table = np.full(1 << 24, UNLABELLED, np.uint8)
        for number, (red, green, blue) in enumerate(colors.values()):
            self._table[red << 16 | green << 8 | blue] = number

    def decode(self, path: Path, pixels: NDArray[Any]) -> Truth:
        """The truth of a file's pixels, uint8 (H, W, 3 or 4) BGR.

        Raises:
            SourceError: no colour image, or a colour that no class has.
        """
        if pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.shape[2] < 3:
            raise SourceError(f"{path} must be an 8-bit colour PNG, got {pixels.dtype} {pixels.shape}")
        return Truth(self.look_up(str(path), np.ascontiguousarray(pixels[..., 2::-1])))

    def look_up(self, name: str, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (H, W) class ids of colours; ``name`` is for the message of the SourceError."""
        key = rgb[..., 0].astype(np.uint32) << 16 | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 2]
        found: NDArray[np.uint8] = np.take(self._table, key)
        unknown = found == UNLABELLED
        if unknown.any():
            first = tuple(int(value) for value in rgb[unknown][0])
            share = float(unknown.mean())
            raise SourceError(f"{name} has colours of no class, such as RGB {first} ({share:.1%} of the pixels)")
        return found
