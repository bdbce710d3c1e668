"""Fog, rain and night laid over a picture. Crude, but what a network must not mind is much the same."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def under_weather(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) RGB -> the same under one of fog, rain or night."""
    return (_fog, _rain, _night)[int(rng.integers(3))](image, rng)


def _fog(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Contrast fades towards a pale grey, most at the horizon, where the way through the air is longest."""
    height = image.shape[0]
    rows = np.abs(np.arange(height) / height - rng.uniform(0.35, 0.55))
    left = 1 - rng.uniform(0.3, 0.75) * np.exp(-rows * rng.uniform(2, 6))
    grey = rng.uniform(150, 220)
    faded = image * left[:, None, None].astype(np.float32) + (grey * (1 - left))[:, None, None].astype(np.float32)
    return faded.astype(np.uint8)


def _rain(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Bright streaks, all in nearly one direction."""
    height, width = image.shape[:2]
    streaks = np.zeros((height, width), np.uint8)
    slant = rng.uniform(-0.4, 0.4)
    for x, y, long in zip(
        rng.integers(0, width, count := int(rng.integers(80, 300))),
        rng.integers(0, height, count),
        rng.integers(6, 24, count),
        strict=True,
    ):
        cv2.line(streaks, (int(x), int(y)), (int(x + slant * long), int(y + long)), 255, 1, cv2.LINE_AA)
    bright = cv2.cvtColor(streaks, cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, 1.0, bright, rng.uniform(0.15, 0.4), 0.0), np.uint8)


def _night(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Dark, bluish, lit from the lower middle as by headlights."""
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]
    away = ((x / width - 0.5) / 0.6) ** 2 + ((y / height - 0.85) / 0.45) ** 2
    lit = rng.uniform(0.12, 0.35) + rng.uniform(0.2, 0.6) * np.exp(-away)
    tint = np.array([0.9, 0.95, 1.1], np.float32)
    return np.clip(image * (lit[..., None].astype(np.float32) * tint), 0, 255).astype(np.uint8)
