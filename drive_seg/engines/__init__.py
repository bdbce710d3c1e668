"""Inference engines behind one protocol; each vendor library is imported in its own module, when it is opened.

An engine owns a few *slots*. A slot holds one batch: the caller writes uint8 RGB pixels into ``slot.input``,
calls ``submit`` and later ``wait``. Between the two the slot belongs to the engine. The arrays that ``wait``
returns are views into the slot and stay valid until its next ``submit``.
"""

from __future__ import annotations

from drive_seg.engines.function import FunctionEngine
from drive_seg.engines.protocol import Engine, EngineInfo, EngineOptions, Slot
from drive_seg.engines.registry import BACKENDS, Availability, availability, open_engine

__all__ = [
    "BACKENDS",
    "Availability",
    "Engine",
    "EngineInfo",
    "EngineOptions",
    "FunctionEngine",
    "Slot",
    "availability",
    "open_engine",
]
