"""Tracking of a recording that is evaluated in pieces.

Who is who depends on all frames before, which the worker of a piece has not seen. So it only notes what a tracker is
told and what the truth says (``Witness``: boxes, no pixels), and the notes of all pieces are gone through in order by
one tracker (``Replay``): the figures are those of one pass, to the last digit. It takes a third of a millisecond per
frame; a piece that is a whole recording is gone through by its own worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from drive_seg.frame import PanopticResult
from drive_seg.offline.evaluation import FrameScore
from drive_seg.offline.metrics import TrackingCounts, Trajectories
from drive_seg.offline.metrics.identity import Encounter
from drive_seg.tracking import Sighting, Tracker, TrackingOptions


@dataclass(frozen=True)
class Note:
    """One frame.

    Attributes:
        sighting: what the tracker is told.
        ids: panoptic ids of its instances.
        scored: it has a truth.
        met: how they match the truth; None without one, and where that does not know its objects again.
        objects: identity by panoptic id of the truth.
    """

    sighting: Sighting
    ids: tuple[int, ...]
    scored: bool = False
    met: Encounter | None = None
    objects: Mapping[int, int] = field(default_factory=dict)


class Witness:
    """Notes every frame of a piece: ``look``, then ``add`` where the truth knows its objects again, then ``mark``
    where there is any truth."""

    def __init__(self) -> None:
        self.notes: list[Note] = []

    def look(self, result: PanopticResult) -> None:
        """Note what the pipeline found."""
        ids = tuple(instance.panoptic_id for instance in result.instances)
        self.notes.append(Note(Sighting.of(result), ids))

    def add(self, met: Encounter, objects: Mapping[int, int], tracks: Mapping[int, int]) -> int:
        """See ``Identities.add``; nobody has a track yet, so there are no switches."""
        self.notes[-1] = replace(self.notes[-1], met=met, objects=dict(objects))
        return 0

    def mark(self) -> None:
        """Note that the frame was scored."""
        self.notes[-1] = replace(self.notes[-1], scored=True)


class Replay:
    """Goes through the notes of bag after bag, chunk after chunk."""

    def __init__(self, options: TrackingOptions) -> None:
        self._options = options
        self._bag: str | None = None
        self._done = TrackingCounts()
        self._begin()

    def _begin(self) -> None:
        self._tracker, self._trajectories = Tracker(self._options), Trajectories()

    def go_on(self, bag: str, scores: Sequence[FrameScore], notes: Sequence[Note]) -> list[FrameScore]:
        """The scores of the next chunk with their identity switches."""
        if bag != self._bag:
            self._done += self._trajectories.counts()
            self._bag = bag
            self._begin()
        switches = []
        for note in notes:
            tracks = dict(zip(note.ids, self._tracker.update(note.sighting), strict=True))
            here = 0 if note.met is None else self._trajectories.add(note.met, note.objects, tracks)
            switches += [here] if note.scored else []
        return [replace(score, id_switches=number) for score, number in zip(scores, switches, strict=True)]

    def counts(self) -> TrackingCounts:
        """What all bags come to. To be called once."""
        self._done += self._trajectories.counts()
        return self._done
