"""What an evaluation says: figures, one record per frame, and the files ``metrics.json`` and ``frames.jsonl``."""

from __future__ import annotations

import json
import math
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, overload

from drive_seg.errors import DriveSegError, SourceError
from drive_seg.offline.metrics.lane_lines import LineScore

SCHEMA = 1
METRICS_FILE, FRAMES_FILE = "metrics.json", "frames.jsonl"


@dataclass(frozen=True)
class ClassScore:
    """One class in one frame: segment matches (``iou_sum`` over the ``tp``), and its pixels."""

    tp: int
    fp: int
    fn: int
    iou_sum: float
    intersection: int
    union: int


@dataclass(frozen=True)
class TolerantScore:
    """Pixels found within a tolerance: ``hit`` of the ``predicted`` near truth, ``found`` of the ``true`` near
    a prediction. Counts add up over frames."""

    hit: int
    predicted: int
    found: int
    true: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0..1; NaN where nothing was there and nothing predicted."""
        if not self.predicted and not self.true:
            return math.nan
        precision = self.hit / self.predicted if self.predicted else 0.0
        recall = self.found / self.true if self.true else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@dataclass(frozen=True)
class FrameScore:
    """One frame: a line of ``frames.jsonl``, and what a bootstrap draws again.

    Attributes:
        frame: the frame's name: image stem, or its number in six digits, or the stamp of a prediction in a bag.
        stamp_ns: acquisition time of the image.
        per_class: by class name; ``tp``, ``fp`` and ``fn`` are 0 where segments are not scored (no instances).
        confusion: pixels, a row per true class, a column per predicted class and a last one for unlabelled.
        boundary: outlines by class name.
        lane: lane markings; None where the truth has none.
        lines: lane boundaries; None where truth or prediction has none.
        changed, static: of the pixels that stayed the same since the previous frame, how many changed their label.
        id_switches: objects that have another track than when they were last found.
    """

    frame: str
    stamp_ns: int
    per_class: Mapping[str, ClassScore]
    confusion: tuple[tuple[int, ...], ...]
    boundary: Mapping[str, TolerantScore]
    lane: TolerantScore | None
    changed: int
    static: int
    id_switches: int = 0
    lines: LineScore | None = None

    @property
    def pq(self) -> float:
        """Mean panoptic quality of the classes in this frame, 0..1; NaN without any."""
        rows = [(c.iou_sum, c.tp + (c.fp + c.fn) / 2) for c in self.per_class.values()]
        return mean(total / weight for total, weight in rows if weight)

    @property
    def miou(self) -> float:
        """Mean IoU of the classes in this frame, 0..1; NaN without any."""
        return mean(c.intersection / c.union for c in self.per_class.values() if c.union)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; ``pq`` and ``miou`` are there for readers, null where they are undefined."""
        return {
            "frame": self.frame,
            "stamp_ns": self.stamp_ns,
            "pq": none_if_nan(self.pq),
            "miou": none_if_nan(self.miou),
            "per_class": {name: vars(score) for name, score in self.per_class.items()},
            "confusion": [list(row) for row in self.confusion],
            "boundary": {name: vars(score) for name, score in self.boundary.items()},
            "lane": None if self.lane is None else vars(self.lane),
            "lines": None if self.lines is None else vars(self.lines),
            "temporal": {"changed": self.changed, "static": self.static, "id_switches": self.id_switches},
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> FrameScore:
        """The inverse of ``to_dict``."""
        return cls(
            row["frame"],
            row["stamp_ns"],
            {name: ClassScore(**score) for name, score in row["per_class"].items()},
            tuple(tuple(line) for line in row["confusion"]),
            {name: TolerantScore(**score) for name, score in row["boundary"].items()},
            None if row["lane"] is None else TolerantScore(**row["lane"]),
            row["temporal"]["changed"],
            row["temporal"]["static"],
            row["temporal"]["id_switches"],
            None if row["lines"] is None else LineScore(**row["lines"]),
        )


class FrameLog(Sequence[FrameScore]):
    """The frames of an evaluation in order, kept in a file: a frame costs eight bytes of memory. The file is closed
    with the last who holds the log, or before by ``close``.

    Args:
        file: opened for reading and writing text, as ``frames.jsonl`` or a temporary one.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        weakref.finalize(self, file.close)
        # A temporary file has a number in the place of a name.
        self._name = file.name if isinstance(file.name, str) else f"a temporary file in {tempfile.gettempdir()}"
        self._starts = array("q")
        file.seek(0)
        while True:
            at = file.tell()
            if not file.readline():
                break
            self._starts.append(at)
        self._end = at
        """Where the next frame begins. To ask the file would write out its buffer every time."""
        self._at_end = True

    def append(self, score: FrameScore) -> None:
        """Add one frame; raises DriveSegError where that fails."""
        line = json.dumps(score.to_dict()) + "\n"  # ASCII: a byte per character
        try:
            if not self._at_end:
                self._file.seek(self._end)
                self._at_end = True
            self._file.write(line)
        except OSError as error:
            raise DriveSegError(f"cannot write {self._name}: {error}") from error
        self._starts.append(self._end)
        self._end += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> FrameScore: ...
    @overload
    def __getitem__(self, index: slice) -> list[FrameScore]: ...
    def __getitem__(self, index: int | slice) -> FrameScore | list[FrameScore]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        self._at_end = False
        self._file.seek(self._starts[index])
        return FrameScore.from_dict(json.loads(self._file.readline()))

    def __iter__(self) -> Iterator[FrameScore]:
        for number in range(len(self)):
            yield self[number]

    def is_in(self, folder: Path) -> bool:
        """Whether its file is the one of a report in ``folder``."""
        name = self._file.name
        return isinstance(name, str) and Path(name).resolve() == (folder / FRAMES_FILE).resolve()

    def flush(self) -> None:
        """See that other readers of the file find every frame; raises DriveSegError where that fails."""
        try:
            self._file.flush()
        except OSError as error:
            raise DriveSegError(f"cannot write {self._name}: {error}") from error

    def close(self) -> None:
        """Close the file; the frames can no longer be read."""
        self._file.close()


@dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        metrics: the figures of ``metrics.json`` (see docs/metrics.md) but for the three below.
        frames: every scored frame, in order.
        latency: milliseconds by stage: p50, p95, p99 and max; empty where nothing was measured.
        environment: versions, machine, backend, model.
        command: what made it, to be typed again.
    """

    metrics: Mapping[str, Any]
    frames: Sequence[FrameScore]
    latency: Mapping[str, Mapping[str, float]]
    environment: Mapping[str, Any]
    command: str

    def to_dict(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return {
            "schema": SCHEMA,
            **self.metrics,
            "latency_ms": {stage: dict(values) for stage, values in self.latency.items()},
            "environment": dict(self.environment),
            "command": self.command,
        }

    def write(self, folder: Path) -> None:
        """Write ``metrics.json``, and ``frames.jsonl`` unless the frames are kept there already.

        Raises:
            DriveSegError: the folder cannot be written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / METRICS_FILE).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
            if not (isinstance(self.frames, FrameLog) and self.frames.is_in(folder)):
                lines = [json.dumps(frame.to_dict()) + "\n" for frame in self.frames]
                (folder / FRAMES_FILE).write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            raise DriveSegError(f"cannot write {folder}: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read ``metrics.json`` (its path, or its folder's), and ``frames.jsonl`` where it lies beside it.

        Raises:
            SourceError: missing, no JSON, or of another schema; the message says which.
        """
        file = path / METRICS_FILE if path.is_dir() else path
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SourceError(f"cannot read {file}: {error}; expected what drive_seg evaluate wrote") from error
        found = document.get("schema") if isinstance(document, dict) else None
        if found != SCHEMA:
            raise SourceError(f"{file} has schema {found}, expected {SCHEMA}; evaluate again with this version")
        beside = file.with_name(FRAMES_FILE)
        frames: Sequence[FrameScore] = FrameLog(beside.open(encoding="utf-8")) if beside.is_file() else ()
        latency, environment = document.pop("latency_ms"), document.pop("environment")
        command = document.pop("command")
        del document["schema"]
        return cls(document, frames, latency, environment, command)


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN: a figure that is undefined is null."""
    return None if math.isnan(value) else value


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN without any."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
