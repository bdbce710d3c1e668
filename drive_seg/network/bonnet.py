"""The bonnet of the car that carries the camera, laid over the lower edge of a picture.

Most cameras behind a windscreen see it, hardly any labelled set shows it: its highlights look like markings, and what
it reflects like vehicles. Crude, but curved, glossy and of any colour.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.network.samples import Sample


def with_bonnet(sample: Sample, rng: np.random.Generator) -> Sample:
    """The same picture with a bonnet in front: background, and whatever it hides is gone."""
    height, width = sample.codes.shape
    rise = height * rng.uniform(0.04, 0.22)
    column = np.arange(width)
    away = (column - width * rng.uniform(0.3, 0.7)) / (width / 2)
    edge = height - rise * (1 - rng.uniform(0.1, 0.8) * away**2)
    first = max(int(edge.min()), 0)
    covered = np.arange(first, height)[:, None] >= edge
    image, codes, instances = sample.image.copy(), sample.codes.copy(), sample.instances.copy()
    metal = _metal(sample.image, height - first, rng)
    _highlights(metal, edge - first, rng)
    image[first:][covered] = metal[covered]
    codes[first:][covered] = 0
    instances[first:][covered] = 0
    return replace(sample, image=image, codes=codes, instances=instances)


def _metal(image: NDArray[np.uint8], rows: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 (rows, W, 3): paint that mirrors the upper part of the picture, upside down and more or less blurred."""
    height, width = image.shape[:2]
    above = image[: max(int(height * rng.uniform(0.3, 0.7)), 1)]
    mirrored = cv2.resize(above[::-1], (width, rows), interpolation=cv2.INTER_AREA)
    mirrored = cv2.GaussianBlur(mirrored, (0, 0), width * rng.uniform(0.001, 0.01))
    grey = rng.uniform(10, 230)
    paint = np.clip(grey + rng.normal(0, 25 if rng.random() < 0.5 else 3, 3), 0, 255)
    gloss = rng.uniform(0.1, 0.85)
    fade = np.linspace(1.0, rng.uniform(0.5, 1.0), rows)[:, None, None]
    return ((mirrored * gloss + paint * (1 - gloss)) * fade).astype(np.uint8)


def _highlights(metal: NDArray[np.uint8], edge: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Draws, in place, a line along the edge and creases that run down from it."""
    rows, width = metal.shape[:2]
    thick = max(round(width * rng.uniform(0.0015, 0.006)), 1)
    if rng.random() < 0.7:
        along = np.column_stack((np.arange(width), edge + thick)).round().astype(np.int32)
        cv2.polylines(metal, [along], False, _shade(rng), thick, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 4))):
        top, bottom = rng.integers(0, width, 2)
        bottom = int(top + (bottom - top) * 0.2)
        cv2.line(metal, (int(top), int(edge[top])), (bottom, rows), _shade(rng), thick, cv2.LINE_AA)


def _shade(rng: np.random.Generator) -> tuple[int, int, int]:
    """Nearly white, or nearly black."""
    value = int(rng.integers(200, 256) if rng.random() < 0.7 else rng.integers(0, 40))
    return value, value, value
