"""What a checkpoint of ``drive_seg train`` says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from drive_seg.errors import ModelError
from drive_seg.network.panoptic import NetworkConfig
from drive_seg.network.terms import Terms


@dataclass(frozen=True)
class Checkpoint:
    """What others take from a checkpoint. ``average``: the averaged weights by their names, on the CPU."""

    network: NetworkConfig
    average: dict[str, Tensor]
    terms: Terms


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: it is not one of ours.
    """
    state = read_state(path)
    if not {"network", "average", "training_data", "license"} <= set(state):
        raise ModelError(f"{path} is not a checkpoint of drive_seg train: it has {sorted(map(str, state))}")
    return Checkpoint(network_of(state), dict(state["average"]), Terms(state["training_data"], state["license"]))


def read_state(path: Path) -> dict[str, Any]:
    """What the file holds, on the CPU; raises ModelError where it is no dictionary that torch has saved."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler stumbles over: KeyError, EOFError ...
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        if reason.startswith("UnpicklingError"):  # torch's advice, in colour, is to run what the file says
            reason = "it is damaged, or holds more than weights, and nothing else is read"
        raise ModelError(f"cannot read the checkpoint {path}: {reason}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path} is not a checkpoint of drive_seg train: it has a {type(state).__name__}")
    return state


def network_of(state: Mapping[str, Any]) -> NetworkConfig:
    """The network whose weights a checkpoint's ``state`` holds."""
    return NetworkConfig(**state["network"])


def how_to_have(wanted: NetworkConfig, own: NetworkConfig) -> str:
    """What to set in a training configuration whose network is ``own`` to have ``wanted``, for messages."""
    default = dataclasses.asdict(NetworkConfig())
    now = dataclasses.asdict(own)
    fields = {
        name: value
        for name, value in dataclasses.asdict(wanted).items()
        if value != now[name] or value != default[name]
    }
    return f"set network: {yaml.safe_dump(fields, default_flow_style=True, sort_keys=False, width=1000).strip()}"
