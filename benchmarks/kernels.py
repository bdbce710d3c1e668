"""What each CUDA kernel of a frame takes on this machine's GPU, without the network.

    python benchmarks/kernels.py --size 1280x720 --network 960x544 --encoding nv12 --batch 4

Needs the NVIDIA driver and nvcc or NVRTC; neither pycuda nor TensorRT. Times are from CUDA events around many launches
in a row, so that they are the GPU's own; the bytes are the least that the kernel has to move, once each.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "test"))

from cuda_on_cpu import Order
from cuda_on_gpu import Device, GpuMemory
from kernel_slot import Slot

from drive_seg.encodings import ENCODINGS, encoding_named
from drive_seg.engines import kernels
from drive_seg.frame import CameraImage, RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.network_size import size_of
from drive_seg.postprocess import FusionOptions

WARM_UP, LAUNCHES = 10, 200


@dataclass(frozen=True)
class Timing:
    """One kernel: microseconds of one launch, the bytes it cannot avoid, and what that makes per second."""

    kernel: str
    microseconds: float
    megabytes: float
    gigabytes_per_second: float


class TimedMemory(GpuMemory):
    """Launches every kernel many times; the kernels take that, only their sums of areas grow wrong."""

    def __init__(self, device: Device, timings: dict[str, float]) -> None:
        super().__init__(device)
        self._timings = timings

    def launch(self, kernel: kernels.Kernel, frames: NDArray[np.void], extent: kernels.Extent, order: Order) -> None:
        """Run one kernel, timed."""
        address = self.put("frames", frames)

        def repeat(times: int) -> None:
            for _ in range(times):
                self._device.launch(kernel, address, extent)

        repeat(WARM_UP)
        self._timings[kernel.name] = self._device.milliseconds(partial(repeat, LAUNCHES)) / LAUNCHES * 1000
        self._device.wait()


def scene(network: tuple[int, int], batch: int) -> RawOutputs:
    """A street: road below, twelve vehicles and people with exact centres and offsets, a cyclist without a centre."""
    width, height = network
    semantic = np.zeros((height, width), np.uint8)
    semantic[height // 2 :] = 1
    centers = np.zeros((3, height // 4, width // 4), np.float32)
    offsets = np.zeros((2, height // 4, width // 4), np.float32)
    rng = np.random.default_rng(0)
    for number in range(12):
        half = int(rng.integers(width // 60, width // 14))
        x, y = int(rng.integers(half, width - half)), int(rng.integers(height // 3, height - half))
        semantic[y - half : y + half, x - half : x + half] = 3 + number % 2
        rows, columns = slice((y - half) // 4, (y + half) // 4), slice((x - half) // 4, (x + half) // 4)
        offsets[0, rows, columns] = y - 4 * np.arange(rows.start, rows.stop)[:, None]
        offsets[1, rows, columns] = x - 4 * np.arange(columns.start, columns.stop)[None]
        centers[number % 2, y // 4, x // 4] = 0.8
    semantic[height // 2 :, width // 3 : width // 3 + width // 20] = 5
    maps = np.repeat(semantic[None], batch, axis=0)
    return RawOutputs(
        maps, np.full_like(maps, 220), np.repeat(centers[None], batch, axis=0), np.repeat(offsets[None], batch, axis=0)
    )


def least_bytes(image: CameraImage, raw: RawOutputs, network: tuple[int, int]) -> dict[str, int]:
    """Per image of the batch: inputs read once, outputs written once."""
    native, cells = image.width * image.height, raw.centers[0].size
    maps, net = raw.semantic[0].size, network[0] * network[1]
    return {
        "letterbox": image.data.size + 3 * net,
        "find_centers": maps + 12 * cells,
        "assign_cells": 8 * cells,
        "claim_components": 5 * cells,
        "number_components": 5 * cells,
        "measure": 2 * maps + 4 * cells,
        "write_maps": maps + 3 * native,
        "draw_overlay": image.data.size + 6 * native,
    }


def measure(native: tuple[int, int], network: tuple[int, int], encoding: str, batch: int) -> tuple[str, list[Timing]]:
    """Name of the GPU, and one line per kernel."""
    device = Device.open()
    layout = encoding_named(encoding)
    step = native[0] * layout.bytes_per_pixel
    data = np.random.default_rng(0).integers(0, 256, step * layout.rows(native[1]), dtype=np.uint8)
    image = CameraImage(encoding, *native, step, data)
    raw = scene(network, batch)
    timings: dict[str, float] = {}
    slot = Slot(kernels.Sizes.of(network, raw), DRIVING, partial(TimedMemory, device, timings), most=batch)
    slot.run([image] * batch, raw, FusionOptions())
    bytes_of = least_bytes(image, raw, network)
    return device.gpu.name, [
        Timing(name, us, batch * bytes_of[name] / 1e6, batch * bytes_of[name] / us / 1e3)
        for name, us in timings.items()
    ]


def main() -> None:
    """Print the table, and with --json one object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=size_of, default=(1280, 720), help="camera, WIDTHxHEIGHT")
    parser.add_argument("--network", type=size_of, default=(640, 384), help="network, WIDTHxHEIGHT")
    parser.add_argument("--encoding", choices=sorted(ENCODINGS), default="rgb8")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    gpu, timings = measure(given.size, given.network, given.encoding, given.batch)
    print(f"{gpu}: {given.batch} x {given.encoding} {given.size} -> {given.network}")
    for line in timings:
        moved = f"{line.megabytes:8.2f} MB {line.gigabytes_per_second:8.0f} GB/s"
        print(f"{line.kernel:18} {line.microseconds:8.1f} us {moved}")
    frame = sum(line.microseconds for line in timings if line.kernel != kernels.OVERLAY.name)
    print(f"{'without overlay':18} {frame:8.1f} us")
    if given.json:
        print(json.dumps({"gpu": gpu, "kernels": [asdict(line) for line in timings]}))


if __name__ == "__main__":
    main()
