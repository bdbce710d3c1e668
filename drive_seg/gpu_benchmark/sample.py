"""TensorRT as the usual pycuda sample has it: one stream, pageable memory, a wait after every step.

What the other columns of the table are compared with; letterbox and fusion are the CPU's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.function import FunctionEngine
from drive_seg.engines.protocol import EngineInfo
from drive_seg.engines.trt import TrtEngine
from drive_seg.frame import RawOutputs


class SampleEngine(FunctionEngine):
    """One image at a time. Shares the plan (and so the network) of ``engine``, nothing else; closed before it."""

    def __init__(self, engine: TrtEngine) -> None:
        network = engine.network
        arena, image = network.arena, network.tensors[0]
        contexts: list[Any] = []
        arena.on_close(contexts.clear)
        with arena.active("set the sample up"):
            contexts.append(network.context())
            addresses = {tensor.name: arena.memory(tensor.nbytes) for tensor in network.tensors}
            network.enqueue(contexts[0], addresses, 1)  # shape and addresses are set once
            network.compute.synchronize()

        def run(batch: NDArray[np.uint8]) -> RawOutputs:
            with arena.active("run the sample"):
                pageable = np.ascontiguousarray(batch)
                arena.driver.memcpy_htod_async(addresses[image.name], pageable, network.compute)
                network.compute.synchronize()
                network.enqueue_again(contexts[0], 1)
                network.compute.synchronize()
                maps = []
                for tensor in network.outputs:
                    host = np.empty((1, *tensor.shape[1:]), tensor.dtype)
                    arena.driver.memcpy_dtoh(host, addresses[tensor.name])
                    maps.append(host)
            return RawOutputs(*maps)

        super().__init__(run, (image.shape[2], image.shape[1]), max_batch=1, slots=1)
        self.info = EngineInfo("tensorrt sample", engine.info.precision, engine.info.device, engine.info.version)
