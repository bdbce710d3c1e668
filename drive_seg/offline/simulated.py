"""The built-in simulator as a source, alone or with its truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from drive_seg.frame import CameraImage, Frame
from drive_seg.labels import DRIVING
from drive_seg.offline.scoring import Truth
from drive_seg.offline.sources import Unreadable, numbered_frame, origin_of
from drive_seg.sim import Simulator


class SimSource:
    """An endless drive of 1280x720 at 30 Hz, the same for the same seed and weather."""

    live = False
    fps = 30.0
    count: int | None = None

    def __init__(self, seed: int = 0, weather: str | None = None) -> None:
        self.name = "sim"
        self._simulator = Simulator(seed=seed, width=1280, height=720, fps=self.fps, weather=weather)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        number = 0
        while True:
            drawn = self._simulator.frame(number)
            yield numbered_frame(number, CameraImage.from_rgb(drawn.image), drawn.stamp_ns)
            number += 1


class TruthfulSim:
    """The simulator as a source and as the truth of its frames at once."""

    live = False
    fps = 30.0
    instances = True
    tracks = lanes = True
    timed = False  # frames are asked for by the names they were given
    label_map: str | None = None

    def __init__(self, frames: int, seed: int = 0, weather: str | None = None, size: tuple[int, int] = (1280, 720)):
        self.name = "sim"
        self.count: int | None = frames
        self.classes: Mapping[str, int] = {label.name: label.id for label in DRIVING}
        self._simulator = Simulator(seed=seed, width=size[0], height=size[1], fps=self.fps, weather=weather)
        self._truths: dict[str, Truth] = {}

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        for number in range(self.count or 0):
            drawn = self._simulator.frame(number)
            frame = numbered_frame(number, CameraImage.from_rgb(drawn.image), drawn.stamp_ns)
            self._truths[origin_of(frame).stem] = Truth(drawn.panoptic, tracks=drawn.tracks, lanes=drawn.lanes)
            yield frame

    def find(self, stem: str, stamp_ns: int) -> Truth | None:
        """See ``TruthSource.find``; each is handed out once."""
        return self._truths.pop(stem, None)

    def close(self) -> None:
        """Nothing is open."""
