"""drive_seg: real-time panoptic segmentation of camera streams.

A frame walks through the package front to back; read it in this order:

    frame, encodings, labels     the vocabulary: Frame, RawOutputs, PanopticResult
    config, model, resources     what the user asked for, and where the network is
    preprocess                   letterbox into the engine's input; Geometry knows the way back
    engines/                     one protocol, one module per backend
    postprocess, lanes           centres + offsets -> instances -> panoptic ids in native pixels; lane boundaries
    tracking                     which instance is which of the frames before
    pipeline, turns              the above as submit() and wait(), one thread after the other
    worker, telemetry            newest frame first; where every frame and every millisecond went
    ros/ | offline/              the node | video, folders and bags
    network/, sim/               train and export the network | rendered drives with exact truth
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drive_seg.errors import DriveSegError
    from drive_seg.frame import Box, CameraImage, Frame, Instance, Lane, PanopticResult, StageTimes
    from drive_seg.labels import Label, LabelSet
    from drive_seg.pipeline import Pipeline, open_pipeline
    from drive_seg.postprocess import FusionOptions
    from drive_seg.tracking import TrackingOptions

__version__ = "0.1.0"

_HOMES = {
    "errors": ("DriveSegError",),
    "frame": ("Box", "CameraImage", "Frame", "Instance", "Lane", "PanopticResult", "StageTimes"),
    "labels": ("Label", "LabelSet"),
    "pipeline": ("Pipeline", "open_pipeline"),
    "postprocess": ("FusionOptions",),
    "tracking": ("TrackingOptions",),
}
_HOME_OF = {name: f"drive_seg.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "Box",
    "CameraImage",
    "DriveSegError",
    "Frame",
    "FusionOptions",
    "Instance",
    "Label",
    "LabelSet",
    "Lane",
    "PanopticResult",
    "Pipeline",
    "StageTimes",
    "TrackingOptions",
    "open_pipeline",
]

if not TYPE_CHECKING:  # type checkers would take any name for granted

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used (PEP 562): ``drive_seg --help`` needs none of them."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(importlib.import_module(_HOME_OF[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
