"""``drive_seg run``: the pipeline without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drive_seg.commands.options import (
    SIM_FRAMES,
    AsJson,
    Backend,
    BackendName,
    Debug,
    Frames,
    Latency,
    MinInstanceArea,
    ModelName,
    NetworkSize,
    Output,
    Overwrite,
    Precision,
    PrecisionName,
    ScoreThreshold,
    Seed,
    SimWeather,
    Topic,
    Track,
    TrackMaxAge,
    Weather,
    network_size,
    refuse_idle,
)
from drive_seg.errors import DriveSegError, counted

EXAMPLES = """[bold]Examples[/bold]

drive_seg run drive.mp4 -o overlay.mp4

drive_seg run images/ -o out/masks

drive_seg run recording.mcap --topic /front/image_raw -o segmented.mcap

drive_seg run old.bag --copy-inputs -o everything.bag2

drive_seg run sim --frames 300 -o out/sim.bag2"""


def run(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="sim, a video, a folder of images, an image, a bag, a device (0) or a URL.")
    ],
    out: Output,
    model: ModelName = "default",
    backend: BackendName = Backend.auto,
    precision: PrecisionName = Precision.auto,
    size: NetworkSize = "auto",
    frames: Frames = 0,
    topic: Topic = "",
    seed: Seed = 0,
    weather: SimWeather = Weather.clear,
    score_threshold: ScoreThreshold = 0.3,
    min_instance_area: MinInstanceArea = 64,
    track: Track = True,
    track_max_age: TrackMaxAge = 2.0,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also put JPEG overlays into an output bag.")] = False,
    copy_inputs: Annotated[
        bool, typer.Option("--copy-inputs", help="Also copy all messages of the source bag into the output bag.")
    ] = False,
    latency: Latency = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Segment a video, images or a bag without ROS: every frame, in order.

    The ending of OUT decides what is written: [bold].mp4[/bold] an overlay video, [bold].mcap[/bold] or
    [bold].bag2[/bold] (a folder) a ROS 2 bag, anything else a folder with mask/ (8-bit class ids), panoptic/ (16-bit),
    instances.jsonl, lanes.jsonl and summary.json. The summary of a video or an .mcap is OUT.summary.json beside it.

    Latencies are measured with several frames in flight; for live latency see [bold]drive_seg benchmark[/bold] and the
    node.
    """
    from drive_seg.commands.terminal import few_warnings, latency_table, progress_bar, report
    from drive_seg.model import open_model
    from drive_seg.offline.bags import BagCopy, BagSource
    from drive_seg.offline.opening import open_offline
    from drive_seg.offline.runner import run as run_all
    from drive_seg.offline.sinks import BAGS, open_sink
    from drive_seg.offline.sources import camera_size, open_source
    from drive_seg.postprocess import FusionOptions
    from drive_seg.tracking import TrackingOptions

    if source != "sim":
        refuse_idle(context, "the source is not sim", "seed", "weather")
    if out.suffix not in BAGS:
        refuse_idle(context, "OUT is no bag (.mcap, .bag2)", "overlay")
    if not track:
        refuse_idle(context, "with --no-track there are no identities", "track_max_age")
    opened = open_source(source, topic or None, seed, None if weather is Weather.any else weather.value)
    if not isinstance(opened, BagSource):
        refuse_idle(context, "the source is no bag", "topic")
    if copy_inputs and not (isinstance(opened, BagSource) and out.suffix in BAGS):
        raise typer.BadParameter("it takes a bag as source and a bag (.mcap, .bag2) as OUT", param_hint="--copy-inputs")
    if overwrite and _would_remove(source, out):
        raise typer.BadParameter(f"the source would be removed with what is at '{out}'", param_hint="--out")
    limit = frames or (SIM_FRAMES if source == "sim" else None)
    total = min((n for n in (limit, opened.count) if n is not None), default=None)
    card = network_size(open_model(model), size, camera_size(opened))
    options = FusionOptions(score_threshold=score_threshold, min_instance_area=min_instance_area)
    tracking = TrackingOptions(track_max_age) if track else None
    with open_offline(card, backend.value, precision.value, options, latency, tracking=tracking) as pipeline:
        sink = open_sink(out, card.labels, opened.fps, overwrite, overlay)
        with few_warnings() as warn, progress_bar(f"segmenting {Path(source).name}", total) as progress:
            entries = BagCopy(opened) if copy_inputs and isinstance(opened, BagSource) else opened
            outcome = run_all(entries, sink, pipeline, card.name, limit, progress, warn)
    summary = outcome.summary
    if outcome.error is not None and summary.counts.published == 0:
        raise outcome.error
    figures = summary.as_dict()
    counts = figures["frames"]
    engine = f"{summary.backend} {summary.precision}, {summary.in_flight} at a time"
    line = f"{counts['published']} of {counted(counts['received'], 'frame')} at {summary.fps:.1f}/s ({engine}) in {out}"
    report(as_json, {**figures, "out": str(out)}, latency_table(figures["latency_ms"]), line)
    if outcome.error is not None:
        raise outcome.error
    if not counts["received"] and not outcome.interrupted:
        raise DriveSegError(f"{source} has no images{f' on {opened.topic}' if isinstance(opened, BagSource) else ''}")
    if summary.counts.published == 0:
        raise DriveSegError(f"no frame of {source} could be segmented; dropped: {counts['dropped']}")
    if outcome.interrupted and not opened.live:
        raise DriveSegError(
            f"interrupted after {counted(summary.counts.published, 'frame')}; what was done is in {out}"
        )


def _would_remove(source: str, out: Path) -> bool:
    """Whether the source goes with what ``--overwrite`` replaces."""
    from drive_seg.offline.sources import is_live
    from drive_seg.resources import at_home

    if source == "sim" or is_live(source):
        return False
    place, read = at_home(out).resolve(), at_home(source).resolve()
    return place == read or place in read.parents
