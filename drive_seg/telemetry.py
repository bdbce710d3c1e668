"""Our own profiler: a monotonic stopwatch, sliding-window percentiles, and the ledger of every frame's fate."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import StageTimes

STAGES: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(StageTimes))
"""The stages of a frame in the order it passes them."""


class Stopwatch:
    """Consecutive laps on the monotonic clock, in milliseconds."""

    def __init__(self) -> None:
        self._last = time.perf_counter_ns()

    def lap(self) -> float:
        """Milliseconds since construction or the previous lap."""
        now = time.perf_counter_ns()
        elapsed, self._last = now - self._last, now
        return elapsed / 1e6


@dataclass(frozen=True)
class Percentiles:
    """Order statistics in milliseconds: each is a value that was observed (nearest rank), none is interpolated."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Percentiles | None:
        """Nearest-rank percentiles of a 1-D array; None when it is empty."""
        if not values.size:
            return None
        ordered = np.sort(values)
        ranks = [max(0, int(np.ceil(q * ordered.size)) - 1) for q in (0.50, 0.95, 0.99)]
        p50, p95, p99 = (float(ordered[rank]) for rank in ranks)
        return cls(p50, p95, p99, float(ordered[-1]))

    def as_dict(self) -> dict[str, float]:
        """To the microsecond."""
        return {name: round(value, 3) for name, value in vars(self).items()}


class Window:
    """The last ``seconds`` of a quantity, in a ring of ``capacity`` values: bounded memory at any rate."""

    def __init__(
        self, seconds: float = 10.0, capacity: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._times = np.full(capacity, -np.inf)
        self._values = np.zeros(capacity)
        self._next = 0

    def add(self, value: float) -> None:
        """Append one observation, made now."""
        self._times[self._next] = self._clock()
        self._values[self._next] = value
        self._next = (self._next + 1) % self._times.size

    def values(self) -> NDArray[np.float64]:
        """The observations younger than the window, oldest-first order not guaranteed."""
        fresh: NDArray[np.float64] = self._values[self._times > self._clock() - self._seconds]
        return fresh

    def percentiles(self) -> Percentiles | None:
        """Percentiles of the window; None when it is empty."""
        return Percentiles.of(self.values())


class LatencyLog:
    """Every stage of every frame: a sliding window for diagnostics or, with ``seconds=inf``, a whole run."""

    def __init__(self, seconds: float = 10.0, capacity: int = 4096) -> None:
        self._windows = {stage: Window(seconds, capacity) for stage in STAGES}
        self._lock = threading.Lock()

    def add(self, times: StageTimes) -> None:
        """Record the stages that happened."""
        with self._lock:
            for stage, window in self._windows.items():
                value = getattr(times, stage)
                if value is not None:
                    window.add(value)

    def percentiles(self) -> dict[str, Percentiles]:
        """By stage, only those with observations, in stage order."""
        with self._lock:
            found = {stage: window.percentiles() for stage, window in self._windows.items()}
        return {stage: value for stage, value in found.items() if value is not None}


@dataclass(frozen=True)
class FrameCounts:
    """A snapshot of one camera's ledger: received = published + dropped + failed + in_flight, at every instant."""

    received: int
    published: int
    dropped: Mapping[str, int]
    failed: int

    def __add__(self, other: FrameCounts) -> FrameCounts:
        """Of both together."""
        dropped = Counter(self.dropped) + Counter(other.dropped)
        received, published = self.received + other.received, self.published + other.published
        return FrameCounts(received, published, dict(dropped), self.failed + other.failed)

    @property
    def total_dropped(self) -> int:
        """Dropped frames over all reasons."""
        return sum(self.dropped.values())

    @property
    def in_flight(self) -> int:
        """Frames in the slot or in the pipeline right now; 0 once it is drained."""
        return self.received - self.published - self.total_dropped - self.failed


class FrameLedger:
    """Counts the fate of every frame of one camera. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._published = 0
        self._failed = 0
        self._dropped: Counter[str] = Counter()

    def receive(self) -> None:
        """A frame came in."""
        with self._lock:
            self._received += 1

    def publish(self) -> None:
        """Its result went out."""
        with self._lock:
            self._published += 1

    def drop(self, reason: str) -> None:
        """It was given up on purpose: ``superseded``, ``stale``, ``malformed``, ``inactive``."""
        with self._lock:
            self._dropped[reason] += 1

    def fail(self) -> None:
        """It was lost to an error of ours or of the engine."""
        with self._lock:
            self._failed += 1

    def counts(self) -> FrameCounts:
        """A consistent snapshot."""
        with self._lock:
            return FrameCounts(self._received, self._published, dict(self._dropped), self._failed)
