"""A TensorRT plan on its GPU, and the three streams it is fed and drained on: what all slots of an engine share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from drive_seg.engines.cuda import Arena
from drive_seg.engines.plan_cache import Plan
from drive_seg.engines.trt_library import Said, load_tensorrt
from drive_seg.errors import EngineError, PlanRefused
from drive_seg.model import Model

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tensor:
    """One input or output of the network, for the largest batch."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @cached_property
    def nbytes(self) -> int:
        """Of the largest batch."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @cached_property
    def image_nbytes(self) -> int:
        """Of one image."""
        return self.nbytes // self.shape[0]


class Network:
    """A deserialised plan and the streams it runs on; what all slots share.

    Raises:
        EngineError: the plan does not load here, or is not one of this model.
    """

    def __init__(self, plan: Plan, model: Model, gpu_id: int) -> None:
        self.trt, self.gpu = load_tensorrt(gpu_id)
        self.max_batch = plan.key.batch
        self.model = model
        self.arena = Arena(gpu_id)
        self.said = Said(self.trt)
        self._runtime: Any = None
        self._engine: Any = None
        self._loose: Any = None
        self.upload: Any = None
        self.compute: Any = None
        self.download: Any = None
        try:
            with self.arena.active("load the engine"):
                self.upload, self.compute, self.download = (self.arena.stream() for _ in range(3))
                self.upload.synchronize()  # on a GPU that is lost this raises, where 8.6's Runtime ends the process
                self._runtime = self._new_runtime()
                self._engine = self._runtime.deserialize_cuda_engine(plan.data)
                if self._engine is None:
                    raise self._refusal(plan)
                self.tensors = self._checked_tensors(plan)
                if self.max_batch > 1:
                    self._loose = self.context()
        except BaseException:
            self.close()
            raise

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """semantic, confidence, centers, offsets."""
        return self.tensors[1:]

    def _refusal(self, plan: Plan) -> EngineError:
        reason = self.said.reason()
        kind = EngineError if "memory" in reason.lower() else PlanRefused  # with more memory it would load
        return kind(f"TensorRT cannot load the plan of {plan.key.text}: {reason}")

    def _new_runtime(self) -> Any:
        try:
            return self.trt.Runtime(self.said.logger)
        except TypeError as error:  # what the binding makes of a null pointer
            raise EngineError(f"TensorRT cannot make a runtime: {self.said.reason()}") from error

    def _checked_tensors(self, plan: Plan) -> tuple[Tensor, ...]:
        names = self.model.outputs
        expected = {
            self.model.input_name: np.uint8,
            names.semantic: np.uint8,
            names.confidence: np.uint8,
            names.centers: np.float32,
            names.offsets: np.float32,
        }
        there = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        if set(there) != set(expected):
            raise EngineError(f"the plan of {plan.key.text} has tensors {sorted(there)}, expected {sorted(expected)}")
        image = (self.max_batch, plan.key.height, plan.key.width, 3)
        shapes = self._shapes(image, list(expected))
        if shapes is None:
            raise EngineError(f"the plan of {plan.key.text} does not take {image}: {self.said.reason()}")
        tensors = []
        for name, dtype in expected.items():
            got = np.dtype(self.trt.nptype(self._engine.get_tensor_dtype(name)))
            if got != dtype:
                raise EngineError(f"{name} of the plan of {plan.key.text} is {got}, expected {np.dtype(dtype)}")
            tensors.append(Tensor(name, shapes[name], got))
        return tuple(tensors)

    def _shapes(self, image: tuple[int, ...], names: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
        """Of the tensors ``names`` where the input has the shape ``image``; None where the plan does not take it."""
        shaper = self.context()
        if not shaper.set_input_shape(self.model.input_name, image):
            return None
        return {name: tuple(int(side) for side in shaper.get_tensor_shape(name)) for name in names}

    def context(self) -> Any:
        """An execution context for the plan's one profile; it has scratch memory of its own."""
        context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f"cannot make an execution context: {self.said.reason()}")
        if context.active_optimization_profile != 0:  # 8.6 gives it to the first context only, also where it is shared
            with suppress(RuntimeError):  # what the binding makes of false; such a context refuses every shape
                context.set_optimization_profile_async(0, self.compute.handle)
        return context

    def enqueue(self, context: Any, addresses: dict[str, int], count: int) -> None:
        """Put the network on the compute stream; ``context`` None is the one for odd batches."""
        context = self._loose if context is None else context
        image = self.tensors[0]
        if not context.set_input_shape(image.name, (count, *image.shape[1:])):
            raise EngineError(f"TensorRT refuses a batch of {count}: {self.said.reason()}")
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(f"TensorRT refuses the address of {name}: {self.said.reason()}")
        self.enqueue_again(context, count)

    def enqueue_again(self, context: Any, count: int) -> None:
        """Put the network on the compute stream as it was enqueued last; TensorRT has nothing to prepare for it."""
        if not context.execute_async_v3(self.compute.handle):
            raise EngineError(f"TensorRT could not start a batch of {count}: {self.said.reason()}")

    def drain(self) -> None:
        """Wait until nothing of ours runs."""
        self.upload.synchronize()
        self.compute.synchronize()
        self.download.synchronize()

    def close(self) -> None:
        """Drop context, engine, runtime and streams, then the memory they worked on."""
        if self.arena.closed:
            return
        try:
            with self.arena.active("close the engine"):
                self._loose = None
                self._engine = None
                self._runtime = None
                self.upload = self.compute = self.download = None
        except EngineError as error:
            _log.warning("%s", error)
        self.arena.close()
