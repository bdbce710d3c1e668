"""What torch does with the same network, and what the GPU reaches at its best: for the Python that has torch.

python -m drive_seg.network.torch_speed FRAMES.npy COUNT 960x544
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.benchmark import ReusedBuffers
from drive_seg.engines.function import FunctionEngine
from drive_seg.frame import CameraImage, RawOutputs
from drive_seg.gpu_benchmark.latency import host_to_host
from drive_seg.labels import DRIVING
from drive_seg.network_size import size_of
from drive_seg.pipeline import Pipeline


def best_seconds(torch: Any, work: Callable[[], object], repeats: int = 10) -> float:
    """The fastest of some runs, by CUDA events."""
    times = []
    for _ in range(repeats + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return float(min(times[3:]))


def measure_peaks(torch: Any) -> dict[str, Any]:
    """Matrix products and copies at their best, in operations and bytes per second."""
    side = 8192
    peaks: dict[str, float] = {}
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, dtype, n in (("fp32", torch.float32, side // 2), ("fp16", torch.float16, side)):
        a, b = (torch.randn(n, n, device="cuda", dtype=dtype) for _ in range(2))
        peaks[name] = 2 * n**3 / best_seconds(torch, partial(torch.matmul, a, b))
    a, b = (torch.randint(-128, 128, (side, side), device="cuda", dtype=torch.int8) for _ in range(2))
    peaks["int8"] = 2 * side**3 / best_seconds(torch, lambda: torch._int_mm(a, b.t()))
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
    part = target[: host.numel()]
    return {
        "flops": peaks,
        "memory": 2 * source.numel() / best_seconds(torch, lambda: target.copy_(source)),
        "h2d": host.numel() / best_seconds(torch, lambda: part.copy_(host, non_blocking=True)),
        "d2h": host.numel() / best_seconds(torch, lambda: host.copy_(part, non_blocking=True)),
    }


def network(torch: Any, size: tuple[int, int], compiled: bool) -> Callable[[NDArray[np.uint8]], RawOutputs]:
    """The shipped network in fp16, also its weights: of the noise that random ones give, fusion takes much longer."""
    from drive_seg.network.deploy import DeployedNet
    from drive_seg.network.panoptic import NetworkConfig, PanopticNet
    from drive_seg.network.start import start_from

    shipped = PanopticNet(NetworkConfig()).eval()
    start_from(shipped, "default")
    torch.backends.cudnn.benchmark = True  # the fastest kernels are looked for, as all do whose inputs have one size
    net = DeployedNet(shipped, half=True).cuda()  # with what lies around the network
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = torch.compile(net, mode="max-autotune") if compiled else net
    pinned = torch.empty((1, size[1], size[0], 3), dtype=torch.uint8, pin_memory=True)

    def infer(batch: NDArray[np.uint8]) -> RawOutputs:
        with torch.inference_mode():
            pinned.copy_(torch.from_numpy(batch))
            maps = run(pinned.to("cuda", non_blocking=True))
            return RawOutputs(*(part.cpu().numpy() for part in maps))

    return infer


def host(torch: Any, frames: str, count: int, size: tuple[int, int], compiled: bool) -> dict[str, float]:
    """From camera pixels to native maps, with the CPU's letterbox and fusion."""
    images = [CameraImage.from_rgb(image) for image in np.load(frames)]
    with Pipeline(FunctionEngine(network(torch, size, compiled), size), DRIVING, allocate=ReusedBuffers()) as pipeline:
        found = host_to_host(pipeline, images, count)
    return {"p50": found.p50, "p99": found.p99}


def main() -> int:
    """0; standard output has each figure, and each reason why one is missing, in a line of its own."""
    frames, count, size = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    lines = sys.stdout

    def say(name: str, value: Any) -> None:
        print(json.dumps({name: value}), file=lines, flush=True)

    with redirect_stdout(sys.stderr):  # where libraries may print
        try:
            import torch
        except ImportError as error:
            say("why", f"torch is not installed here: {error}")
            return 0
        if not torch.cuda.is_available():
            say("why", f"torch {torch.__version__} sees no CUDA device")
            return 0
        say("torch", torch.__version__)
        say("gpu", torch.cuda.get_device_name())
        speed = partial(host, torch, frames, count, size_of(size))
        steps: dict[str, Callable[[], Any]] = {
            "peaks": partial(measure_peaks, torch),
            f"eager {size}": partial(speed, compiled=False),
            f"compiled {size}": partial(speed, compiled=True),
        }
        for name, step in steps.items():
            try:
                say(name, step())
            except Exception as error:  # noqa: BLE001 - compilers raise anything; the other figures count
                say("why", f"{name}: {type(error).__name__}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
