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
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drive_seg import Pipeline
from drive_seg.commands.terminal import progress_bar
from drive_seg.engines import FunctionEngine
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.network.adjustment import LogitAdjustment
from drive_seg.network.checkpoint import load_checkpoint
from drive_seg.network.deploy import DEFAULT_SIZE, decide, peaks
from drive_seg.network.panoptic import Normalise, PanopticNet, RawMaps
from drive_seg.network.tool import run
from drive_seg.network.validate import (
    drive_shots,
    folder_camera,
    labelled_folder,
    validate_labelled,
    validate_shots,
)
from drive_seg.network_size import fitted_size

FIRST_SEED = 5_000_000
STEPS = (0.4, 0.2)
"""Logits by which the search changes one value at a time: first the coarse one until nothing improves."""
LEAST = 0.0005
"""An improvement below it is chance."""
_SIZE = (1280, 720)

Score = Callable[[LogitAdjustment], float]


def search(score: Score, steps: Sequence[float] = STEPS, least: float = LEAST) -> tuple[LogitAdjustment, float]:
    """The adjustment that no single step improves, beginning with none, and its score."""
    best = LogitAdjustment()
    value = score(best)
    # Adding the same to all classes changes nothing: the first one stays as it is.
    places = [("classes", label.name) for label in list(DRIVING)[1:]]
    places += [("centers", label.name) for label in DRIVING.things]
    for step in steps:
        better = True
        while better:
            better = False
            for (head, name), change in ((place, change) for place in places for change in (step, -step)):
                logits = dict(getattr(best, head))
                logits[name] = round(logits.get(name, 0.0) + change, 3)
                trial = replace(best, **{head: {name: added for name, added in logits.items() if added}})
                reached = score(trial)
                if reached > value + least:
                    best, value, better = trial, reached, True
    return best, value


class Replay:
    """A network that is shown the same images again and again: its heads answer once, what follows from them changes.

    Args:
        net: in evaluation mode; not changed.
        camera: (width, height) of all images.
        frames: images (RGB) with their truth, kept in memory.
        measure: a figure of ``validate``.
    """

    def __init__(
        self,
        net: PanopticNet,
        camera: tuple[int, int],
        frames: Sequence[tuple[NDArray[np.uint8], NDArray[Any]]],
        measure: Callable[[Pipeline, Any], float],
    ) -> None:
        self._net, self._normalise = net, Normalise()
        self._frames, self._measure = frames, measure
        self._answers: list[RawMaps] = []
        self._asked = 0
        self._classes, self._centers = LogitAdjustment().logits()
        self._pipeline = Pipeline(FunctionEngine(self._answer, fitted_size(camera, DEFAULT_SIZE), slots=1), DRIVING)

    def __call__(self, adjustment: LogitAdjustment) -> float:
        """The figure with these logits added."""
        self._classes, self._centers = adjustment.logits()
        self._asked = 0
        return self._measure(self._pipeline, self._frames)

    def close(self) -> None:
        """End the pipeline."""
        self._pipeline.close()

    @torch.no_grad()
    def _answer(self, images: NDArray[np.uint8]) -> RawOutputs:
        if self._asked == len(self._answers):
            with torch.autocast("cpu", torch.bfloat16):
                self._answers.append(self._net(self._normalise(torch.from_numpy(images))))
        maps = self._answers[self._asked]
        self._asked += 1
        semantic, confidence = decide(maps.semantic.float() + self._classes[:, None, None])
        offsets = maps.offsets.float()
        heat = peaks(torch.sigmoid(maps.centers.float() + self._centers[:, None, None]), offsets)
        return RawOutputs(*(one.numpy() for one in (semantic, confidence, heat, offsets)))


def _miou(pipeline: Pipeline, frames: Any) -> float:
    return float(validate_labelled(pipeline, frames)["iou"]["mean"])


def _pq(pipeline: Pipeline, shots: Any) -> float:
    return float(validate_shots(pipeline, shots)["pq"]["mean"])


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Measure which logits to add to a trained network's.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--folder", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many images of it, in name order")
    parser.add_argument("--drives", type=int, default=100, help="simulator drives, one frame of each")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of the drives")
    arguments = parser.parse_args()
    if arguments.folder is None and not arguments.drives:
        parser.error("nothing to measure on: give --folder, --drives, or both")
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
