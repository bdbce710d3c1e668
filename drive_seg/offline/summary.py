"""What a run reports: ``summary.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drive_seg import __version__
from drive_seg.engines import EngineInfo
from drive_seg.errors import DriveSegError
from drive_seg.telemetry import FrameCounts, Percentiles

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True)
class Summary:
    """The figures of one run.

    Attributes:
        counts: the fate of every frame; nothing is in flight any more.
        fps: published frames per second of wall-clock time, start-up left out.
        latency: milliseconds by stage; a stage that did not happen is absent.
        model: name of the model.
        versions: of the software that took part, by name.
        in_flight: frames that were in the pipeline at once; latencies are those of frames that share the machine so.
        warnings: of the demo, what to mind about the figures; None of other runs, which say theirs as they go.
    """

    counts: FrameCounts
    fps: float
    latency: Mapping[str, Percentiles]
    backend: str
    precision: str
    model: str
    versions: Mapping[str, str]
    in_flight: int = 1
    warnings: Sequence[str] | None = None

    @classmethod
    def of(
        cls,
        counts: FrameCounts,
        seconds: float,
        latency: Mapping[str, Percentiles],
        engine: EngineInfo,
        model: str,
        in_flight: int,
    ) -> Summary:
        """Of a run that took so many seconds."""
        fps = counts.published / seconds if seconds > 0 else 0.0
        return cls(counts, fps, latency, engine.backend, engine.precision, model, versions(engine), in_flight)

    @property
    def environment(self) -> dict[str, Any]:
        """What made the results."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "model": self.model,
            "in_flight": self.in_flight,
            "versions": dict(self.versions),
        }

    def as_dict(self) -> dict[str, Any]:
        """The content of ``summary.json``."""
        return {
            "frames": {
                "received": self.counts.received,
                "published": self.counts.published,
                "dropped": dict(sorted(self.counts.dropped.items())),
                "failed": self.counts.failed,
            },
            "fps": round(self.fps, 3),
            "latency_ms": {stage: value.as_dict() for stage, value in self.latency.items()},
            **self.environment,
            **({} if self.warnings is None else {"warnings": list(self.warnings)}),
        }

    def write(self, path: Path) -> None:
        """Write ``summary.json``; raises DriveSegError where that fails."""
        try:
            path.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise DriveSegError(f"cannot write {path}: {error}") from error


def versions(engine: EngineInfo | None = None) -> dict[str, str]:
    """Versions of this package, Python, NumPy, OpenCV and the engine's library."""
    found = {
        "drive_seg": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    if engine is not None:
        found[engine.backend] = engine.version
    return found
