"""TensorRT on CUDA streams: copies in, network and copies out overlap; the steady state is one CUDA graph.

Three streams serve all slots: while batch n is computed, n + 1 is copied to the GPU and n - 1 back. Events order them
(``marks`` below), and their times are the telemetry. A slot's buffers belong to one batch from ``submit`` to ``wait``,
so that nothing else needs guarding; TensorRT's scratch memory is used on the one compute stream only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.cuda import Arena
from drive_seg.engines.cuda_graph import CudaGraph
from drive_seg.engines.plan_cache import Plan
from drive_seg.engines.protocol import EngineInfo, EngineOptions
from drive_seg.engines.trt_network import Network
from drive_seg.errors import EngineError, EngineLost
from drive_seg.frame import GpuTimes, RawOutputs
from drive_seg.labels import LabelSet
from drive_seg.model import Model
from drive_seg.postprocess import FusionOptions
from drive_seg.stages import Allocator, HostStages, Stages

SLOTS = 3
"""One batch on its way up, one computed, one on its way down."""

_log = logging.getLogger(__name__)

OnStream = Callable[[Any], None]
"""Puts work on the stream it is given."""


class Marks:
    """The events of one batch, in the order of their recording; what lies between them is its times."""

    def __init__(self, arena: Arena) -> None:
        arena.on_close(vars(self).clear)
        self.up, self.uploaded = arena.event(), arena.event()
        self.begin, self.prepared, self.inferred, self.fused = (arena.event() for _ in range(4))
        self.down, self.done = arena.event(), arena.event(wait_asleep=True)

    def times(self) -> GpuTimes:
        """Milliseconds on the GPU; the batch must be done."""
        return GpuTimes(
            h2d=self.up.time_till(self.uploaded),
            preprocess=self.begin.time_till(self.prepared),
            inference=self.prepared.time_till(self.inferred),
            fusion=self.inferred.time_till(self.fused),
            d2h=self.down.time_till(self.done),
        )


class TrtSlot:
    """One batch: pinned input, device buffers, pinned outputs, events, and the network as a CUDA graph.

    Attributes:
        input: uint8 (max_batch, H, W, 3) RGB in page-locked memory.
        addresses: device address of every tensor of the network.
        times: of the batch that was waited for last.
        uncaptured: why a full batch is not one CUDA graph, if it could not be captured.
    """

    def __init__(self, network: Network, graphs: bool = True) -> None:
        arena = network.arena
        self.network = network
        image = network.tensors[0]
        self.input: NDArray[np.uint8] = arena.pinned(image.nbytes).reshape(image.shape)
        self.input.fill(0)
        self.addresses = {tensor.name: arena.memory(tensor.nbytes) for tensor in network.tensors}
        self.times: GpuTimes | None = None
        self.uncaptured = ""
        self._host = [arena.pinned(tensor.nbytes).view(tensor.dtype) for tensor in network.outputs]
        self._context: Any = network.context()
        self._marks = Marks(arena)
        self._graph: CudaGraph | None = None
        self._graphs = graphs
        self._count = 0

    def submit(self, count: int) -> None:
        """Copy the first ``count`` images to the GPU, run the network, copy its maps back; waits for nothing."""
        image = self.network.tensors[0]
        driver = self.network.arena.driver

        def upload(stream: Any) -> None:
            driver.memcpy_htod_async(self.addresses[image.name], self.input[:count], stream)

        self.launch(count, upload, _nothing, _nothing, lambda stream: self._download(count, stream))

    def launch(self, count: int, upload: OnStream, before: OnStream, after: OnStream, download: OnStream) -> None:
        """Put a whole batch on the streams.

        Args:
            upload, download: copies, on their own streams.
            before, after: what the GPU does around the network, on the compute stream.
        """
        network, marks = self.network, self._marks
        with network.arena.active(f"start a batch of {count}"):
            try:
                marks.up.record(network.upload)
                upload(network.upload)
                marks.uploaded.record(network.upload)
                network.compute.wait_for_event(marks.uploaded)
                marks.begin.record(network.compute)
                before(network.compute)
                marks.prepared.record(network.compute)
                self._infer(count)
                marks.inferred.record(network.compute)
                after(network.compute)
                marks.fused.record(network.compute)
                network.download.wait_for_event(marks.fused)
                marks.down.record(network.download)
                download(network.download)
                marks.done.record(network.download)
            except BaseException:
                network.drain()  # half a batch may be under way in buffers that are about to be free again
                raise
        self._count = count

    def _infer(self, count: int) -> None:
        network = self.network
        if count < network.max_batch:
            network.enqueue(None, self.addresses, count)
            return
        if self._graph is None and self._graphs:
            self._capture(count)
        if self._graph is None:
            network.enqueue(self._context, self.addresses, count)
        else:
            self._graph.launch(network.compute.handle)

    def _capture(self, count: int) -> None:
        """From now on a full batch is one launch instead of one per layer. What cannot be captured is enqueued.

        The first run after a shape was set may allocate, which spoils a capture: nothing is set between the two runs.
        """
        network = self.network
        self._graphs = False
        network.enqueue(self._context, self.addresses, count)
        network.compute.synchronize()
        try:
            self._graph = CudaGraph(network.compute.handle, lambda: network.enqueue_again(self._context, count))
        except EngineError as error:
            self.uncaptured = f"this engine runs without CUDA graph: {error}"
            _log.warning("%s", self.uncaptured)

    def _download(self, count: int, stream: Any) -> None:
        driver = self.network.arena.driver
        for tensor, host in zip(self.network.outputs, self._host, strict=True):
            elements = count * tensor.image_nbytes // tensor.dtype.itemsize
            driver.memcpy_dtoh_async(host[:elements], self.addresses[tensor.name], stream)

    def finish(self) -> int:
        """Block until the batch is done and read its times; returns how many images it had."""
        if not self._count:
            raise EngineError("wait() called on a slot that was not submitted")
        count, self._count = self._count, 0
        with self.network.arena.active("finish a batch"):
            self._marks.done.synchronize()
            self.times = self._marks.times()
        return count

    def maps(self, count: int) -> RawOutputs:
        """The network's maps where ``submit`` put them."""
        return RawOutputs(
            *(
                host[: count * tensor.image_nbytes // tensor.dtype.itemsize].reshape(count, *tensor.shape[1:])
                for tensor, host in zip(self.network.outputs, self._host, strict=True)
            )
        )

    def fetch(self, count: int) -> RawOutputs:
        """The network's maps of a batch that is done, copied from the GPU now."""
        with self.network.arena.active("fetch the network's maps"):
            self._download(count, self.network.download)
            self.network.download.synchronize()
        return self.maps(count)

    def wait(self) -> RawOutputs:
        """Block until done; views into page-locked memory."""
        return self.maps(self.finish())

    def close(self) -> None:
        """Drop graph and context, and what was submitted."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = None
        self._count = 0


class TrtEngine:
    """Runs ``plan`` on its GPU.

    Args:
        graphs: capture the network as a CUDA graph.

    Raises:
        EngineError: no GPU, the plan does not load, or memory is short; nothing is left allocated.
    """

    def __init__(self, plan: Plan, model: Model, options: EngineOptions, graphs: bool = True) -> None:
        self.network = Network(plan, model, options.gpu_id)
        self.slots: Sequence[TrtSlot] = ()
        try:
            with self.network.arena.active("allocate the engine's buffers"):
                self.slots = [TrtSlot(self.network, graphs) for _ in range(max(options.slots, SLOTS))]
        except BaseException:
            self.close()
            raise
        key, gpu = plan.key, self.network.gpu
        device = f"{gpu.name} ({gpu.architecture})"
        self.info = EngineInfo("tensorrt", key.precision, device, key.tensorrt, key=key.text, on_gpu=True)
        self._cache_dir = options.cache_dir

    def stages(self, labels: LabelSet, options: FusionOptions, allocate: Allocator) -> Stages[Any, Any]:
        """Letterbox and fusion on the GPU; on the CPU where the kernels cannot be had, and ``info`` says why.

        Raises:
            EngineError: memory is short.
        """
        from drive_seg.engines import kernels
        from drive_seg.engines.device_stages import DeviceStages, load_kernels

        image = self.network.tensors[0].shape
        try:
            cubin = kernels.cubin(self.network.gpu.capability, self._cache_dir)
            functions = load_kernels(self.network.arena, cubin)
        except EngineLost:
            raise
        except EngineError as error:
            why = f"the CPU does letterbox and fusion: {error}"
            _log.warning("%s", why)
            self.info = replace(self.info, reason="; ".join(filter(None, (self.info.reason, why))))
            return HostStages(labels, (image[2], image[1]), options, allocate)
        return DeviceStages(self.network, self.slots, labels, options, allocate, functions)

    def close(self) -> None:
        """Let running batches end, then free everything; a second call does nothing."""
        slots, self.slots = self.slots, ()
        if self.network.arena.closed:
            return
        try:
            with self.network.arena.active("close the engine"):
                try:
                    self.network.drain()
                finally:
                    for slot in slots:
                        slot.close()
        except EngineError as error:
            _log.warning("%s", error)
        self.network.close()

    def __enter__(self) -> TrtEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _nothing(stream: Any) -> None:
    """The CPU does it."""
