"""Identities that last: which instance of this frame is which of the frames before.

Tracks are boxes whose four edges move with constant velocity (a Kalman filter in units of the object's size, driven by
the stamps of the frames), so that what comes nearer may grow. Instances are given to tracks of their own class, the
best sum of similarities first, in the passes of ``_associate``: certain ones before uncertain ones as in ByteTrack
(Zhang et al., ECCV 2022), then what is half hidden, then what comes back from behind something, within boxes that are
widened as in C-BIoU (Yang et al., WACV 2023). A similarity counts by the logarithm of the frames that the track was
seen in: where an object is seen in two parts for a while, it goes on under its own number. The boxes are those of
cores: with boxes that reach to the last stray pixel identities switch a sixth to a half more often. Boxes
alone: the IoU of masks on a grid of 4 pixels gave .001 of IDF1, and would cost a pass over the pixels.

A track is *tentative* until it was seen in ``CONFIRMED_HITS`` frames, *confirmed* from then on, and *lost* while it is
not seen: a confirmed one for ``TrackingOptions.max_age_s``, a tentative one for ``TENTATIVE_AGE_S``. Then it is
forgotten, and its number is never given again. Every instance has a track, new ones at once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drive_seg.frame import PanopticResult
from drive_seg.ranges import check_number

CONFIRMED_HITS = 3
"""Frames in which a track must have been seen before it survives being lost."""
TENTATIVE_AGE_S = 0.2
"""How long a track may be unseen before that; one that the last frame showed is always asked."""
MAX_TRACKS = 512
"""Most tracks of a camera that are kept while unseen; those lost longest go first."""

_CERTAIN_SCORE = 0.35
_CLEAR_IOU, _LEAST_IOU = 0.5, 0.1
_LEAST_SHARE, _SHARE_AGE_S = 0.7, 0.5
_MARGIN, _MARGIN_PER_S, _MOST_MARGIN = 0.1, 0.4, 0.5
_LEAST_WIDENED_IOU = 0.02

# Of the filter, in sizes of the object: how well an edge is measured, how fast objects are at first (sizes/s), and how
# their speed wanders ((sizes/s)^2 per s).
_MEASURED = 0.07**2
_FIRST_SPEED = 2.0**2
_WANDER = 0.5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrackingOptions:
    """How instances are followed.

    Attributes:
        max_age_s: a confirmed track that was not seen for longer is forgotten; a longer gap between two frames
            forgets all.

    Raises:
        ConfigError: it is no number of seconds.
    """

    max_age_s: float = 2.0

    def __post_init__(self) -> None:
        check_number("max_age_s", self.max_age_s, 0)


@dataclass(frozen=True)
class Sighting:
    """What the tracker is told about one frame.

    Attributes:
        stamp_ns: acquisition time.
        size: (width, height) of the camera image.
        boxes: float64 (N, 4), first column, first row, last column + 1, last row + 1, camera pixels; of cores, which
            jump less, where there are some.
        classes: int64 (N,) class ids.
        scores: float64 (N,) 0..1.
    """

    stamp_ns: int
    size: tuple[int, int]
    boxes: Floats
    classes: NDArray[np.int64]
    scores: Floats

    @classmethod
    def of(cls, result: PanopticResult) -> Sighting:
        """The instances of a result, in their order."""
        boxes = (instance.core or instance.box for instance in result.instances)
        rows = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
        return cls(
            result.frame.stamp_ns,
            result.native_size,
            np.array(rows, np.float64).reshape(-1, 4),
            np.array([instance.class_id for instance in result.instances], np.int64),
            np.array([instance.score for instance in result.instances], np.float64),
        )


@dataclass
class _Tracks:
    """T tracks, a row each.

    Attributes:
        edges, speeds: float64 (T, 4) as the boxes of a ``Sighting``, pixels and pixels/s.
        spread: float64 (T, 3) variance of an edge, its covariance with its speed, variance of the speed; in sizes.
        classes, numbers, hits, seen_ns: int64 (T,) class, identity, frames seen in, when last.
    """

    edges: Floats
    speeds: Floats
    spread: Floats
    classes: NDArray[np.int64]
    numbers: NDArray[np.int64]
    hits: NDArray[np.int64]
    seen_ns: NDArray[np.int64]

    @classmethod
    def born(cls, edges: Floats, classes: NDArray[np.int64], first: int, stamp_ns: int) -> _Tracks:
        count = classes.size
        spread = np.tile(np.array([_MEASURED, 0.0, _FIRST_SPEED]), (count, 1))
        numbers = np.arange(first, first + count, dtype=np.int64)
        hits, seen = np.ones(count, np.int64), np.full(count, stamp_ns, np.int64)
        return cls(edges, np.zeros((count, 4)), spread, classes, numbers, hits, seen)

    def __len__(self) -> int:
        return self.numbers.size

    def where(self, kept: NDArray[np.bool_]) -> _Tracks:
        return self if kept.all() else _Tracks(*(column[kept] for column in vars(self).values()))

    def __add__(self, other: _Tracks) -> _Tracks:
        columns = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Tracks(*(np.concatenate(pair) for pair in columns)) if len(other) else self

    def predict(self, seconds: float) -> None:
        """Move on in time."""
        self.edges = self.edges + self.speeds * seconds
        for low, high in ((0, 2), (1, 3)):  # edges that would pass each other stop a pixel apart
            middle = (self.edges[:, low] + self.edges[:, high]) / 2
            np.minimum(self.edges[:, low], middle - 0.5, out=self.edges[:, low])
            np.maximum(self.edges[:, high], middle + 0.5, out=self.edges[:, high])
        edge, both, speed = self.spread.T
        self.spread = np.stack(
            (
                edge + seconds * (2 * both + seconds * speed) + _WANDER * seconds**3 / 3,
                both + seconds * speed + _WANDER * seconds**2 / 2,
                speed + _WANDER * seconds,
            ),
            axis=1,
        )

    def correct(self, rows: NDArray[np.intp], boxes: Floats, stamp_ns: int) -> None:
        """Take the boxes that ``rows`` were seen in."""
        edge, both, speed = self.spread[rows].T
        gain, speed_gain = edge / (edge + _MEASURED), both / (edge + _MEASURED)
        off = boxes - self.edges[rows]
        self.edges[rows] += gain[:, None] * off
        self.speeds[rows] += speed_gain[:, None] * off
        self.spread[rows] = np.stack(((1 - gain) * edge, (1 - gain) * both, speed - speed_gain * both), axis=1)
        self.hits[rows] += 1
        self.seen_ns[rows] = stamp_ns


@functools.cache
def _assignment() -> Callable[..., tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """3 us for 20 objects, but half a second of importing: only for those who track, and before their first frame."""
    from scipy.optimize import linear_sum_assignment

    solve: Callable[..., tuple[NDArray[np.intp], NDArray[np.intp]]] = linear_sum_assignment
    return solve


class Tracker:
    """The identities of one camera. Equal sightings in equal order give equal numbers.

    It begins anew, with numbers that were not used before, where time runs backwards (a bag that loops), where two
    frames are further apart than ``max_age_s``, and where the image changes its size.

    Args:
        first: the first number it gives.
    """

    def __init__(self, options: TrackingOptions = TrackingOptions(), first: int = 1) -> None:
        self._solve = _assignment()
        self.options = options
        self._next = first
        self._last: tuple[int, tuple[int, int]] | None = None
        self._tracks = self._none()

    @property
    def known(self) -> int:
        """How many tracks there are, seen and lost."""
        return len(self._tracks)

    @property
    def next(self) -> int:
        """The number that the next new object gets."""
        return self._next

    @staticmethod
    def _none() -> _Tracks:
        return _Tracks.born(np.zeros((0, 4)), np.zeros(0, np.int64), 1, 0)

    def update(self, sighting: Sighting) -> list[int]:
        """The identity of every instance of the next frame, 1.."""
        tracks = self._tracks = self._advance(sighting)
        given = np.full(sighting.classes.size, -1, np.intp)
        if len(tracks) and given.size:
            self._associate(tracks, sighting, given)
        seen = np.flatnonzero(given >= 0)
        tracks.correct(given[seen], sighting.boxes[seen], sighting.stamp_ns)
        new = given < 0
        given[new] = len(tracks) + np.arange(np.count_nonzero(new))
        born = _Tracks.born(sighting.boxes[new], sighting.classes[new], self._next, sighting.stamp_ns)
        self._next += len(born)
        tracks = tracks + born
        numbers: list[int] = tracks.numbers[given].tolist()
        self._tracks = _newest(tracks, given)
        return numbers

    def _advance(self, sighting: Sighting) -> _Tracks:
        """The tracks that are left at this frame, where they should be by now."""
        before, self._last = self._last, (sighting.stamp_ns, sighting.size)
        if before is None:
            return self._tracks
        gap = sighting.stamp_ns - before[0]
        longest = round(self.options.max_age_s * 1e9)
        if not 0 <= gap <= longest or sighting.size != before[1]:
            return self._none()
        unseen = sighting.stamp_ns - self._tracks.seen_ns
        limit = np.where(self._tracks.hits >= CONFIRMED_HITS, longest, min(longest, round(TENTATIVE_AGE_S * 1e9)))
        tracks = self._tracks.where((unseen <= limit) | (unseen == gap))
        tracks.predict(gap / 1e9)
        return tracks

    def _associate(self, tracks: _Tracks, sighting: Sighting, given: NDArray[np.intp]) -> None:
        """Write the row of its track to every instance that has one."""
        boxes = sighting.boxes
        free = np.ones(len(tracks), np.bool_)
        same = tracks.classes[:, None] == sighting.classes
        experience = np.log1p(tracks.hits)[:, None]

        def assign(allowed: NDArray[np.bool_], similarity: Floats) -> None:
            r, c = np.flatnonzero(free), np.flatnonzero(given < 0)
            here = np.ix_(r, c)
            table = np.where(allowed[here] & same[here], similarity[here] * experience[r], 0.0)
            if not table.any():
                return
            row, column = self._solve(table, maximize=True)
            fits = table[row, column] > 0
            given[c[column[fits]]] = r[row[fits]]
            free[r[row[fits]]] = False

        unseen = sighting.stamp_ns - tracks.seen_ns
        certain = sighting.scores >= _CERTAIN_SCORE
        shared = _shared(tracks.edges, boxes)
        areas, others = _areas(tracks.edges)[:, None], _areas(boxes)
        iou = shared / (areas + others - shared)
        # What has long been followed without doubt comes first: a part that breaks off for one frame must not take
        # its place, however well the two of them would make use of two tracks.
        followed = (tracks.hits >= CONFIRMED_HITS) & (unseen == unseen.min())
        assign((iou >= _CLEAR_IOU) & followed[:, None] & certain, iou)
        assign((iou >= _LEAST_IOU) & certain, iou)
        assign(iou >= _LEAST_IOU, iou)
        # Leaving the image, or going behind something: suddenly a part of what it was.
        recent = unseen <= _SHARE_AGE_S * 1e9
        assign((shared >= _LEAST_SHARE * np.minimum(areas, others)) & recent[:, None], iou)
        # Back from behind something: the longer it was away, the less is known of where it should be.
        margin = np.minimum(_MARGIN + _MARGIN_PER_S * unseen / 1e9, _MOST_MARGIN)
        wide, wide_boxes = _widened(tracks.edges, margin[:, None]), _widened(boxes, _MARGIN)
        shared = _shared(wide, wide_boxes)
        iou = shared / (_areas(wide)[:, None] + _areas(wide_boxes) - shared)
        assign(iou >= _LEAST_WIDENED_IOU, iou)


class Tracking:
    """A tracker for every camera; gives results their tracks.

    Args:
        numbers: the next by camera, kept up to date. A tracking that takes the place of another goes on with them, and
            batches that are in flight meanwhile still get theirs of the former one.
    """

    def __init__(self, options: TrackingOptions, numbers: dict[str, int]) -> None:
        self.options = options
        self._trackers: dict[str, Tracker] = {}
        self._next = numbers
        _assignment()

    def __call__(self, result: PanopticResult) -> PanopticResult:
        """The result with a ``track`` in every instance. Frames of a camera come in their order."""
        camera = result.frame.camera
        if camera not in self._trackers:
            self._trackers[camera] = Tracker(self.options, self._next.get(camera, 1))
        tracker = self._trackers[camera]
        numbers = tracker.update(Sighting.of(result))
        self._next[camera] = tracker.next
        instances = zip(result.instances, numbers, strict=True)
        tracked = tuple(dataclasses.replace(instance, track=number) for instance, number in instances)
        return dataclasses.replace(result, instances=tracked)


def _newest(tracks: _Tracks, shown: NDArray[np.intp]) -> _Tracks:
    """The tracks without those lost longest, where they are too many; those that the newest frame showed all stay."""
    if len(tracks) <= MAX_TRACKS:
        return tracks
    seen = tracks.seen_ns.copy()
    seen[shown] = np.iinfo(np.int64).max  # stamps may stand still: they alone do not tell what it showed
    kept = np.zeros(len(tracks), np.bool_)
    kept[np.argsort(-seen, kind="stable")[: max(MAX_TRACKS, shown.size)]] = True
    return tracks.where(kept)


def _areas(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def _shared(boxes: Floats, others: Floats) -> Floats:
    """float64 (T, N): pixels that two boxes share."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    sides = np.maximum(high - low, 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _widened(boxes: Floats, margin: Floats | float) -> Floats:
    """The boxes with a margin all round, a part of their sides."""
    added = margin * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate((boxes[:, :2] - added, boxes[:, 2:] + added), axis=1)
