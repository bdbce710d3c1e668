"""Training views drawn from several sets by their shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from drive_seg.network.augment import view
from drive_seg.network.datasets import load_set
from drive_seg.network.pack import is_packed, read_packed
from drive_seg.network.paste import cut_out, paste
from drive_seg.network.samples import SampleSet, Taught
from drive_seg.network.targets import make_targets, possible_classes
from drive_seg.network.train_config import TrainConfig

_MOST_PASTED = 3


def open_sets(config: TrainConfig) -> dict[str, SampleSet]:
    """The sets of a configuration by name: packed, taught or as they lie in their folders.

    Raises:
        ConfigError: a data set is missing or unknown.
    """
    return {name: open_set(name, config) for name in config.sets}


def is_rendered(name: str, config: TrainConfig) -> bool:
    """Whether the set is that of the simulator's frames."""
    return name == "sim" and name not in config.folders


def open_set(name: str, config: TrainConfig) -> SampleSet:
    """One of them; raises as ``open_sets``."""
    if is_packed(name, config.data_root):
        return read_packed(name, config.data_root)
    root = config.sim_folder if is_rendered(name, config) else config.data_root
    samples = load_set(name, root, config.folders)
    return Taught(samples, Path(config.taught[name])) if name in config.taught else samples


class Mixture(Dataset[tuple[Any, ...]]):
    """Training view number i, drawn from the sets by their shares; a pure function of (seed, i).

    An item is (image, codes, heat, known, offsets, pixels), the last five as in ``targets.Targets``.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        by_name = open_sets(config)
        self.sets = list(by_name.values())
        shares = np.array(list(config.sets.values()))
        self.shares = shares / shares.sum()
        self.possible = possible_classes(config.network.classes)
        self.cutouts = [one for name in config.paste_from for one in cut_out(by_name[name])]
        self.pasted = [config.pasted if name in config.paste_into and self.cutouts else 0.0 for name in config.sets]

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        cv2.setNumThreads(0)
        rng = np.random.default_rng((self.config.seed, index))
        number = int(rng.choice(len(self.sets), p=self.shares))
        sample = self.sets[number][int(rng.integers(len(self.sets[number])))]
        if rng.random() < self.pasted[number]:
            sample = paste(sample, self.cutouts, _MOST_PASTED, rng)
        sample = view(sample, self.config.augmentation, rng)
        targets = make_targets(sample, self.config.network.things, self.possible)
        return sample.image, targets.codes, targets.heat, targets.known, targets.offsets, targets.pixels
