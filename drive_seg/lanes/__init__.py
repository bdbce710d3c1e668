"""Lane boundaries as curves, from the marking pixels of the network's map.

strokes    what is painted: runs of pixels, and the pieces they form
road       what all boundaries of a road share: horizon, vanishing column, curvature
finder     the boundaries: ``LaneFinder``
table      the boundaries as records of a point cloud, and back
"""

from __future__ import annotations

from drive_seg.lanes.finder import LaneFinder

__all__ = ["LaneFinder"]
