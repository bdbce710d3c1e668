"""The pipelines of a configuration: the one that a node starts with, and better ones that it changes over to."""

from __future__ import annotations

from collections.abc import Callable, Collection

from drive_seg.config import Config
from drive_seg.engines import BACKENDS, EngineOptions, availability
from drive_seg.model import Model, open_model
from drive_seg.pipeline import Pipeline, open_pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.stages import Allocator
from drive_seg.tracking import TrackingOptions
from drive_seg.upgrade import Better, Step

Size = tuple[int, int]

Opener = Callable[[Config, Allocator], Pipeline]
"""Opens the pipeline of a configuration; called on the worker's thread."""
Improver = Callable[[Config, Pipeline, Allocator, Collection[Size]], "Better | None"]
"""What is better than the pipeline that serves cameras of these image sizes (as far as they are known); None where
that is the best."""


def open_configured(config: Config, allocate: Allocator) -> Pipeline:
    """The pipeline that ``config`` describes, with room for one frame of every camera in a batch."""
    return _open(config, _sized(config, ()), config.backend, allocate)


def improve(config: Config, serving: Pipeline, allocate: Allocator, cameras: Collection[Size]) -> Better | None:
    """TensorRT where ``auto`` could have it but its engine has to be built first, which takes minutes; and an input of
    the shape of the cameras' images, once they are known, where ``network_size`` is ``auto``.
    """
    info = serving.engine.info
    if info.backend not in BACKENDS:
        return None
    model = _sized(config, cameras)
    size = (model.width, model.height)
    on_gpu = info.backend == "tensorrt"
    may_build = config.backend == "auto" and not on_gpu and model.decoder is None
    build = may_build and availability(config.gpu_id)[0].available
    if not build and size == serving.network_size:
        return None

    def make(step: Step, cancelled: Callable[[], bool]) -> Pipeline:
        if not build and not on_gpu:
            return _open(config, model, info.backend, allocate)
        from drive_seg.engines.planned import plan_for

        plan_for(model, engine_options(config), step, cancelled)
        return _open(config, model, "tensorrt", allocate)

    what = "building the tensorrt engine" if build else f"an engine of {size[0]}x{size[1]}, the cameras' shape"
    return Better(what, make)


def _sized(config: Config, cameras: Collection[Size]) -> Model:
    """The model with an input for all of ``cameras``; with its own where they want different ones."""
    model = open_model(config.model)
    wanted = {(sized.width, sized.height): sized for sized in (model.sized(config.network_size, c) for c in cameras)}
    return next(iter(wanted.values())) if len(wanted) == 1 else model.sized(config.network_size, None)


def _open(config: Config, model: Model, backend: str, allocate: Allocator) -> Pipeline:
    return open_pipeline(
        model, backend, options=fusion_options(config), allocate=allocate, engine_options=engine_options(config)
    )


def engine_options(config: Config) -> EngineOptions:
    """How ``config`` wants its engine."""
    return EngineOptions(
        precision=config.precision,
        max_batch=len(config.cameras),
        gpu_id=config.gpu_id,
        cache_dir=config.cache_path,
    )


def fusion_options(config: Config, confidence: bool = False, lanes: bool = False) -> FusionOptions:
    """The thresholds of ``config``, and what is wanted beside the maps."""
    return FusionOptions(
        score_threshold=config.score_threshold,
        min_instance_area=config.min_instance_area,
        output_resolution=config.output_resolution,
        confidence=confidence,
        lanes=lanes,
    )


def tracking_options(config: Config) -> TrackingOptions | None:
    """How ``config`` follows instances, if at all."""
    return TrackingOptions(config.track_max_age_s) if config.tracking else None
