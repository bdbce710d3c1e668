"""The accuracy gate: a new engine must say what the fp32 network says, or it is refused with figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.protocol import Engine, Slot
from drive_seg.engines.reference import GATE_FRAMES, Network, Reference
from drive_seg.errors import EngineError
from drive_seg.frame import RawOutputs


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

    def or_worse(self, other: Agreement) -> Agreement:
        """The worse of the two in every figure; NaN is the worst. ``frames`` are those of this one."""
        return Agreement(
            self.frames,
            float(np.minimum(self.labels_equal, other.labels_equal)),
            float(np.maximum(self.confidence, other.confidence)),
            float(np.maximum(self.heat, other.heat)),
            float(np.maximum(self.offsets, other.offsets)),
        )

    def as_dict(self) -> dict[str, Any]:
        """For notes and JSON."""
        return asdict(self)


def compare_engine(engine: Engine, reference: Reference, things: Sequence[int]) -> Agreement:
    """Every frame of the reference alone, then some of them in full batches, in every slot; the worst of it.

    A full batch runs other kernels than a single image, each slot has a context of its own: any may be at fault.
    They are as many as are enough for the first comparison: of fewer, a good engine might miss a mean.

    Raises:
        EngineError: as ``compare``.
    """
    first = engine.slots[0]

    def alone(batch: NDArray[np.uint8]) -> RawOutputs:
        first.input[: len(batch)] = batch
        first.submit(len(batch))
        return first.wait()

    agreement = compare(alone, reference, things)
    batch = len(first.input)
    count = batch * -(-GATE_FRAMES // batch)
    frames = list(islice(cycle(reference.frames), count))
    full = Reference(frames, list(islice(cycle(reference.answers), count)), reference.onnx_sha256)
    for slot in engine.slots:
        agreement = agreement.or_worse(_agreement(_in_full_batches(slot, frames), full, things))
    return agreement


def _in_full_batches(slot: Slot, frames: Sequence[NDArray[np.uint8]]) -> Iterator[RawOutputs]:
    """The maps of each frame, a batch of one that is valid until the next is asked for."""
    batch = len(slot.input)
    for start in range(0, len(frames), batch):
        slot.input[:] = np.stack(frames[start : start + batch])
        slot.submit(batch)
        maps = slot.wait()
        for one in (slice(index, index + 1) for index in range(batch)):
            yield RawOutputs(maps.semantic[one], maps.confidence[one], maps.centers[one], maps.offsets[one])


def compare(engine: Network, reference: Reference, things: Sequence[int]) -> Agreement:
    """Run the engine on every frame of the reference.

    Args:
        things: ids of the thing classes.

    Raises:
        EngineError: it failed, or its maps do not have the shapes of the reference.
    """
    return _agreement((engine(frame[np.newaxis]) for frame in reference.frames), reference, things)


def _agreement(said: Iterable[RawOutputs], reference: Reference, things: Sequence[int]) -> Agreement:
    equal = confidence = 0.0
    heat_sum = heat_count = offset_sum = offset_count = 0.0
    for got, want in zip(said, reference.answers, strict=True):
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
