"""``lanes.jsonl``: the lane boundaries of a folder's frames, one line each.

``{"frame": stem, "stamp_ns": ..., "lanes": [{"order", "confidence", "support", "dashed", "points": [[x, y], ...]}]}``,
pixels of the camera image; the fields are those of ``drive_seg.frame.Lane``, and come back as they were.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from drive_seg.errors import DriveSegError, SourceError
from drive_seg.frame import Lane
from drive_seg.lanes.table import near_to_far

LANES_FILE = "lanes.jsonl"


class LaneWriter:
    """Writes the file of a folder; a folder without lanes gets none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LANES_FILE
        self._file: IO[str] | None = None

    def write(self, stem: str, stamp_ns: int, lanes: Sequence[Lane]) -> None:
        """Append one frame; raises DriveSegError where that fails."""
        line = {"frame": stem, "stamp_ns": stamp_ns, "lanes": [_row(lane) for lane in lanes]}
        try:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise DriveSegError(f"cannot write {self._path}: {error}") from error

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()


class LaneReader:
    """Reads it, in any order: it keeps where each frame's line begins.

    Attributes:
        stamps: acquisition times by frame, nanoseconds, where the lines have them.

    Raises:
        SourceError: a line is not of the form above.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: dict[str, int] = {}
        self.stamps: dict[str, int] = {}
        at = 0
        with path.open("rb") as lines:
            for line in lines:
                row = self._parse(line)
                frame = str(row["frame"])
                self._starts[frame] = at
                at += len(line)
                if isinstance(row.get("stamp_ns"), int):
                    self.stamps[frame] = row["stamp_ns"]

    def find(self, stem: str) -> tuple[Lane, ...] | None:
        """The boundaries of a frame, None where it is not in the file.

        Raises:
            SourceError: its line is not of the form above.
        """
        start = self._starts.get(stem)
        if start is None:
            return None
        with self._path.open("rb") as lines:
            lines.seek(start)
            row = self._parse(lines.readline())
        try:
            return tuple(_lane(lane) for lane in row["lanes"])
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise SourceError(f"{self._path}: the lanes of frame {stem} are not of its form: {error!r}") from error

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
            row["frame"]
        except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
            raise SourceError(f"{self._path} has a line that is no frame's ({error!r}): {line[:60]!r}") from error
        return dict(row)


def open_lanes(folder: Path) -> LaneReader | None:
    """The lanes of a folder; None where it has none."""
    path = folder / LANES_FILE
    return LaneReader(path) if path.is_file() else None


def _row(lane: Lane) -> dict[str, Any]:
    points = [[float(f"{value:.9g}") for value in point] for point in lane.points.tolist()]  # tells every float32
    return {
        "order": lane.order,
        "confidence": lane.confidence,
        "support": lane.support,
        "dashed": lane.dashed,
        "points": points,
    }


def _lane(row: dict[str, Any]) -> Lane:
    points = near_to_far(np.asarray(row["points"], np.float32))
    return Lane(int(row["order"]), points, float(row["confidence"]), int(row["support"]), row["dashed"])
