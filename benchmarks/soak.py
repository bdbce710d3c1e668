"""A camera at 30 Hz for half an hour: whether memory and latency stay what they were, and every frame is accounted for.

    python benchmarks/soak.py --minutes 30 --markdown soak.md

The shipped model, 1280x720, the simulator's camera, and this process as the one that wants masks. The first tenth is
left out as warm-up; of the rest the first third is compared with the last. Flat means: the median heap grew by at most
2 MB, and p99 of the processing by at most a quarter. What else the machine did is measured too. Needs Linux and ROS 2.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from observed import Accounts, ObservedNode, Sample, Served, cores_used, look_at, machine_busy_s, percentiles

from drive_seg.demo.children import Child
from drive_seg.demo.session import ros_arguments
from drive_seg.errors import DriveSegError

CAMERA = "front"
MEMORY_MB = 2.0
SLOWER = 1.25


def thirds(values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """The first and the last third of what is left without the first tenth."""
    settled = values[len(values) // 10 :]
    third = max(1, len(settled) // 3)
    return settled[:third], settled[-third:]


def report(
    frames: Sequence[Served], samples: Sequence[Sample], camera: Sequence[Sample], accounts: Accounts, sent: int
) -> dict[str, Any]:
    latency = {}
    for name in ("transport", "queue", "processing", "end_to_end"):
        first, last = (percentiles(getattr(frame, name) for frame in part) for part in thirds(frames))
        latency[name] = {"first": first, "last": last}
    memory = [statistics.median(sample.rss_mb for sample in part) for part in thirds(samples)]
    processing = [latency["processing"][part]["p99"] for part in ("first", "last")]
    return {
        "frames": {"sent": sent, "lost_in_transport": sent - accounts.received, **accounts.as_dict()},
        "latency_ms": latency,
        "rss_mb": {"first": round(memory[0], 2), "last": round(memory[1], 2), "max": max(s.rss_mb for s in samples)},
        "camera_rss_mb": {"first": camera[0].rss_mb, "last": camera[-1].rss_mb},
        "threads": sorted({sample.threads for sample in samples}),
        "node_cores": cores_used(samples),
        "verdict": {
            "conserved": accounts.exact,
            "memory_flat": memory[1] - memory[0] <= MEMORY_MB,
            "latency_flat": processing[1] <= SLOWER * processing[0],
        },
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    parameters = {
        f"{CAMERA}.image_topic": "/camera/image_raw",
        "model": given.model,
        "backend": given.backend,
        "expected_frequency": given.rate,
    }
    arguments = ["-m", "drive_seg.ros.node", *ros_arguments(parameters)]
    with ObservedNode(arguments, [CAMERA]) as observed:
        settings = {"rate": given.rate, "prerender": 60, "seed": 1, "wait_for_subscribers": 1}
        with Child("camera", ["-m", "drive_seg.ros.sim_camera", *ros_arguments(settings)]) as camera:
            frames = observed.served[CAMERA]
            observed.until(lambda: frames, "the first mask", [camera])
            observed.samples.clear()
            camera_samples = [look_at(camera.pid)]
            started, busy, loads = time.monotonic(), machine_busy_s(), []
            for minute in range(max(1, round(given.minutes))):
                observed.spin(60.0 * given.minutes / max(1, round(given.minutes)), [camera])
                loads.append(os.getloadavg()[0])
                processing = percentiles(frame.processing for frame in frames[-int(60 * given.rate) :])
                node = observed.samples[-1]
                print(
                    f"{minute + 1:3} min: {len(frames)} frames, processing {processing}, {node.rss_mb:.1f} MB",
                    flush=True,
                )
            camera_samples.append(look_at(camera.pid))
            samples = list(observed.samples)
            seconds, busy = time.monotonic() - started, machine_busy_s() - busy
            camera.stop()
            sent = next(int(said[1]) for line in camera.lines if (said := re.search(r"(\d+) images? sent", line)))
        accounts = observed.drain()[CAMERA]
        found = report(frames, samples, camera_samples, accounts, sent)
    others = busy / seconds - found["node_cores"] - cores_used(camera_samples)
    return {
        "minutes": round(seconds / 60, 2),
        "rate": given.rate,
        "model": given.model,
        **found,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "used_by_others_cores": round(others, 2),
            "load_average": {"median": statistics.median(loads), "max": max(loads)},
        },
    }


def markdown(found: dict[str, Any]) -> str:
    """The tables of docs/soak.md."""
    machine, frames, rss = found["machine"], found["frames"], found["rss_mb"]
    load = machine["load_average"]
    rows = [
        f"| {stage}, p50 / p99 / max | {' / '.join(f'{first[n]:.1f}' for n in ('p50', 'p99', 'max'))} "
        f"| {' / '.join(f'{last[n]:.1f}' for n in ('p50', 'p99', 'max'))} |"
        for stage, both in found["latency_ms"].items()
        for first, last in [(both["first"], both["last"])]
    ]
    good = {True: "yes", False: "**no**"}
    return "\n".join(
        [
            f"{found['minutes']:g} minutes at {found['rate']:g} Hz, 1280x720, model `{found['model']}`, on a machine "
            f"with {machine['cores']} cores, of which other processes used {machine['used_by_others_cores']:.2f} on "
            f"average (load average: median {load['median']:.1f}, maximum {load['max']:.1f}).",
            "",
            "| ms unless stated | first third | last third |",
            "|---|---|---|",
            *rows,
            f"| heap of the node, median MB | {rss['first']:.1f} | {rss['last']:.1f} |",
            "",
            "| frames | number |",
            "|---|---|",
            f"| sent by the camera | {frames['sent']} |",
            f"| lost on the way to the node (best effort) | {frames['lost_in_transport']} |",
            f"| received by the node | {frames['received']} |",
            f"| published | {frames['published']} |",
            f"| dropped | {', '.join(f'{count} {reason}' for reason, count in frames['dropped'].items()) or 0} |",
            f"| failed | {frames['failed']} |",
            "",
            f"Processor time of the node: {found['node_cores']:.2f} cores. Threads: "
            f"{', '.join(map(str, found['threads']))}.",
            "",
            f"Every frame accounted for: {good[found['verdict']['conserved']]}. "
            f"Memory flat: {good[found['verdict']['memory_flat']]}. "
            f"p99 flat: {good[found['verdict']['latency_flat']]}.",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=30.0)
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--markdown", type=Path, default=None, help="write the tables to this file")
    parser.add_argument("--json", type=Path, default=None, help="write everything to this file")
    given = parser.parse_args()
    try:
        found = measure(given)
    except DriveSegError as error:
        print(f"soak: error: {error}", file=sys.stderr)
        return 2
    tables = markdown(found)
    print(tables)
    if given.markdown:
        given.markdown.write_text(tables + "\n", encoding="utf-8")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(found["verdict"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
