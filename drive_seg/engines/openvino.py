"""OpenVINO on the CPU: bf16 where the processor has it, else int8 where it and the model have that, else fp32."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from drive_seg.engines.foreign import tensors_of
from drive_seg.engines.instructions import has_vnni
from drive_seg.engines.ports import Port, check_ports
from drive_seg.engines.protocol import EngineInfo, EngineOptions
from drive_seg.engines.signal_stack import kept_signal_stack
from drive_seg.engines.threads import cpu_share, giving_way, require_process
from drive_seg.errors import EngineError, MissingDependency, one_line, pip_install
from drive_seg.frame import RawOutputs
from drive_seg.model import Model
from drive_seg.privacy import without_reporter

_KEPT = 32
"""Compiled networks in the cache: one for each model, size, batch, precision and number of threads, some 10 MB each."""


class OpenVinoSlot:
    """One infer request; its input tensor shares memory with ``input``."""

    def __init__(self, ov: Any, compiled: Any, model: Model, max_batch: int) -> None:
        self.input = np.zeros((max_batch, model.height, model.width, 3), np.uint8)
        self._request = compiled.create_infer_request()
        self._tensors = tensors_of(model, self.input)
        # One tensor over the memory of what is fed for every batch size, made once.
        fed = self._tensors.fed
        self._batches = [ov.Tensor(fed[:count], shared_memory=True) for count in range(1, max_batch + 1)]
        self._input_name, self._outputs = model.input_name, model.output_names
        self._started = False
        self._busy = False
        self._process = os.getpid()

    def submit(self, count: int) -> None:
        """Start the request."""
        require_process(self._process)
        self._tensors.write(count)
        if self._busy:  # Ctrl-C ended the wait for a batch before the batch
            with suppress(RuntimeError):  # that one's error
                self._request.wait()
        self._busy = True
        try:
            self._request.set_tensor(self._input_name, self._batches[count - 1])
            self._request.start_async()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO could not start a batch of {count}: {one_line(error)}") from error
        self._started = True

    def wait(self) -> RawOutputs:
        """Block until done; GIL released meanwhile."""
        require_process(self._process)
        if not self._started:
            raise EngineError("wait() called on a slot that was not submitted")
        self._started = False
        try:
            self._request.wait()
            self._busy = False
            return self._tensors.read(*(self._request.get_tensor(name).data for name in self._outputs))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {one_line(error)}") from error


class OpenVinoEngine:
    """Compiles the graph of ``model`` for this CPU, or loads it from ``options.cache_dir``."""

    def __init__(self, model: Model, options: EngineOptions) -> None:
        try:
            with without_reporter():
                import openvino as ov
        except ImportError as error:
            raise MissingDependency("openvino", "backend openvino", pip_install("openvino")) from error
        with kept_signal_stack():
            self._open(ov, model, options)

    def _open(self, ov: Any, model: Model, options: EngineOptions) -> None:
        core = ov.Core()
        # Asked for fp32, it computes in fp32; every other graph may be rounded further where that is faster.
        bf16 = options.precision != "fp32" and has_bf16(core)
        graph = _graph_for(model, bf16) if options.precision == "auto" else options.precision
        path = model.graph(graph)
        share = cpu_share(options)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY" if share.streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": share.streams,
            "INFERENCE_NUM_THREADS": share.threads,
            "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        }
        # Without a home or on a read-only disk it is compiled every time, in a second; OpenVINO itself would give up.
        if options.cache_dir is not None and _made(options.cache_dir / "openvino"):
            settings["CACHE_DIR"] = str(options.cache_dir / "openvino")
        try:
            network = core.read_model(path)
            inputs, outputs = ([_port(node) for node in nodes] for nodes in (network.inputs, network.outputs))
            check_ports(model, graph, inputs, outputs, options.max_batch, reshapes=True)
            batch: int | Any = 1 if options.max_batch == 1 else ov.Dimension(1, options.max_batch)
            network.reshape({model.input_name: ov.PartialShape(model.input_shape(batch))})
            with giving_way(share):
                compiled = core.compile_model(network, "CPU", settings)
            if "CACHE_DIR" in settings:
                _prune(Path(settings["CACHE_DIR"]))
            slots = [OpenVinoSlot(ov, compiled, model, options.max_batch) for _ in range(share.slots)]
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot compile {path}: {one_line(error)}") from error
        self.slots: Sequence[OpenVinoSlot] = slots
        self._process = os.getpid()
        device = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        precision = "bf16" if bf16 and options.precision == "auto" else graph
        self.info = EngineInfo("openvino", precision, device, ov.__version__.split("-")[0])

    def close(self) -> None:
        """Drop the requests; the compiled network goes with the last of them, and waits for its threads: not in a
        forked process, where there are none."""
        if os.getpid() == self._process:
            self.slots = ()

    def __enter__(self) -> OpenVinoEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _port(node: Any) -> Port:
    shape = node.get_partial_shape()
    sides = (side.get_length() if side.is_static else None for side in shape) if shape.rank.is_static else ()
    return Port(tuple(sorted(node.get_names())), node.get_element_type().get_type_name(), tuple(sides))


def has_bf16(core: Any) -> bool:
    """Whether OpenVINO computes in bf16 on this processor (AMX, AVX-512 bf16)."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _graph_for(model: Model, bf16: bool) -> str:
    """What ``auto`` takes: int8 halves the time of fp32 and costs a little steadiness; over bf16 it gains an eighth."""
    return "int8" if not bf16 and "int8" in model.precisions and has_vnni() else model.precisions[0]


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def _prune(cache: Path) -> None:
    """Remove what was not used for longest: OpenVINO itself keeps what earlier versions and models left for ever."""
    with suppress(OSError):  # another process prunes as well, or the disk may only be read
        blobs = {blob: max(blob.stat().st_atime, blob.stat().st_mtime) for blob in cache.glob("*.blob")}
        for blob in sorted(blobs, key=blobs.__getitem__, reverse=True)[_KEPT:]:
            blob.unlink()
