"""``drive_seg demo``: the main job in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drive_seg.commands.options import (
    AsJson,
    Backend,
    BackendName,
    Debug,
    ModelName,
    Precision,
    PrecisionName,
    Seed,
    SimWeather,
    Topic,
    Weather,
    refuse_idle,
)
from drive_seg.config import SLOWEST_HZ
from drive_seg.errors import DriveSegError, MissingDependency

if TYPE_CHECKING:
    from drive_seg.demo.session import DemoResult

EXAMPLES = """[bold]Examples[/bold]

drive_seg demo

drive_seg demo --source drive.mp4 --seconds 60 --loop --out out/drive

drive_seg demo --source 0 --backend onnxruntime     [dim]# a camera[/dim]"""

INSTALL = "make venv, then .venv/bin/drive_seg demo; or source /opt/ros/DISTRO/setup.bash"


def demo(
    context: typer.Context,
    source: Annotated[
        str, typer.Option("--source", help="sim, a video, a folder of images, a bag, a device (0) or a URL.")
    ] = "sim",
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, help="Longest duration, seconds.")] = 20.0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("out/demo"),
    model: ModelName = "default",
    backend: BackendName = Backend.auto,
    precision: PrecisionName = Precision.auto,
    rate: Annotated[
        float, typer.Option(min=0.0, max=1000.0, help="Images per second; 0: the source's own rate.")
    ] = 0.0,
    loop: Annotated[bool, typer.Option("--loop", help="Repeat a recording until the time is up.")] = False,
    topic: Topic = "",
    seed: Seed = 0,
    weather: SimWeather = Weather.clear,
    video_rate: Annotated[
        float, typer.Option(min=0.5, max=120.0, help="Most frames per second in overlay.mp4; writing costs time.")
    ] = 15.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Segment a camera over real ROS 2 and watch it; node and camera run as separate processes.

    Shows rates, drops and latencies while it runs; writes overlay.mp4, latency.png and summary.json to the folder.
    Topics are on the ROS domain of your environment, so rviz2, Foxglove and ros2 topic see them, too.
    """
    from drive_seg.commands.terminal import latency_table, progress_bar, report, warn
    from drive_seg.executables import missing
    from drive_seg.model import open_model
    from drive_seg.resources import at_home

    if 0.0 < rate < SLOWEST_HZ:
        raise typer.BadParameter(f"--rate must be 0 or >= {SLOWEST_HZ:g}, got {rate:g}")
    _refuse_idle(context, source)
    card = open_model(model)
    try:
        from drive_seg.demo.display import open_display
        from drive_seg.demo.session import DemoOptions, run_demo
    except ImportError as error:
        if isinstance(error, MissingDependency):
            raise
        raise MissingDependency(missing(error), "the demo", INSTALL) from error
    _check_source(context, source, topic)
    options = DemoOptions(
        source=source,
        seconds=seconds,
        out=at_home(out),
        backend=backend.value,
        precision=precision.value,
        rate=rate,
        topic=topic,
        loop=loop,
        seed=seed,
        weather="" if weather is Weather.any else weather.value,
        video_rate=video_rate,
    )
    result = run_demo(options, card, open_display(plain=as_json), progress_bar)
    for complaint in result.complaints:
        warn(complaint)
    figures = result.summary.as_dict()
    payload: dict[str, Any] = {
        **figures,
        "first_mask_s": round(result.first_mask_s, 3),
        "camera_sent": result.sent,
        "video_frames": result.video_frames,
        "out": str(options.out),
    }
    where = "\n".join(f"  {options.out / name}" for name in ("overlay.mp4", "latency.png", "summary.json"))
    report(as_json, payload, latency_table(figures["latency_ms"]), f"wrote\n{where}", _verdict(result))
    if result.summary.counts.published == 0:
        raise DriveSegError("no frame was segmented")


def _refuse_idle(context: typer.Context, source: str) -> None:
    from drive_seg.offline.sources import is_live

    if source == "sim":
        refuse_idle(context, "the simulator drives without end, and is no bag", "loop", "topic")
    else:
        refuse_idle(context, "the source is not sim", "seed", "weather")
    if is_live(source):
        refuse_idle(context, "a device or a stream has a pace of its own and no end", "loop", "topic", "rate")


def _check_source(context: typer.Context, source: str, topic: str) -> None:
    """Open and forget it here, where an error is one clear line; not devices, which open once."""
    from drive_seg.offline.bags import BagSource
    from drive_seg.offline.sources import is_live, open_source

    if source != "sim" and not is_live(source) and not isinstance(open_source(source, topic or None), BagSource):
        refuse_idle(context, "the source is no bag", "topic")


def _verdict(result: DemoResult) -> str:
    counts = result.summary.counts
    whole = result.summary.latency.get("end_to_end") or result.summary.latency.get("processing")
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.dropped.items()) if count)
    sent = counts.received if result.sent is None else result.sent
    unseen = max(0, sent - counts.received)
    lost = f"{counts.total_dropped} dropped ({reasons})" if reasons else "none dropped"
    lost = f"{unseen} of the camera's {sent} did not reach the node, {lost}" if unseen else lost
    latency = f", end to end p50 {whole.p50:.1f} ms, p99 {whole.p99:.1f} ms" if whole else ""
    # The first few may be sent before the two know of each other.
    kept_up = counts.total_dropped + counts.failed <= 0.01 * counts.received and unseen <= 2 + 0.01 * sent
    judgement = "keeps up" if kept_up else "does not keep up"
    return (
        f"{result.summary.backend} {result.summary.precision} {judgement}: {counts.published} of {counts.received} "
        f"frames segmented at {result.summary.fps:.1f} Hz, {lost}, {counts.failed} failed{latency}, "
        f"first mask after {result.first_mask_s:.1f} s"
    )
