"""How good a network is while it trains: the figures of the sidecar, on frames that it does not learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from drive_seg import Pipeline
from drive_seg.engines import FunctionEngine
from drive_seg.errors import ConfigError
from drive_seg.frame import RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.network.deploy import DEFAULT_SIZE, DeployedNet
from drive_seg.network.panoptic import PanopticNet
from drive_seg.network.validate import (
    HELD_OUT_SEED,
    folder_camera,
    labelled_folder,
    validate_folder,
    validate_simulator,
)
from drive_seg.network_size import STEP, fitted_size
from drive_seg.ranges import check_number

_SIZE = (1280, 720)


@dataclass(frozen=True)
class HeldOut:
    """What to validate on.

    folder: below the data root, with images/ and labels/; empty for none. skip: so many of its images, in name order,
    are left out, because something learns from them. drives: simulator drives, one frame of each.
    every: steps between two validations, 0 for none. network: the network's (width, height) for cameras of its shape.
    """

    folder: str = ""
    skip: int = 0
    drives: int = 0
    every: int = 0
    network: tuple[int, int] = DEFAULT_SIZE

    def __post_init__(self) -> None:
        for name in ("skip", "drives", "every"):
            check_number(f"held_out.{name}", getattr(self, name), 0, whole=True)
        if min(self.network) < 1 or any(side % STEP for side in self.network):
            raise ConfigError(f"held_out.network must be multiples of {STEP}, got {self.network}")
        if self.every and not (self.folder or self.drives):
            raise ConfigError(f"held_out.every is {self.every} without anything to validate on: set folder or drives")


def check(held_out: HeldOut, data_root: Path) -> None:
    """Read the first image that is validated on, so that a wrong folder is found before the first step is learnt.

    Raises:
        SourceError: there is none, or it has no label.
    """
    if held_out.every and held_out.folder:
        next(labelled_folder(data_root / held_out.folder, held_out.skip))


def score(net: PanopticNet, held_out: HeldOut, data_root: Path) -> dict[str, float]:
    """Mean IoU on the folder (``miou``), PQ on the drives (``pq``), and their mean (``score``), all 0..1.

    Measured through the pipeline, so that it is what a user gets: letterbox, fusion, native pixels.
    """
    figures: dict[str, float] = {}
    if held_out.folder:
        folder = data_root / held_out.folder
        with _pipeline(net, folder_camera(folder), held_out.network) as pipeline:
            figures["miou"] = validate_folder(pipeline, folder, held_out.skip)["iou"]["mean"]
    if held_out.drives:
        seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + held_out.drives)
        with _pipeline(net, _SIZE, held_out.network) as pipeline:
            figures["pq"] = validate_simulator(pipeline, seeds, *_SIZE)["pq"]["mean"]
    return {"score": float(np.mean(list(figures.values()))), **figures}


def _pipeline(net: PanopticNet, camera: tuple[int, int], size: tuple[int, int]) -> Pipeline:
    """The network as the engine of a pipeline, in the precision that it trains in."""
    deployed = DeployedNet(net).eval()
    device = next(net.parameters()).device
    deployed.normalise.to(device)

    @torch.no_grad()
    def infer(images: NDArray[np.uint8]) -> RawOutputs:
        with torch.autocast(device.type, torch.bfloat16):
            maps = deployed(torch.from_numpy(images).to(device))
        return RawOutputs(*(np.ascontiguousarray(one.cpu().numpy()) for one in maps))

    return Pipeline(FunctionEngine(infer, fitted_size(camera, size)), DRIVING)
