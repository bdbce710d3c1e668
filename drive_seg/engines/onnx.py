"""ONNX Runtime on the CPU: runs anywhere, fp32."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from drive_seg.engines.foreign import tensors_of
from drive_seg.engines.ports import Port, check_ports
from drive_seg.engines.protocol import EngineInfo, EngineOptions
from drive_seg.engines.threads import cpu_share, give_way, giving_way, require_process
from drive_seg.errors import EngineError, MissingDependency, one_line, pip_install
from drive_seg.frame import RawOutputs
from drive_seg.model import Model
from drive_seg.privacy import forbid_reports


class OnnxSlot:
    """Runs the session on a thread of the engine; ONNX Runtime releases the GIL meanwhile."""

    def __init__(self, session: Any, model: Model, executor: ThreadPoolExecutor, max_batch: int) -> None:
        self.input = np.zeros((max_batch, model.height, model.width, 3), np.uint8)
        self._session = session
        self._executor = executor
        self._tensors = tensors_of(model, self.input)
        self._input_name, self._outputs = model.input_name, model.output_names
        self._running: Future[list[Any]] | None = None
        self._process = os.getpid()

    def submit(self, count: int) -> None:
        """Queue the batch."""
        require_process(self._process)
        self._tensors.write(count)
        feed = {self._input_name: self._tensors.fed[:count]}
        self._running = self._executor.submit(self._session.run, self._outputs, feed)

    def wait(self) -> RawOutputs:
        """Block until done."""
        require_process(self._process)
        if self._running is None:
            raise EngineError("wait() called on a slot that was not submitted")
        running, self._running = self._running, None
        try:
            return self._tensors.read(*running.result())
        except EngineError:
            raise
        except Exception as error:  # onnxruntime raises types of its extension module that share no public base
            raise EngineError(f"ONNX Runtime failed: {one_line(error)}") from error


class OnnxEngine:
    """Opens the fp32 (or, when asked for, fp16 or int8) graph of ``model``."""

    def __init__(self, model: Model, options: EngineOptions) -> None:
        forbid_reports()
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependency("onnxruntime", "backend onnxruntime", pip_install("onnxruntime")) from error
        precision = model.precisions[0] if options.precision == "auto" else options.precision
        settings = ort.SessionOptions()
        share = cpu_share(options)
        settings.intra_op_num_threads = max(1, share.threads // share.streams)
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        path = model.graph(precision)
        try:
            with giving_way(share):
                session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # see OnnxSlot.wait
            raise EngineError(f"ONNX Runtime cannot load {path}: {one_line(error)}") from error
        inputs, outputs = ([_port(node) for node in nodes] for nodes in (session.get_inputs(), session.get_outputs()))
        check_ports(model, precision, inputs, outputs, options.max_batch, reshapes=False)
        start = give_way if share.streams > 1 else None
        self._executor = ThreadPoolExecutor(share.streams, thread_name_prefix="onnxruntime", initializer=start)
        self.info = EngineInfo("onnxruntime", precision, "CPU", ort.__version__)
        self.slots: Sequence[OnnxSlot] = [
            OnnxSlot(session, model, self._executor, options.max_batch) for _ in range(share.slots)
        ]

    def close(self) -> None:
        """Let running batches end, then drop the session."""
        self._executor.shutdown(wait=True)
        self.slots = ()

    def __enter__(self) -> OnnxEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _port(node: Any) -> Port:
    """Of ``tensor(float)`` and ``['N', 3, 384, 640]``."""
    shape = (side if isinstance(side, int) else None for side in node.shape)
    return Port((node.name,), node.type.removeprefix("tensor(").removesuffix(")"), tuple(shape))
