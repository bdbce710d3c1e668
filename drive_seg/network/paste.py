"""Copy-paste of people and vehicles between pictures (Ghiasi et al., CVPR 2021, arXiv:2012.07177).

Street sets with few people gain from those of sets without streets. A cut-out stands on the ground: the lower its foot
in the picture, the larger it is drawn, as if a camera at the height of a car's mirror looked at the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.network.samples import Sample, SampleSet

_HEIGHTS = {3: 1.5, 4: 1.7, 5: 1.7}
"""Metres, by class."""
_CAMERA_HEIGHT = 1.4
_HORIZON = 0.46
_SMALLEST_SIDE = 40
"""Pixels below which a cut-out is too coarse to be used."""


@dataclass(frozen=True)
class Cutout:
    """A thing without its surroundings: uint8 (h, w, 3) RGB, bool (h, w), its class."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    thing: int


def cut_out(samples: SampleSet) -> list[Cutout]:
    """Every whole, well-resolved thing of a set; what touches the border is cut off and left."""
    found = []
    for number in range(len(samples)):
        sample = samples[number]
        height, width = sample.codes.shape
        for instance in range(1, len(sample.classes)):
            rows, columns = np.nonzero(sample.instances == instance)
            if not len(rows):
                continue
            top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            whole = top > 0 and left > 0 and bottom < height and right < width
            if whole and min(bottom - top, right - left) >= _SMALLEST_SIDE:
                box = slice(top, bottom), slice(left, right)
                mask = sample.instances[box] == instance
                found.append(Cutout(sample.image[box].copy(), mask, int(sample.classes[instance])))
    return found


def paste(sample: Sample, cutouts: list[Cutout], most: int, rng: np.random.Generator) -> Sample:
    """``sample`` with 1 to ``most`` cut-outs in it, far ones first, as instances of their own."""
    image, codes, instances = sample.image.copy(), sample.codes.copy(), sample.instances.copy()
    classes = list(sample.classes)
    height = codes.shape[0]
    feet = sorted(height * rng.uniform(0.54, 0.98, int(rng.integers(1, most + 1))))
    for foot in feet:
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        tall = (foot - _HORIZON * height) * _HEIGHTS[cutout.thing] / _CAMERA_HEIGHT * rng.uniform(0.8, 1.25)
        placed = _place(cutout, tall, foot, codes.shape, rng)
        if placed is None:
            continue
        box, colour, mask = placed
        image[box][mask] = colour[mask]
        codes[box][mask] = cutout.thing
        instances[box][mask] = len(classes)
        classes.append(cutout.thing)
    return replace(sample, image=image, codes=codes, instances=instances, classes=np.array(classes, np.uint8))


def _place(
    cutout: Cutout, tall: float, foot: float, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[slice, slice], NDArray[np.uint8], NDArray[np.bool_]] | None:
    """The visible part of the cut-out, scaled, and where it goes; None where nothing of it would be seen."""
    factor = tall / cutout.mask.shape[0]
    size = max(1, round(cutout.mask.shape[1] * factor)), max(1, round(tall))
    if min(size) < 4:
        return None
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    colour = cv2.resize(cutout.image, size, interpolation=how)
    mask = cv2.resize(cutout.mask.astype(np.uint8), size, interpolation=cv2.INTER_LINEAR) > 0
    if rng.random() < 0.5:
        colour, mask = colour[:, ::-1], mask[:, ::-1]
    top, left = round(foot) - size[1], int(rng.integers(-size[0] // 2, shape[1] - size[0] // 2))
    rows = slice(max(top, 0), min(top + size[1], shape[0]))
    columns = slice(max(left, 0), min(left + size[0], shape[1]))
    part = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
    return (rows, columns), np.asarray(colour[part], np.uint8), np.asarray(mask[part])
