"""The worst frames of an evaluation as small pictures: truth, prediction, and where the two disagree.

What enters the list is made small at once, so that what is kept does not grow with the recording, and drawn when it is
asked for: many enter, few stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import DriveSegError
from drive_seg.labels import LabelSet
from drive_seg.offline.label_map import NUMBER_BITS
from drive_seg.offline.metrics.overlaps import VOID
from drive_seg.overlay import shade

if TYPE_CHECKING:
    from drive_seg.offline.evaluate import Scored

PICTURE_WIDTH = 640
"""Width of a picture in pixels; narrower images keep theirs."""

_TINT = 0.55
_NO_IMAGE = 32
"""Grey that stands in for the camera's image where there is none."""

_WRONG = (255, 100, 40)
"""An orange that is brighter than the dimmed image, for those who do not see red."""

_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 82, cv2.IMWRITE_JPEG_OPTIMIZE, 1)


@dataclass(frozen=True)
class FramePicture:
    """One frame for people to look at.

    Attributes:
        name: of the frame, as in ``frames.jsonl``.
        score: what it was chosen for, 0..1.
        measure: what the score is: ``PQ``, or ``mIoU`` where objects are not told apart.
        truth, prediction, errors: JPEG files; ``errors`` shows the wrong pixels in orange on the grey image.
        wrong: share of the labelled pixels whose class is wrong, 0..1.
        size: (width, height) of the pictures.
    """

    name: str
    score: float
    measure: str
    truth: bytes = field(repr=False)
    prediction: bytes = field(repr=False)
    errors: bytes = field(repr=False)
    wrong: float
    size: tuple[int, int]


class WorstFrames:
    """Keeps the ``keep`` frames of the lowest score. Mergeable: ``a += b`` is the worst of both.

    ``see`` is an observer of an evaluation.
    """

    def __init__(self, keep: int = 8) -> None:
        if keep < 0:
            raise ValueError(f"keep must be >= 0, got {keep}")
        self._keep = keep
        self._kept: list[FramePicture | _Sketch] = []

    @property
    def frames(self) -> tuple[FramePicture, ...]:
        """Worst first."""
        drawn = tuple(kept.draw() if isinstance(kept, _Sketch) else kept for kept in self._kept)
        self._kept = list(drawn)
        return drawn

    def __getstate__(self) -> dict[str, object]:
        """Pictures travel, as JPEG."""
        return {"_keep": self._keep, "_kept": list(self.frames)}

    def see(self, scored: Scored) -> None:
        """Keep the frame if it is among the worst: by PQ, or by mIoU where truth or prediction has no instances."""
        known, truth, prediction = scored.label_map, scored.truth.map, scored.prediction.map
        segments = known.instances and truth.dtype == prediction.dtype == np.uint16
        score, measure = (scored.score.pq, "PQ") if segments else (scored.score.miou, "mIoU")
        name = scored.score.frame
        if math.isnan(score) or not self._wants(score, name):
            return
        self._insert(_Sketch.of(name, score, measure, *scored.maps(), scored.image, known.labels))

    def rename(self, name: Callable[[str], str]) -> None:
        """Give every frame another name, in the same order."""
        self._kept = [replace(picture, name=name(picture.name)) for picture in self._kept]

    def __iadd__(self, other: WorstFrames) -> WorstFrames:
        for picture in other._kept:
            self._insert(picture)
        return self

    def _wants(self, score: float, name: str) -> bool:
        return len(self._kept) < self._keep or (self._keep > 0 and (score, name) < _rank(self._kept[-1]))

    def _insert(self, picture: FramePicture | _Sketch) -> None:
        self._kept.append(picture)
        self._kept.sort(key=_rank)
        del self._kept[self._keep :]


