"""Frames of the simulator on disk, so that training does not wait for the renderer.

``python -m drive_seg.network.render OUT --drives 1500 --frames 2`` writes ``OUT/images.npy`` and
``OUT/panoptic.npy``, which ``datasets.RenderedSet`` maps into memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from drive_seg.sim import Simulator

FRAME_GAP = 45
"""Simulator frames between two that are kept of one drive: neighbours would teach the same twice."""


def render(
    folder: Path,
    drives: int,
    frames: int,
    width: int,
    height: int,
    first_seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render ``drives`` drives (seeds ``first_seed``..) of ``frames`` frames each; return the folder.

    images.npy: uint8 (drives * frames, height, width, 3) RGB. panoptic.npy: uint16, the same without the 3.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = drives * frames
    shape = (total, height, width)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (*shape, 3))
    panoptic = np.lib.format.open_memmap(folder / "panoptic.npy", "w+", np.uint16, shape)
    for number in range(total):
        drive, frame = divmod(number, frames)
        if frame == 0:
            simulator = Simulator(first_seed + drive, width, height)
        shot = simulator.frame(frame * FRAME_GAP)
        images[number], panoptic[number] = shot.image, shot.panoptic
        if progress is not None:
            progress(number + 1, total)
    images.flush()
    panoptic.flush()
    return folder


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Render simulator frames for training.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--drives", type=int, default=1500)
    parser.add_argument("--frames", type=int, default=2, help="per drive")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", default="640x384", help="WxH")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done}/{total}" + ("\n" if done == total else ""))

    render(arguments.out, arguments.drives, arguments.frames, width, height, arguments.first_seed, show)


if __name__ == "__main__":
    main()
