"""Durations by stage, kept within bounds and merged."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from drive_seg.frame import StageTimes
from drive_seg.telemetry import STAGES, Percentiles

_MOST = 1 << 18


@dataclass
class StageSamples:
    """Milliseconds of every frame by stage; beyond 2**18 frames every second is given up, as often as needed."""

    samples: dict[str, array[float]] = field(default_factory=dict)
    highest: dict[str, float] = field(default_factory=dict)

    def add(self, times: StageTimes) -> None:
        """Record the stages that happened."""
        for stage in STAGES:
            value = getattr(times, stage)
            if value is not None:
                self._extend(stage, array("f", [value]), value)

    def _extend(self, stage: str, values: array[float], highest: float) -> None:
        kept = self.samples.setdefault(stage, array("f"))
        kept.extend(values)
        if len(kept) > _MOST:
            self.samples[stage] = kept[::2]
        self.highest[stage] = max(self.highest.get(stage, highest), highest)

    def __iadd__(self, other: StageSamples) -> StageSamples:
        for stage, values in other.samples.items():
            self._extend(stage, values, other.highest[stage])
        return self

    def percentiles(self) -> dict[str, Percentiles]:
        """By stage, in stage order."""
        found = {}
        for stage in STAGES:
            if stage in self.samples:
                ranked = Percentiles.of(np.array(self.samples[stage], np.float64))
                if ranked is not None:
                    found[stage] = Percentiles(
                        ranked.p50, ranked.p95, ranked.p99, self.highest[stage], len(self.samples[stage])
                    )
        return found
