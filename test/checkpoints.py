"""Checkpoints as a training run writes them, without the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from drive_seg.network.panoptic import PanopticNet


def write_checkpoint(
    path: Path, net: PanopticNet, training_data: str = "their images", terms: str = "theirs", unstated: str = ""
) -> Path:
    """Write what others take from a checkpoint. ``unstated``: field of ``network`` that it is too old to know."""
    network = {name: value for name, value in dataclasses.asdict(net.config).items() if name != unstated}
    torch.save(
        {"network": network, "average": net.state_dict(), "training_data": training_data, "license": terms}, path
    )
    return path
