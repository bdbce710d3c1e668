"""Checkpoints as a training run writes them, without the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from drive_seg.network.panoptic import PanopticNet


def write_checkpoint(path: Path, net: PanopticNet, training_data: str = "their images", terms: str = "theirs") -> Path:
    """Write what others take from a checkpoint."""
    network = dataclasses.asdict(net.config)
    torch.save(
        {"network": network, "average": net.state_dict(), "training_data": training_data, "license": terms}, path
    )
    return path
