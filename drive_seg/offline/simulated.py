"""The built-in simulator as a source."""

from __future__ import annotations

import time
from collections.abc import Iterator

from drive_seg.frame import CameraImage, Frame
from drive_seg.offline.sources import Origin, Unreadable
from drive_seg.sim import Simulator


class SimSource:
    """An endless drive of 1280x720 at 30 Hz, the same for the same seed and weather."""

    live = False
    fps = 30.0
    count: int | None = None

    def __init__(self, seed: int = 0, weather: str | None = None, width: int = 1280, height: int = 720) -> None:
        self.name = "sim"
        self._simulator = Simulator(seed=seed, width=width, height=height, fps=self.fps, weather=weather)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        number = 0
        while True:
            drawn = self._simulator.frame(number)
            yield Frame(
                CameraImage.from_rgb(drawn.image),
                stamp_ns=drawn.stamp_ns,
                received_ns=time.monotonic_ns(),
                token=Origin(f"{number:06d}", recorded_ns=drawn.stamp_ns),
            )
            number += 1
