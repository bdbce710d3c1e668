"""A data set in which a teacher has decided what the labels left open; ``teach`` writes the decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from drive_seg.errors import ConfigError
from drive_seg.network.samples import Sample, SampleSet


class Taught(SampleSet):
    """A set whose codes a teacher has written.

    Raises:
        ConfigError: the folder has not one PNG per image.
    """

    def __init__(self, samples: SampleSet, folder: Path) -> None:
        self._samples = samples
        self._files = sorted(folder.glob("*.png"))
        if len(self._files) != len(samples):
            raise ConfigError(
                f"{folder} has {len(self._files)} PNG, the set it was taught for {len(samples)} images; "
                "write it again with: python -m drive_seg.network.teach"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self._samples[index]
        codes = np.asarray(cv2.imread(str(self._files[index]), cv2.IMREAD_UNCHANGED), np.uint8)
        if codes.shape != sample.codes.shape:
            raise ConfigError(f"{self._files[index]} is {codes.shape}, its image {sample.codes.shape} (H, W)")
        return replace(sample, codes=codes)
