"""The accuracy gate: a new engine must say what the fp32 network says, or it is refused with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.reference import Network, Reference
from drive_seg.errors import EngineError


@dataclass(frozen=True)
class Limits:
    """What is demanded of an engine.

    Attributes:
        labels_equal: smallest share of pixels with the same class.
        confidence: largest mean difference of the confidence, in steps of 1/255.
        heat: largest mean difference of the centre heat where either has a peak, 0..1.
        offsets: largest mean difference of the offsets on thing pixels, in network pixels.
    """

    labels_equal: float
    confidence: float
    heat: float
    offsets: float


LIMITS = {
    "fp32": Limits(labels_equal=0.999, confidence=0.5, heat=0.02, offsets=0.1),
    "fp16": Limits(labels_equal=0.995, confidence=1.0, heat=0.06, offsets=0.5),
    "int8": Limits(labels_equal=0.97, confidence=6.0, heat=0.25, offsets=2.5),
}
"""By precision. A wrongly compiled engine (a swapped channel, a lost layer) misses these by far; rounding does not."""


@dataclass(frozen=True)
class Agreement:
    """Figures of an engine against the reference over ``frames`` frames; see ``Limits`` for their meaning."""

    frames: int
    labels_equal: float
    confidence: float
    heat: float
    offsets: float

    def misses(self, limits: Limits) -> list[str]:
        """What is demanded and not met, in words; empty when all is well."""
        found = []
        if not self.labels_equal >= limits.labels_equal:
            found.append(f"equal labels {self.labels_equal:.4%} < {limits.labels_equal:.2%}")
        for name in ("confidence", "heat", "offsets"):
            value, limit = getattr(self, name), getattr(limits, name)
            if not value <= limit:  # NaN fails too
                found.append(f"mean {name} difference {value:.4g} > {limit:g}")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For notes and JSON."""
        return asdict(self)


def compare(engine: Network, reference: Reference, things: Sequence[int]) -> Agreement:
    """Run the engine on every frame of the reference.

    Args:
        things: ids of the thing classes.

    Raises:
        EngineError: it failed, or its maps do not have the shapes of the reference.
    """
    equal = confidence = 0.0
    heat_sum = heat_count = offset_sum = offset_count = 0.0
    for frame, want in zip(reference.frames, reference.answers, strict=True):
        got = engine(frame[np.newaxis])
        for name in ("semantic", "confidence", "centers", "offsets"):
            ours, theirs = getattr(got, name).shape, getattr(want, name).shape
            if ours != theirs:
                raise EngineError(f"the engine's {name} has shape {ours}, the reference {theirs}")
        equal += float((got.semantic == want.semantic).mean())
        confidence += float(np.abs(got.confidence.astype(np.int16) - want.confidence).mean())
        peaks = (got.centers > 0.1) | (want.centers > 0.1)
        heat_sum += float(np.abs(_smooth(got.centers) - _smooth(want.centers))[peaks].sum())
        heat_count += int(peaks.sum())
        on_thing = _cells(np.isin(want.semantic, list(things)), want.offsets.shape[2:])
        offset_sum += float(np.abs(got.offsets - want.offsets).max(axis=1)[on_thing].sum())
        offset_count += int(on_thing.sum())
        if not np.isfinite(got.offsets).all():
            offset_sum, offset_count = float("nan"), 1
    return Agreement(
        len(reference.frames),
        equal / len(reference.frames),
        confidence / len(reference.frames),
        heat_sum / max(heat_count, 1),
        offset_sum / max(offset_count, 1),
    )


def _smooth(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """The highest heat of each cell's 3 x 3 neighbours: rounding may move a peak by a cell, which is no error."""
    padded = np.pad(heat, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = heat.shape[2:]
    windows = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.asarray(np.max(windows, axis=0), np.float32)


def _cells(mask: NDArray[np.bool_], cells: tuple[int, ...]) -> NDArray[np.bool_]:
    """(N, H, W) pixels -> (N, h, w) the cells that have one."""
    n, height, width = mask.shape
    grid = mask.reshape(n, cells[0], height // cells[0], cells[1], width // cells[1])
    return np.asarray(grid.any(axis=(2, 4)))
