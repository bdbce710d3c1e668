"""Reproducible randomness: a generator per (seed, key...), so any part of a drive can be drawn on its own."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

_MASK = (1 << 64) - 1

T = TypeVar("T")


def chance(seed: int, *keys: int) -> np.random.Generator:
    """A generator that depends on nothing but the seed and the keys (integers of any sign)."""
    state = seed & _MASK
    for key in keys:
        # splitmix64: neighbouring keys must give unrelated streams.
        state = (state + 0x9E3779B97F4A7C15 * ((key & _MASK) + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return np.random.Generator(np.random.PCG64(state))


def pick(rng: np.random.Generator, options: tuple[T, ...], weights: tuple[float, ...] | None = None) -> T:
    """One of `options`, by relative `weights` (equal when None)."""
    if weights is None:
        return options[int(rng.integers(len(options)))]
    edges = np.cumsum(np.asarray(weights, dtype=np.float64))
    return options[int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))]
