"""Frames of the simulator on disk, so that training does not wait for the renderer.

``python -m drive_seg.network.render OUT --drives 1500 --frames 2`` writes ``OUT/images.npy`` and
``OUT/panoptic.npy``, which ``datasets.RenderedSet`` maps into memory. They are there when all frames are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from drive_seg.network.tool import run
from drive_seg.network_size import size_of
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
    workers: int = 1,
) -> Path:
    """Render ``drives`` drives (seeds ``first_seed``..) of ``frames`` frames each; return the folder.

    The frames do not depend on ``workers``, the number of processes.

    images.npy: uint8 (drives * frames, height, width, 3) RGB. panoptic.npy: uint16, the same without the 3.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = drives * frames
    shape = (total, height, width)
    for name, dtype, full in (("images", np.uint8, (*shape, 3)), ("panoptic", np.uint16, shape)):
        np.lib.format.open_memmap(_part(folder, name), "w+", dtype, full).flush()
    jobs = [(folder, drive, frames, first_seed + drive, width, height) for drive in range(drives)]
    done = 0
    with ProcessPoolExecutor(workers, get_context("spawn")) if workers > 1 else nullcontext() as pool:
        for rendered in map(_render_drive, jobs) if pool is None else pool.map(_render_drive, jobs, chunksize=4):
            done += rendered
            if progress is not None:
                progress(done, total)
    (folder / "panoptic.npy").unlink(missing_ok=True)  # whoever stops us here leaves no pair of two renderings
    for name in ("images", "panoptic"):
        _part(folder, name).replace(folder / f"{name}.npy")
    return folder


def _part(folder: Path, name: str) -> Path:
    """Where a file grows: with rows that nobody has drawn yet it would be taken for a finished one."""
    return folder / f"{name}.npy.part"


def _render_drive(job: tuple[Path, int, int, int, int, int]) -> int:
    """One drive into its rows of the files; the number of frames."""
    folder, drive, frames, seed, width, height = job
    images = np.load(_part(folder, "images"), mmap_mode="r+")
    panoptic = np.load(_part(folder, "panoptic"), mmap_mode="r+")
    simulator = Simulator(seed, width, height)
    for frame in range(frames):
        shot = simulator.frame(frame * FRAME_GAP)
        images[drive * frames + frame], panoptic[drive * frames + frame] = shot.image, shot.panoptic
    return frames


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Render simulator frames for training.")
    parser.add_argument("out", type=Path, help="folder of images.npy and panoptic.npy")
    parser.add_argument(
        "--drives", type=int, default=1500, help="simulated drives, each of its own seed (default: %(default)s)"
    )
    parser.add_argument("--frames", type=int, default=2, help="frames of each drive (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first drive (default: %(default)s)")
    parser.add_argument("--size", type=size_of, default="640x384", help="WxH of the frames (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    arguments = parser.parse_args()
    width, height = arguments.size

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done}/{total}" + ("\n" if done == total else ""))
        elif done == total:  # a log would keep all of them
            sys.stderr.write(f"{done}/{total}\n")

    render(
        arguments.out, arguments.drives, arguments.frames, width, height, arguments.first_seed, show, arguments.workers
    )


if __name__ == "__main__":
    run(main)
