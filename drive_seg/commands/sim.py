"""``drive_seg sim``: render a drive with its exact truth."""

from __future__ import annotations

from typing import Annotated

import typer

from drive_seg.commands.options import AsJson, Debug, Output, Overwrite, Seed, SimWeather, Weather
from drive_seg.errors import DriveSegError, counted

EXAMPLES = """[bold]Examples[/bold]

drive_seg sim --frames 300 -o out/drive.mcap

drive_seg sim --frames 100 --weather night --seed 7 -o out/night"""


def sim(
    out: Output,
    frames: Annotated[int, typer.Option("--frames", min=1, help="Number of frames.")] = 300,
    seed: Seed = 0,
    weather: SimWeather = Weather.clear,
    width: Annotated[int, typer.Option(min=64, max=7680, help="Image width, pixels.")] = 1280,
    height: Annotated[int, typer.Option(min=64, max=4320, help="Image height, pixels.")] = 720,
    fps: Annotated[float, typer.Option(min=0.1, max=1000.0, help="Frames per second of the drive.")] = 30.0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Render a simulated drive with exact panoptic ground truth.

    OUT ending in [bold].mcap[/bold] or [bold].bag2[/bold] is a ROS 2 bag with /camera/image_raw, /camera/camera_info,
    and mask, panoptic, instances, lanes and label_info under /camera/truth; anything else a folder with image/, mask/
    (8-bit), panoptic/ (16-bit), instances.jsonl and lanes.jsonl. Instance ids end in a number that stays with the
    object: 3001/17.
    """
    from drive_seg.commands.terminal import progress_bar, report
    from drive_seg.offline.interrupts import Interrupts
    from drive_seg.offline.rendering import open_render_sink
    from drive_seg.sim import Simulator

    chosen = None if weather is Weather.any else weather.value
    simulator = Simulator(seed=seed, width=width, height=height, fps=fps, weather=chosen)
    done = 0
    with Interrupts() as interrupts:
        sink = open_render_sink(out, overwrite, simulator.intrinsics)
        try:
            with progress_bar("rendering", frames) as progress:
                while done < frames and not interrupts.requested:
                    sink.write(done, simulator.frame(done))
                    done += 1
                    progress(done)
        finally:
            sink.close()
    payload = {"out": str(out), "frames": done, "seed": seed, "weather": simulator.weather, "size": [width, height]}
    report(as_json, payload, f"{counted(done, 'frame')} of {width}x{height} in {out}")
    if done < frames:
        raise DriveSegError(f"interrupted after {counted(done, 'frame')}; what was done is in {out}")
