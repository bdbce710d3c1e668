"""What tracking costs: milliseconds per frame for some numbers of objects, beside the pipeline on this machine.

    python benchmarks/tracking.py [--frames 600] [--json]
    python benchmarks/tracking.py --drives 70000 70006 --frames 300

Objects move, grow, hide and come back; a tenth of them is not seen in a frame. The pipeline is the default model on one
simulated image, its frames taken in turn with the tracker's, so that other work on the machine slows both.

With ``--drives`` (the first seed and the one after the last), what the tracker alone makes of simulated drives: it is
shown every object as it is, so that what is lost is its own doing. `drive_seg evaluate sim` has the network in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import numpy as np

from drive_seg import open_pipeline
from drive_seg.frame import CameraImage, Frame
from drive_seg.labels import DRIVING
from drive_seg.offline.metrics import TrackingCounts, Trajectories
from drive_seg.offline.metrics.identity import Encounter, Segment
from drive_seg.sim import Simulator
from drive_seg.telemetry import Stopwatch
from drive_seg.tracking import Sighting, Tracker

OBJECTS = (5, 20, 100)
WARM_UP = 50
FRAME_NS = 33_333_333


def sightings(objects: int, frames: int) -> Iterator[Sighting]:
    """The frames of a made-up drive with so many objects."""
    rng = np.random.default_rng(objects)
    places, speeds = rng.uniform(0, [1200, 600], (objects, 2)), rng.uniform(-60, 60, (objects, 2))
    sizes, growth = rng.uniform(20, 120, (objects, 2)), rng.uniform(-0.2, 0.4, (objects, 1))
    classes = rng.integers(3, 6, objects)
    for number in range(frames):
        time = (number % 90) / 30
        low = places + speeds * time + rng.normal(0, 1, (objects, 2))
        boxes = np.concatenate((low, low + sizes * np.exp(growth * time)), axis=1)
        seen = rng.random(objects) > 0.1
        yield Sighting(number * FRAME_NS, (1280, 720), boxes[seen], classes[seen], rng.uniform(0.3, 1, seen.sum()))


def identities(first: int, last: int, frames: int) -> None:
    """Follow the true objects of some drives, and print how well."""
    whole = TrackingCounts()
    for seed in range(first, last):
        simulator, tracker, trajectories = Simulator(seed), Tracker(), Trajectories()
        for number in range(frames):
            shot = simulator.frame(number)
            things = shot.instances()
            rows = [(t.box.x, t.box.y, t.box.x + t.box.width, t.box.y + t.box.height) for t in things]
            boxes, ones = np.array(rows, np.float64).reshape(-1, 4), np.ones(len(rows))
            classes = np.array([thing.class_id for thing in things], np.int64)
            numbers = tracker.update(Sighting(shot.stamp_ns, (1280, 720), boxes, classes, ones))
            segments = [Segment(thing.class_id, thing.panoptic_id, thing.area) for thing in things]
            tracks = {thing.panoptic_id: track for thing, track in zip(things, numbers, strict=True)}
            trajectories.add(Encounter(tuple(zip(segments, segments, strict=True))), shot.tracks, tracks)
        whole += trajectories.counts()
    figures = whole.figures({label.id: label.name for label in DRIVING.things})
    rows_by_name = {"all": figures, **figures["per_class"], **figures["by_size"]}
    for name, row in rows_by_name.items():
        if row["objects"]:
            print(f"{name:>10}: IDF1 {row['idf1']:.3f}, MOTA {row['mota']:.3f}, {row['id_switches']} switches")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Milliseconds of tracking per frame.")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--drives", type=int, nargs=2, metavar=("FIRST", "LAST"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.drives:
        first, last = arguments.drives
        identities(first, last, arguments.frames)
        return
    image = Frame(CameraImage.from_rgb(Simulator(0).frame(40).image))
    trackers = {objects: Tracker() for objects in OBJECTS}
    drives = {objects: sightings(objects, arguments.frames + WARM_UP) for objects in OBJECTS}
    times: dict[str, list[float]] = {"pipeline": [], **{str(objects): [] for objects in OBJECTS}}
    with open_pipeline() as pipeline:
        for _ in range(arguments.frames + WARM_UP):
            watch = Stopwatch()
            pipeline(image)
            times["pipeline"].append(watch.lap())
            for objects in OBJECTS:
                sighting = next(drives[objects])
                watch = Stopwatch()
                trackers[objects].update(sighting)
                times[str(objects)].append(watch.lap())
    rows = {name: np.percentile(values[WARM_UP:], (50, 99)).tolist() for name, values in times.items()}
    whole = rows.pop("pipeline")
    print(f"pipeline without tracking: p50 {whole[0]:.2f} ms, p99 {whole[1]:.2f} ms")
    for name, (p50, p99) in rows.items():
        print(f"{name:>4} objects: p50 {p50:.3f} ms, p99 {p99:.3f} ms, {p50 / whole[0]:.3f} of the pipeline (p50)")
    if arguments.json:
        print(json.dumps({"pipeline_ms": whole, "tracking_ms": rows}))


if __name__ == "__main__":
    main()
