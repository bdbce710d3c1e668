"""Labelled images in the one form that training takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import ConfigError
from drive_seg.labels import PANOPTIC_DIVISOR, PANOPTIC_UNLABELLED
from drive_seg.network.codes import VOID

UNKNOWN_INSTANCE = 65535
"""Value in ``Sample.instances``: a thing, but nobody says which pixels belong to the same one."""
_IDS = 1 << 16
"""As many as a panoptic map can tell apart."""


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    image: uint8 (H, W, 3) RGB. codes: uint8 (H, W), class ids, keys of ``SETS`` or ``VOID``.
    instances: uint16 (H, W), 0 no thing, 1.. instance, ``UNKNOWN_INSTANCE``.
    classes: uint8 (K + 1,), thing class of instance k at index k; entry 0 is unused.
    """

    image: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    instances: NDArray[np.uint16]
    classes: NDArray[np.uint8]


def read_rgb(path: Path) -> NDArray[np.uint8] | None:
    """The picture in a file, uint8 (H, W, 3) RGB; None where it cannot be read.

    EXIF rotation is not applied, as in inference: truth means the pixels as they are stored.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else np.ascontiguousarray(image[..., ::-1], np.uint8)


class SampleSet(ABC):
    """Labelled images by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...


class InMemory(SampleSet):
    """Decoded once, shared by forked loader processes."""

    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


class RenderedSet(SampleSet):
    """Frames of the simulator, rendered before (see ``render.py``) into ``images.npy`` and ``panoptic.npy``.

    images: uint8 (K, H, W, 3) RGB; panoptic: uint16 (K, H, W). Memory-mapped, so any size is cheap to open.

    Raises:
        ConfigError: the frames are not there, or images and maps are not of one rendering.
    """

    def __init__(self, folder: Path) -> None:
        for name in ("images.npy", "panoptic.npy"):
            if not (folder / name).is_file():
                raise ConfigError(
                    f"rendered frames {folder / name} do not exist; point sim_folder at them, or render them with: "
                    f"python -m drive_seg.network.render {folder}"
                )
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._panoptic = np.load(folder / "panoptic.npy", mmap_mode="r")
        if len(self._images) != len(self._panoptic):
            raise ConfigError(f"{folder} has {len(self._images)} images and {len(self._panoptic)} panoptic maps")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        return sample_of_panoptic(np.asarray(self._images[index]), np.asarray(self._panoptic[index]))


class Taught(SampleSet):
    """A set in which a teacher has decided what the labels left open; ``teach`` writes the decisions, codes.

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


def sample_of_panoptic(image: NDArray[np.uint8], panoptic: NDArray[np.uint16]) -> Sample:
    """A sample with exact instances from a panoptic map, uint16 (H, W) (ids as in ``labels``)."""
    ids = np.flatnonzero(np.bincount(panoptic.ravel(), minlength=_IDS))
    is_thing = (ids >= PANOPTIC_DIVISOR) & (ids != PANOPTIC_UNLABELLED)
    codes, instances = np.zeros(_IDS, np.uint8), np.zeros(_IDS, np.uint16)
    codes[ids] = np.where(ids == PANOPTIC_UNLABELLED, VOID, np.where(is_thing, ids // PANOPTIC_DIVISOR, ids))
    instances[ids] = np.where(is_thing, np.cumsum(is_thing), 0)
    classes = np.concatenate(([0], codes[ids[is_thing]])).astype(np.uint8)
    return Sample(image, codes[panoptic], instances[panoptic], classes)