@dataclass(frozen=True)
class _Sketch:
    """What a ``FramePicture`` is drawn from, in its size.

    Attributes:
        canvas: uint8 (h, w, 3) the image, or grey where there is none.
        tint: how much of a class's colour is laid over it.
        expected, found: int32 (h, w) segments, as ``scored_ids`` has them.
        wrong_pixels: float32 (h, w) share of wrong pixels under each, 0..1.
    """

    name: str
    score: float
    measure: str
    wrong: float
    canvas: NDArray[np.uint8]
    tint: float
    expected: NDArray[np.int32]
    found: NDArray[np.int32]
    wrong_pixels: NDArray[np.float32]
    labels: LabelSet

    @classmethod
    def of(
        cls,
        name: str,
        score: float,
        measure: str,
        expected: NDArray[np.int32],
        found: NDArray[np.int32],
        image: NDArray[np.uint8] | None,
        labels: LabelSet,
    ) -> _Sketch:
        """Of a frame in its own size.

        Args:
            expected, found: int32 (H, W) segments of truth and prediction, in the classes of ``labels``.
            image: uint8 (H, W, 3) RGB, or None where only the maps are known.
        """
        counted = expected != VOID
        wrong = counted & (expected >> NUMBER_BITS != found >> NUMBER_BITS)
        share = float(wrong.sum() / max(1, counted.sum()))
        height, width = expected.shape
        size = (min(width, PICTURE_WIDTH), max(1, round(height * min(1.0, PICTURE_WIDTH / width))))
        if image is None:
            canvas, tint = np.full((size[1], size[0], 3), _NO_IMAGE, np.uint8), 0.9
        else:
            canvas, tint = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), _TINT
        wrong_pixels = cv2.resize(wrong.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        small = _shrink(expected, size), _shrink(found, size)
        return cls(name, score, measure, share, canvas, tint, *small, np.asarray(wrong_pixels, np.float32), labels)

    def draw(self) -> FramePicture:
        """The pictures."""
        height, width = self.expected.shape
        return FramePicture(
            self.name,
            self.score,
            self.measure,
            truth=_jpeg(_paint(self.canvas, self.expected, self.labels, self.tint)),
            prediction=_jpeg(_paint(self.canvas, self.found, self.labels, self.tint)),
            errors=_jpeg(_paint_errors(self.canvas, self.wrong_pixels, self.expected == VOID)),
            wrong=self.wrong,
            size=(width, height),
        )


def _rank(kept: FramePicture | _Sketch) -> tuple[float, str]:
    """Worst first, equal scores by name."""
    return kept.score, kept.name


def _shrink(ids: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    return cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST).astype(np.int32, copy=False)


def _paint(canvas: NDArray[np.uint8], ids: NDArray[np.int32], labels: LabelSet, tint: float) -> NDArray[np.uint8]:
    """Classes tinted, instances in shades of their class with their borders drawn; unlabelled pixels dark."""
    values, where = np.unique(ids, return_inverse=True)
    colors = np.array([_color(int(value), labels) for value in values], np.float32)
    shares = np.array([_share(int(value), labels, tint) for value in values], np.float32)
    where = where.reshape(ids.shape)
    share = shares[where][..., None]
    painted = canvas * (1 - share) + colors[where] * share
    edge = _borders(ids)
    painted[edge] = colors[where[edge]] * 0.5 + 127.5
    return painted.astype(np.uint8)


def _color(value: int, labels: LabelSet) -> tuple[int, int, int]:
    if value == VOID:
        return (0, 0, 0)
    color, number = labels[value >> NUMBER_BITS].color, _number(value)
    return shade(color, number) if number else color


def _share(value: int, labels: LabelSet, tint: float) -> float:
    """How much of the class's colour is laid over the image."""
    if value == VOID:
        return 0.75
    named_background = not _number(value) and labels[value >> NUMBER_BITS].name == "background"
    return 0.0 if named_background and tint == _TINT else tint


def _number(value: int) -> int:
    return value & ((1 << NUMBER_BITS) - 1)


def _borders(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels of things that touch another segment, bool (H, W)."""
    edge = np.zeros(ids.shape, np.bool_)
    across, down = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    edge &= (ids & ((1 << NUMBER_BITS) - 1) > 0) & (ids != VOID)
    return edge


def _paint_errors(
    canvas: NDArray[np.uint8], wrong: NDArray[np.float32], unlabelled: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Wrong pixels orange on the dimmed grey image, by the share of them under each pixel of the picture."""
    grey = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) * np.float32(0.45)
    grey[unlabelled] *= 0.4
    share = np.minimum(1.0, wrong * 1.25)[..., None] * np.float32(0.9)
    painted: NDArray[np.float32] = grey * (1 - share) + np.array(_WRONG, np.float32) * share
    return painted.astype(np.uint8)


def _jpeg(rgb: NDArray[np.uint8]) -> bytes:
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), _QUALITY)
    if not ok:
        raise DriveSegError(f"cannot encode a picture of {rgb.shape[1]}x{rgb.shape[0]} as JPEG")
    return data.tobytes()
