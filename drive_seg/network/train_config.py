"""The training configuration: one frozen tree, read from YAML (``config/train/*.yaml``)."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drive_seg.documents import read_yaml
from drive_seg.errors import ConfigError
from drive_seg.labels import DRIVING
from drive_seg.network.augment import Augmentation
from drive_seg.network.folders import FolderConfig
from drive_seg.network.held_out import HeldOut
from drive_seg.network.losses import LossConfig
from drive_seg.network.panoptic import NetworkConfig
from drive_seg.ranges import check_number


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training run depends on; on a CPU the same one and machine give the same weights.

    out_dir: checkpoint.pt and losses.csv go there; a checkpoint that is there already is resumed.
    Without one the run begins anew, and replaces what else an earlier run left there.
    data_root: folder of the public data sets. sim_folder: frames rendered by ``drive_seg.network.render``.
    folders: your own sets by name, see ``folders.FolderConfig``; their names may be used in ``sets``.
    paste_from, paste_into: sets whose things are cut out, and sets that they are pasted into; ``pasted``: share of
    those images that get some.
    sets: data set name (see ``datasets.load_set``) -> share of the training images, relative to the others.
    steps, batch: optimiser steps and images per step. rate: peak learning rate, reached after ``warmup``
    steps, then a cosine to zero. average: decay of the averaged weights, which are what is exported.
    device: ``cpu``, ``cuda``...; empty takes a GPU where there is one. held_out: what is validated on while training.
    workers: loader processes. threads: torch threads. save_every: steps between checkpoints.
    imagenet: start the ``lite0`` encoder from ImageNet; it then learns at ``encoder_rate`` times the rate, and its stem
    and first ``frozen`` stages not at all (half of the time per step).
    start: what this run begins with: a checkpoint (.pt), its averaged weights, where what it has not (a new head)
    starts fresh; or a finished model, by its name or sidecar. The result states its data and license before its own.
    states_start: training_data tells what ``start`` learnt from, too, so only the license of that is put before.
    taught: set name -> folder of the codes that a teacher has decided for it, see ``teach``.
    training_data, license: what the sidecar of the exported model states.
    """

    out_dir: Path = Path("out/train")
    data_root: Path = Path("data")
    sim_folder: Path = Path("out/sim_frames")
    sets: Mapping[str, float] = field(default_factory=lambda: {"sim": 1.0})
    folders: Mapping[str, FolderConfig] = field(default_factory=dict)
    paste_from: tuple[str, ...] = ()
    paste_into: tuple[str, ...] = ()
    pasted: float = 0.4
    steps: int = 5000
    batch: int = 8
    rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: int = 200
    average: float = 0.998
    seed: int = 1
    device: str = ""
    held_out: HeldOut = field(default_factory=HeldOut)
    workers: int = 1
    threads: int = 2
    save_every: int = 250
    imagenet: bool = True
    encoder_rate: float = 0.15
    frozen: int = 3
    start: str = ""
    states_start: bool = False
    taught: Mapping[str, str] = field(default_factory=dict)
    training_data: str = "not stated"
    license: str = "not stated"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "warmup", "threads", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("rate", "weight_decay", "encoder_rate"):
            check_number(name, getattr(self, name), 0)
        for name in ("average", "pasted"):
            check_number(name, getattr(self, name), 0, 1)
        for name in ("seed", "workers", "frozen"):
            check_number(name, getattr(self, name), 0, whole=True)
        if self.augmentation.width % 32 or self.augmentation.height % 32:
            got = f"{self.augmentation.width}x{self.augmentation.height}"
            raise ConfigError(f"augmentation width and height must be multiples of 32, got {got}")
        if not self.sets or min(self.sets.values()) <= 0:
            raise ConfigError(f"sets must name at least one data set with a share above 0, got {dict(self.sets)}")
        for name, share in self.sets.items():
            check_number(f"sets.{name}", share, 0)
        strangers = sorted({*self.paste_from, *self.paste_into} - set(self.sets))
        if strangers:
            raise ConfigError(f"paste_from and paste_into must be among sets, {', '.join(strangers)} is not")
        things = tuple(label.id for label in DRIVING.things)
        if self.network.classes != len(DRIVING) or self.network.things != things:
            raise ConfigError(
                f"network must have {len(DRIVING)} classes with things {things}, or it cannot be exported; "
                f"got {self.network.classes} with {self.network.things}"
            )
        if len(self.loss.classes) != self.network.classes:
            raise ConfigError(
                f"loss.classes needs a weight per class, {self.network.classes}, got {len(self.loss.classes)}"
            )


def load_train_config(path: Path, **overrides: Any) -> TrainConfig:
    """Read a YAML file of ``TrainConfig`` fields; ``overrides`` (top-level fields) win.

    Raises:
        ConfigError: unreadable file, unknown field, or a value of the wrong type.
    """
    tree = read_yaml(path, "the training configuration") or {}
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{path}: expected a mapping of TrainConfig fields, got {type(tree).__name__}")
    return typing.cast(TrainConfig, _build(TrainConfig, {**tree, **overrides}, str(path)))


def _build(cls: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: expected a mapping of {cls.__name__} fields, got {type(tree).__name__}")
    kinds = typing.get_type_hints(cls)
    unknown = sorted(map(str, set(tree) - set(kinds)))
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; {cls.__name__} has {', '.join(sorted(kinds))}")
    return cls(**{name: _convert(kinds[name], value, f"{where}: {name}") for name, value in tree.items()})


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, where)
    origin = typing.get_origin(kind) or kind
    inner = typing.get_args(kind)
    if origin is Mapping and isinstance(value, Mapping):
        return {str(name): _convert(inner[1], entry, f"{where}.{name}") for name, entry in value.items()}
    wanted: tuple[type, ...] = {tuple: (list, tuple), Path: (str, Path), float: (int, float)}.get(origin, (origin,))
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, wanted):
        raise ConfigError(f"{where} must be {getattr(origin, '__name__', origin)}, got {value!r}")
    if origin is tuple:
        if inner[-1] is not Ellipsis and len(typing.cast("list[Any]", value)) != len(inner):
            raise ConfigError(f"{where} must have {len(inner)} values, got {value!r}")
        return tuple(_convert(inner[0], entry, where) for entry in typing.cast("list[Any]", value))
    return value if origin not in (Path, float, int, str) else origin(value)
