"""Which logits to put on top of a trained network's, by measurement.

``python -m drive_seg.network.adjust CHECKPOINT --folder DATA/camvid32/val --skip 50 --drives 100`` tries one class or
kind of center after the other, a little more and a little less, keeps what improves the mean of the folder's mean IoU
and the drives' PQ, and prints the options with which ``drive_seg export`` does the same. The drives are neither those
of training nor those of ``drive_seg.network.validate``.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drive_seg import Pipeline
from drive_seg.commands.terminal import progress_bar
from drive_seg.network.tool import run
from drive_seg.network.validate import (
    drive_shots,
    folder_camera,
    labelled_folder,
    validate_labelled,
    validate_shots,
)

if TYPE_CHECKING:
    from drive_seg.network.adjustment import LogitAdjustment
    from drive_seg.network.search import Replay

FIRST_SEED = 5_000_000
_SIZE = (1280, 720)


def _miou(pipeline: Pipeline, frames: Any) -> float:
    return float(validate_labelled(pipeline, frames)["iou"]["mean"])


def _pq(pipeline: Pipeline, shots: Any) -> float:
    return float(validate_shots(pipeline, shots)["pq"]["mean"])


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Measure which logits to add to a trained network's.")
    parser.add_argument("checkpoint", type=Path, help="file that drive_seg train wrote")
    parser.add_argument("--folder", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many images of it, in name order")
    parser.add_argument(
        "--drives", type=int, default=100, help="simulator drives, one frame of each (default: %(default)s)"
    )
    parser.add_argument(
        "--first-seed", type=int, default=FIRST_SEED, help="seed of the first drive (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.folder is None and not arguments.drives:
        parser.error("nothing to measure on: give --folder, --drives, or both")
    from drive_seg.network.checkpoint import load_checkpoint
    from drive_seg.network.panoptic import PanopticNet
    from drive_seg.network.search import Replay, search

    found = load_checkpoint(arguments.checkpoint)
    net = PanopticNet(found.network).eval()
    net.load_state_dict(found.average)
    with ExitStack() as stack:
        figures: dict[str, Replay] = {}
        if arguments.folder is not None:
            frames = list(labelled_folder(arguments.folder, arguments.skip))
            figures["miou"] = Replay(net, folder_camera(arguments.folder), frames, _miou)
        if arguments.drives:
            seeds = range(arguments.first_seed, arguments.first_seed + arguments.drives)
            figures["pq"] = Replay(net, _SIZE, list(drive_shots(seeds, *_SIZE)), _pq)
        for replay in figures.values():
            stack.callback(replay.close)
        show = stack.enter_context(progress_bar("trials", None))
        tried: list[dict[str, float]] = []

        def score(adjustment: LogitAdjustment) -> float:
            tried.append({name: figure(adjustment) for name, figure in figures.items()})
            show(len(tried))
            return float(np.mean(list(tried[-1].values())))

        best, reached = search(score)
    after = next(one for one in tried if np.mean(list(one.values())) == reached)
    options = [f"--adjust {name}={added:g}" for name, added in best.classes.items()]
    options += [f"--adjust-centers {name}={added:g}" for name, added in best.centers.items()]
    sys.stdout.write(json.dumps({"options": " ".join(options), "before": tried[0], "after": after}) + "\n")


if __name__ == "__main__":
    run(main)
