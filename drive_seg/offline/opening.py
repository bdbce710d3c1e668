"""The pipeline as a recording wants it: the most frames per second, not the soonest answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from drive_seg.engines import EngineOptions
from drive_seg.heap import keep_freed_memory
from drive_seg.lanes import LaneFinder
from drive_seg.model import Model
from drive_seg.pipeline import Pipeline, open_pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.resources import cache_folder
from drive_seg.tracking import TrackingOptions


def open_offline(
    model: str | Path | Model = "default",
    backend: str = "auto",
    precision: str = "auto",
    options: FusionOptions = FusionOptions(),
    latency: bool = False,
    threads: int = 0,
    tracking: TrackingOptions | None = None,
) -> Pipeline:
    """Open a pipeline for ``runner.run``; its results have lane boundaries, where its labels show any.

    A frame on one core takes longer than on all of them but less processor time: several side by side are faster.
    From now on the process keeps the memory that it frees (``heap``).

    Args:
        model, backend, precision, options, tracking: see ``open_pipeline``.
        latency: one frame at a time on all cores, as live.
        threads: 0 is one per core.

    Raises:
        ModelError: the model is missing or damaged.
        EngineError: no backend can run it.
    """
    keep_freed_memory()
    streams, slots = (1, 1) if latency else (0, 2)
    engine = EngineOptions(precision=precision, slots=slots, threads=threads, streams=streams, cache_dir=cache_folder())
    pipeline = open_pipeline(model, backend, options=options, engine_options=engine, tracking=tracking)
    pipeline.options = replace(options, lanes=LaneFinder(pipeline.labels).can_find)
    return pipeline
