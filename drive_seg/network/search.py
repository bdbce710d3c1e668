"""The search for logits to put on top of a trained network's, and what it asks again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drive_seg import Pipeline
from drive_seg.engines import FunctionEngine
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.network.adjustment import LogitAdjustment
from drive_seg.network.deploy import DEFAULT_SIZE, decide, peaks
from drive_seg.network.panoptic import Normalise, PanopticNet, RawMaps
from drive_seg.network_size import fitted_size

STEPS = (0.4, 0.2)
"""Logits by which the search changes one value at a time: first the coarse one until nothing improves."""
LEAST = 0.0005
"""An improvement below it is chance."""

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
