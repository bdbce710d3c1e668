"""drive_seg: real-time panoptic segmentation of camera streams.

A frame walks through the package front to back; read it in this order:

    frame, encodings, labels     the vocabulary: Frame, RawOutputs, PanopticResult
    config, model, resources     what the user asked for, and where the network is
    preprocess                   letterbox into the engine's input; Geometry knows the way back
    engines/                     one protocol, one module per backend
    postprocess                  centres + offsets -> instances -> panoptic ids in native pixels
    pipeline                     the three above as submit() and wait()
    worker, telemetry            newest frame first; where every frame and every millisecond went
    ros/ | offline/              the node | video, folders and bags
    network/, sim/               train and export the network | rendered drives with exact truth
"""

from __future__ import annotations

from drive_seg.errors import DriveSegError
from drive_seg.frame import Box, CameraImage, Frame, Instance, PanopticResult, StageTimes
from drive_seg.labels import Label, LabelSet
from drive_seg.pipeline import Pipeline, open_pipeline
from drive_seg.postprocess import FusionOptions

__version__ = "0.1.0"

__all__ = [
    "Box",
    "CameraImage",
    "DriveSegError",
    "Frame",
    "FusionOptions",
    "Instance",
    "Label",
    "LabelSet",
    "PanopticResult",
    "Pipeline",
    "StageTimes",
    "open_pipeline",
]
