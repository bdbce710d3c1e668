"""What lane boundaries cost: ``LaneFinder`` beside the pipeline that makes its maps, on the same frames in one run.

python benchmarks/lanes_vs_pipeline.py [--source sim|VIDEO|FOLDER] [--frames 100] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import time

import numpy as np

from drive_seg import FusionOptions, open_pipeline
from drive_seg.decode import decode
from drive_seg.frame import Frame
from drive_seg.lanes import LaneFinder
from drive_seg.offline.sources import open_source


def main() -> None:
    """Print milliseconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="sim")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    pipeline_ms, finder_ms, found = [], [], 0
    with open_pipeline(options=FusionOptions(output_resolution="network")) as pipeline:
        finder = LaneFinder(pipeline.labels)
        frames = (entry for entry in open_source(given.source) if isinstance(entry, Frame))
        for number, frame in enumerate(itertools.islice(frames, given.frames + 5)):
            image = decode(frame.image)
            begun = time.perf_counter()
            result = pipeline(Frame(image))
            between = time.perf_counter()
            found += len(finder(result.mask, result.native_size))
            ended = time.perf_counter()
            if number >= 5:  # the first ones warm up
                pipeline_ms.append(1e3 * (between - begun))
                finder_ms.append(1e3 * (ended - between))
    stages = {"pipeline_ms": _percentiles(pipeline_ms), "lanes_ms": _percentiles(finder_ms)}
    figures = {
        "frames": len(finder_ms),
        "boundaries": found,
        **stages,
        "ratio": float(np.median(finder_ms) / np.median(pipeline_ms)),
    }
    if given.json:
        print(json.dumps(figures))
        return
    print(f"{figures['frames']} frames of {given.source}, {found} boundaries")
    for name, percentiles in stages.items():
        print(f"{name:12}" + "".join(f"  {key} {value:.2f}" for key, value in percentiles.items()))
    print(f"lanes take {figures['ratio']:.3f} of the pipeline's time")


def _percentiles(values: list[float]) -> dict[str, float]:
    return {key: float(np.percentile(values, share)) for key, share in (("p50", 50), ("p95", 95), ("p99", 99))}


if __name__ == "__main__":
    main()
