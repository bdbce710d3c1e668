"""``drive_seg benchmark``: what this machine does with a frame, stage by stage."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drive_seg.commands.options import (
    AsJson,
    Backend,
    BackendName,
    Debug,
    ModelName,
    NetworkSize,
    Precision,
    PrecisionName,
    network_size,
    refuse_idle,
)
from drive_seg.errors import counted

if TYPE_CHECKING:
    from drive_seg.frame import CameraImage

EXAMPLES = """[bold]Examples[/bold]

drive_seg benchmark --frames 1000

drive_seg benchmark --backend onnxruntime --json

drive_seg benchmark --backend tensorrt --full     [dim]# on a GPU: docs/tensorrt.md[/dim]

drive_seg benchmark --frames 10000     [dim]# does memory stay flat?[/dim]"""

DIFFERENT_IMAGES = 32


def benchmark(
    context: typer.Context,
    source: Annotated[
        str, typer.Option("--source", help="sim (1280x720), a video, images or a bag; its first 32 frames are used.")
    ] = "sim",
    frames: Annotated[
        int, typer.Option("--frames", min=1, max=10_000_000, help="Measured frames, after 50 for warm-up.")
    ] = 500,
    model: ModelName = "default",
    backend: BackendName = Backend.auto,
    precision: PrecisionName = Precision.auto,
    size: NetworkSize = "auto",
    threads: Annotated[
        int, typer.Option("--threads", min=0, max=1024, help="CPU threads of the engine; 0: all cores.")
    ] = 0,
    full: Annotated[
        bool,
        typer.Option("--full", help="TensorRT at every size and precision, beside torch and the usual pycuda sample."),
    ] = False,
    sizes: Annotated[
        str, typer.Option("--sizes", help="With --full: sizes, e.g. 640x384,960x544; default: all three.")
    ] = "",
    precisions: Annotated[
        str, typer.Option("--precisions", help="With --full: precisions, e.g. fp16,int8; default: all three.")
    ] = "",
    torch_python: Annotated[
        str,
        typer.Option("--torch-python", help="With --full: the Python with torch, onnx, ONNX Runtime, if not this one."),
    ] = "",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="With --full: folder of tensorrt.json and .md; continues what is there.")
    ] = Path("out/benchmark"),
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure the pipeline stage by stage, beside the bare network in the same run."""
    if full:
        refuse_idle(context, "--full has --precisions and --sizes", "precision", "size", "threads")
        _full(source, frames, model, backend, sizes, precisions, torch_python, out, as_json)
        return
    refuse_idle(context, "it is of --full", "sizes", "precisions", "torch_python", "out")
    from drive_seg.benchmark import ReusedBuffers
    from drive_seg.benchmark import benchmark as measure
    from drive_seg.commands.terminal import latency_table, progress_bar, report
    from drive_seg.engines import EngineOptions
    from drive_seg.model import open_model
    from drive_seg.pipeline import open_pipeline
    from drive_seg.resources import cache_folder

    images = _images(source)
    camera = images[0].width, images[0].height
    card = network_size(open_model(model), size, camera)
    options = EngineOptions(precision=precision.value, threads=threads, cache_dir=cache_folder())
    with open_pipeline(card, backend.value, allocate=ReusedBuffers(), engine_options=options) as pipeline:
        with progress_bar(f"measuring {pipeline.engine.info.backend}", frames) as progress:
            result = measure(pipeline, images, frames, progress=progress)
        device = pipeline.engine.info.device
    figures = result.as_dict()
    width, height = result.input
    lines = (
        f"{result.backend} {result.precision} on {device}; {width}x{height} -> "
        f"{result.network[0]}x{result.network[1]}, {counted(frames, 'frame')}\n"
        f"bare network  p50 {result.bare.p50:.2f} ms   p99 {result.bare.p99:.2f} ms\n"
        f"pipeline      p50 {result.pipeline.p50:.2f} ms   p99 {result.pipeline.p99:.2f} ms   {result.fps:.1f} fps\n"
        f"ratio {result.ratio:.2f} (p50 / p50)"
    )
    if result.rss_growth_mb is not None:
        lines += f"   memory growth {result.rss_growth_mb:+.1f} MiB"
    report(as_json, figures, latency_table(figures["stages_ms"], "pipeline stages, ms"), lines)


def _full(
    source: str,
    frames: int,
    model: str,
    backend: Backend,
    sizes: str,
    precisions: str,
    torch_python: str,
    out: Path,
    as_json: bool,
) -> None:
    from drive_seg.commands.terminal import phase_bar, report
    from drive_seg.engines import EngineOptions
    from drive_seg.engines.trt_library import load_tensorrt
    from drive_seg.errors import EngineError
    from drive_seg.gpu_benchmark.cases import PRECISIONS, SIZES, cases, measure
    from drive_seg.model import open_model
    from drive_seg.resources import cache_folder

    if backend not in (Backend.auto, Backend.tensorrt):
        raise typer.BadParameter("--full is about the tensorrt backend")
    load_tensorrt()  # before frames are rendered for it
    card = open_model(model)
    chosen = [network_size(card, size, option="--sizes") for size in sizes.split(",") if size]
    asked = [precision for precision in precisions.split(",") if precision]
    unknown = sorted(set(asked) - set(PRECISIONS))
    if unknown:
        raise typer.BadParameter(f"--precisions must be among {', '.join(PRECISIONS)}; got {', '.join(unknown)}")
    wanted = cases([(sized.width, sized.height) for sized in chosen] or SIZES, asked or PRECISIONS)
    options = EngineOptions(cache_dir=cache_folder())
    file = out / "tensorrt.json"
    images = _images(source)
    with phase_bar("measuring") as progress:
        results = measure(card, images, frames, wanted, file, options, torch_python, progress)
    page = file.with_suffix(".md")
    report(as_json, results, page.read_text(encoding="utf-8"), f"written to {page} and {file}")
    measured = [results["cases"][case.name] for case in wanted]
    if all("error" in case for case in measured):
        raise EngineError(f"nothing could be measured: {measured[0]['error']}")


def _images(source: str) -> list[CameraImage]:
    """The first images of the source, decoded, all of the first one's size."""
    from drive_seg.commands.terminal import progress_bar
    from drive_seg.decode import decode
    from drive_seg.errors import MalformedImage, SourceError
    from drive_seg.frame import Frame
    from drive_seg.offline.sources import open_source

    opened = open_source(source)
    total = min(DIFFERENT_IMAGES, opened.count or DIFFERENT_IMAGES)
    images: list[CameraImage] = []
    with progress_bar(f"reading {source}", total) as progress:
        for entry in islice(opened, total):
            if isinstance(entry, Frame):
                with suppress(MalformedImage):
                    image = decode(entry.image)
                    if not images or (image.width, image.height) == (images[0].width, images[0].height):
                        images.append(image)
            progress(len(images))
    if not images:
        raise SourceError(f"{source} has no readable image among its first {total}")
    return images
