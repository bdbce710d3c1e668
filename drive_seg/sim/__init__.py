"""The built-in simulator: a drive through a procedural world with exact panoptic truth.

road, traffic and world say what is where; camera projects; order says who hides whom; ground, scenery, mesh
and people paint the picture and, with the same polygons, the truth; weather and effects are the light and the
lens; simulator ties a frame together.
"""

from __future__ import annotations

from .simulator import SimFrame, Simulator
from .weather import WEATHERS

__all__ = ["WEATHERS", "SimFrame", "Simulator"]
