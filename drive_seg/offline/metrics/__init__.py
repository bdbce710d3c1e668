"""Scores as mergeable counts: what one frame adds, what many come to.

Reading order: ``places`` and ``overlaps`` (one pass over the pixels), then what is counted from it, ``semantic``,
``panoptic`` and ``average_precision``; ``dilation`` and ``outlines`` (edges and lane markings within a tolerance),
``lane_lines``, ``temporal``, ``identity`` (objects over time, the only one that needs its frames in order),
``latency``. Every accumulator adds with ``+=``, pickles, and counts in whole numbers: adding in chunks gives the same
figures as adding frame by frame, to the last bit, in any order.
"""

from drive_seg.offline.metrics.average_precision import PrecisionCounts
from drive_seg.offline.metrics.identity import TrackingCounts, Trajectories, encounter
from drive_seg.offline.metrics.lane_lines import LineScore, compare_lines
from drive_seg.offline.metrics.latency import StageSamples
from drive_seg.offline.metrics.outlines import OutlineCounts
from drive_seg.offline.metrics.overlaps import Overlaps, Runs, overlaps
from drive_seg.offline.metrics.panoptic import MatchCounts
from drive_seg.offline.metrics.semantic import Confusion
from drive_seg.offline.metrics.temporal import TemporalCounts

__all__ = [
    "Confusion",
    "LineScore",
    "MatchCounts",
    "OutlineCounts",
    "Overlaps",
    "PrecisionCounts",
    "Runs",
    "StageSamples",
    "TemporalCounts",
    "TrackingCounts",
    "Trajectories",
    "compare_lines",
    "encounter",
    "overlaps",
]
