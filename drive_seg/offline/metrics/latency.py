"""Durations by stage, kept within bounds and merged."""

from __future__ import annotations

import random
import struct
from array import array
from dataclasses import dataclass, field, replace

import numpy as np

from drive_seg.frame import StageTimes
from drive_seg.telemetry import STAGES, Percentiles

_MOST = 1 << 18
_SPARE = 1 << 15
"""Samples beyond ``_MOST`` that may come before they are drawn again."""
_VALUE = struct.Struct("f")
_BITS = struct.Struct("I")


@dataclass
class StageSamples:
    """Milliseconds of every frame by stage; beyond 2**18 frames, so many of them drawn at random. Adds with ``+=`` and
    pickles; neither the order nor how a recording was cut into pieces matters.

    Every sample draws a number when it comes, and those with the lowest numbers stay: that is a fair draw of all
    frames, and which ones stay does not depend on who came first.

    Attributes:
        keys: by stage, uint64: the number drawn (32 bits) above the milliseconds (float32).
        highest: by stage, of all frames.
    """

    keys: dict[str, array[int]] = field(default_factory=dict)
    highest: dict[str, float] = field(default_factory=dict)

    def add(self, times: StageTimes) -> None:
        """Record the stages that happened."""
        for stage in STAGES:
            value = getattr(times, stage)
            if value is not None:
                bits = _BITS.unpack(_VALUE.pack(value))[0]
                self._extend(stage, array("Q", [random.getrandbits(32) << 32 | bits]), value)

    def _extend(self, stage: str, keys: array[int], highest: float) -> None:
        kept = self.keys.setdefault(stage, array("Q"))
        kept.extend(keys)
        if len(kept) > _MOST + _SPARE:
            self.keys[stage] = _lowest(kept)
        self.highest[stage] = max(self.highest.get(stage, highest), highest)

    def __iadd__(self, other: StageSamples) -> StageSamples:
        for stage, keys in other.keys.items():
            self._extend(stage, keys, other.highest[stage])
        return self

    @property
    def samples(self) -> dict[str, array[float]]:
        """Milliseconds by stage, of at most 2**18 frames."""
        found = {}
        for stage, keys in self.keys.items():
            bits = np.array(_lowest(keys), np.uint64).astype(np.uint32)  # the lower half
            found[stage] = array("f", bits.tobytes())
        return found

    def percentiles(self) -> dict[str, Percentiles]:
        """By stage, in stage order."""
        found, samples = {}, self.samples
        for stage in STAGES:
            if stage in samples:
                ranked = Percentiles.of(np.array(samples[stage], np.float64))
                if ranked is not None:
                    found[stage] = replace(ranked, max=self.highest[stage])
        return found


def _lowest(keys: array[int]) -> array[int]:
    """The ``_MOST`` lowest, in any order; all in theirs where there are no more."""
    if len(keys) <= _MOST:
        return keys
    return array("Q", np.partition(np.frombuffer(keys, np.uint64), _MOST)[:_MOST].tobytes())
