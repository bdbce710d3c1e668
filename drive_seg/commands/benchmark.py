"""``drive_seg benchmark``: what this machine does with a frame, stage by stage."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from drive_seg.commands.options import AsJson, Backend, BackendName, Debug, ModelName, Precision, PrecisionName

if TYPE_CHECKING:
    from drive_seg.frame import CameraImage

EXAMPLES = """[bold]Examples[/bold]

drive_seg benchmark --frames 1000

drive_seg benchmark --backend onnxruntime --json

drive_seg benchmark --frames 10000     [dim]# is the memory flat?[/dim]"""

DIFFERENT_IMAGES = 32


def benchmark(
    source: Annotated[
        str, typer.Option("--source", help="sim (1280x720), a video, images or a bag; its first 32 frames are used.")
    ] = "sim",
    frames: Annotated[int, typer.Option("--frames", min=1, help="Measured frames, after 50 to warm up.")] = 500,
    model: ModelName = "default",
    backend: BackendName = Backend.auto,
    precision: PrecisionName = Precision.auto,
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads of the engine; 0 is all cores.")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure the pipeline stage by stage, beside the bare network in the same run."""
    from pathlib import Path

    from drive_seg.benchmark import ReusedBuffers
    from drive_seg.benchmark import benchmark as measure
    from drive_seg.commands.terminal import latency_table, progress_bar, report
    from drive_seg.engines import EngineOptions
    from drive_seg.pipeline import open_pipeline

    images = _images(source)
    options = EngineOptions(
        precision=precision.value, threads=threads, cache_dir=Path("~/.cache/drive_seg").expanduser()
    )
    with open_pipeline(model, backend.value, allocate=ReusedBuffers(), engine_options=options) as pipeline:
        with progress_bar(f"measuring {pipeline.engine.info.backend}", frames) as progress:
            result = measure(pipeline, images, frames, progress=progress)
        device = pipeline.engine.info.device
    figures = result.as_dict()
    width, height = result.input
    lines = (
        f"{result.backend} {result.precision} on {device}; {width}x{height} -> "
        f"{result.network[0]}x{result.network[1]}, {frames} frames\n"
        f"bare network  p50 {result.bare.p50:.2f} ms   p99 {result.bare.p99:.2f} ms\n"
        f"pipeline      p50 {result.pipeline.p50:.2f} ms   p99 {result.pipeline.p99:.2f} ms   {result.fps:.1f} fps\n"
        f"ratio {result.ratio:.2f} (p50 / p50)"
    )
    if result.rss_growth_mb is not None:
        lines += f"   memory growth {result.rss_growth_mb:+.1f} MiB"
    report(as_json, figures, latency_table(figures["stages_ms"], "pipeline stages, ms"), lines)


def _images(source: str) -> list[CameraImage]:
    """The first images of the source, decoded, all of the first one's size."""
    from drive_seg.commands.terminal import progress_bar
    from drive_seg.errors import SourceError
    from drive_seg.frame import Frame
    from drive_seg.offline.sources import open_source
    from drive_seg.pipeline import decode

    opened = open_source(source)
    total = min(DIFFERENT_IMAGES, opened.count or DIFFERENT_IMAGES)
    images: list[CameraImage] = []
    with progress_bar(f"reading {source}", total) as progress:
        for entry in islice(opened, total):
            if isinstance(entry, Frame):
                image = decode(entry.image)
                if not images or (image.width, image.height) == (images[0].width, images[0].height):
                    images.append(image)
            progress(len(images))
    if not images:
        raise SourceError(f"{source} has no readable image among its first {total}")
    return images
