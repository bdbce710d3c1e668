"""Random views of a sample: scale, crop, flip, tilt, light, weather, bonnet, blur and noise, all by one generator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import ConfigError
from drive_seg.network.bonnet import with_bonnet
from drive_seg.network.codes import VOID
from drive_seg.network.samples import Sample
from drive_seg.network.weather import under_weather
from drive_seg.preprocess import PADDING
from drive_seg.ranges import check_number


@dataclass(frozen=True)
class Augmentation:
    """How far views vary.

    width, height: size of the view, multiples of 32. zoom: the image is scaled to 640 pixels of width times a
    factor of this range. stretch: its aspect ratio changes by up to this part. tilt: degrees. The rest are
    probabilities.

    Raises:
        ConfigError: a value is out of range.
    """

    width: int = 512
    height: int = 320
    zoom: tuple[float, float] = (0.75, 1.7)
    stretch: float = 0.12
    tilt: float = 2.0
    blur: float = 0.15
    noise: float = 0.25
    grey: float = 0.05
    weather: float = 0.1
    bonnet: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            check_number(f"augmentation.{name}", getattr(self, name), 1, whole=True)
        for name in ("stretch", "tilt"):
            check_number(f"augmentation.{name}", getattr(self, name), 0)
        for name in ("blur", "noise", "grey", "weather", "bonnet"):
            check_number(f"augmentation.{name}", getattr(self, name), 0, 1)
        if not 0 < self.zoom[0] <= self.zoom[1] < np.inf:
            raise ConfigError(f"augmentation.zoom must be two factors above 0, the smaller first, got {self.zoom}")


def view(sample: Sample, how: Augmentation, rng: np.random.Generator) -> Sample:
    """A random view of ``sample`` of ``how``'s size; beyond the image ``PADDING``, as in a letterbox, and ``VOID``."""
    if how.bonnet and rng.random() < how.bonnet:
        sample = with_bonnet(sample, rng)
    matrix = _placement(sample.image.shape[1], sample.image.shape[0], how, rng)
    size = (how.width, how.height)
    image = cv2.warpAffine(sample.image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(PADDING, PADDING, PADDING))
    codes = cv2.warpAffine(sample.codes, matrix, size, flags=cv2.INTER_NEAREST, borderValue=VOID)
    instances = cv2.warpAffine(sample.instances, matrix, size, flags=cv2.INTER_NEAREST, borderValue=0)
    return replace(
        sample,
        image=_light(image.astype(np.uint8, copy=False), how, rng),
        codes=codes.astype(np.uint8, copy=False),
        instances=instances.astype(np.uint16, copy=False),
    )


def _placement(width: int, height: int, how: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """2x3 matrix from image pixels to view pixels."""
    scale_x = 640.0 / width * np.exp(rng.uniform(*np.log(how.zoom)))
    scale_y = scale_x * np.exp(rng.uniform(-how.stretch, how.stretch))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    angle = np.deg2rad(rng.uniform(-how.tilt, how.tilt))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([flip * scale_x, scale_y])
    # Slack is how far the scaled image may move while it still fills the view (or stays inside, where
    # smaller).
    slack = np.array([width * scale_x - how.width, height * scale_y - how.height])
    # Upwards the picture is house fronts and sky: lower views are drawn a little more often.
    where = np.array([rng.random(), 1.0 - rng.random() ** 0.75]) - 0.5
    # Pixels are addressed by their middles: that of the picture lies half a pixel before half its size.
    middle = np.array([how.width - 1, how.height - 1]) / 2 + where * np.abs(slack)
    shift = middle - linear @ np.array([width - 1, height - 1]) / 2
    return np.column_stack((linear, shift))


def _light(image: NDArray[np.uint8], how: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gamma, contrast, brightness and white balance by one table per channel; saturation, blur, noise."""
    ramp = np.linspace(0.0, 1.0, 256) ** np.exp(rng.uniform(-0.4, 0.4))
    ramp = (ramp - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.15, 0.15)
    table = np.clip(ramp[:, None] * rng.uniform(0.85, 1.15, 3) * 255.0, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(image, table[None]))
    saturation = 0.0 if rng.random() < how.grey else rng.uniform(0.5, 1.4)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    image = np.asarray(cv2.addWeighted(image, saturation, grey, 1.0 - saturation, 0.0))
    if rng.random() < how.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.5)))
    if rng.random() < how.noise:
        grain = rng.integers(0, 256, image.shape, np.uint8).astype(np.float32)
        grain = (grain - 127.5) * (rng.uniform(0.02, 0.16))
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    return under_weather(image, rng) if rng.random() < how.weather else image
