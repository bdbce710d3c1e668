"""What evaluation costs: frames per second from bag to figures, beside the bare pipeline on the same frames.

``python benchmarks/evaluate_vs_pipeline.py BAG [--rounds 5] [--precision int8]`` alternates the two in one process, so
that whatever else the machine does weighs on both, and prints processor time per frame too, which hardly depends on
it. Both do the same to a frame: lane boundaries and tracks where the bag's truth has them. The ratio of a busy machine
flatters the evaluation: its many threads get a larger share than the one frame of the bare pipeline.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from drive_seg import open_pipeline
from drive_seg.frame import Frame
from drive_seg.offline.evaluate import evaluate_source
from drive_seg.offline.opening import open_offline
from drive_seg.offline.sources import open_source
from drive_seg.offline.truth import open_truth
from drive_seg.tracking import TrackingOptions


def measure(work: Callable[[], object], frames: int) -> tuple[float, float]:
    """Frames per second, and milliseconds of processor time per frame."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return frames / (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu) / frames


def main() -> None:
    """Command line of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bag", help="a bag with a truth topic, as drive_seg sim writes it; its images must fit memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16, int8")
    arguments = parser.parse_args()
    frames = [entry for entry in open_source(arguments.bag) if isinstance(entry, Frame)]
    precision = arguments.precision
    with open_pipeline(precision=precision) as pipeline, open_offline(precision=precision) as offline:
        truth = open_truth(arguments.bag, offline.labels)
        pipeline.options = replace(pipeline.options, lanes=truth.lanes)
        pipeline.tracking = offline.tracking = TrackingOptions() if truth.tracks else None
        truth.close()

        def bare() -> None:
            pipeline.forget_tracks()
            for frame in frames:
                pipeline(frame)

        def evaluate() -> None:
            truth = open_truth(arguments.bag, offline.labels)
            evaluate_source(open_source(arguments.bag), truth, offline, "default")
            truth.close()

        bare()
        evaluate()
        ratios = []
        for _ in range(arguments.rounds):
            (bare_fps, bare_ms), (fps, ms) = measure(bare, len(frames)), measure(evaluate, len(frames))
            print(f"bare {bare_fps:5.1f}/s {bare_ms:5.1f} ms CPU   evaluate {fps:5.1f}/s {ms:5.1f} ms CPU", flush=True)
            ratios.append(fps / bare_fps)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
