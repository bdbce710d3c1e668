"""A GPU that is not there: pycuda's driver and TensorRT's runtime in NumPy, as far as drive_seg uses them.

What it is for is order. Work put on a stream is done only when somebody waits for something, and then in any order
that streams and events allow, drawn at random: a missing event, or a buffer that is used again too early, gives wrong
pixels here. Freed memory cannot be touched, nothing may be used or destroyed outside its context, and what is not freed
is counted. Nobody may wait for the whole context while a graph is captured.
The kernels are the real ones, compiled for the CPU (``cuda_on_cpu``).
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import types
import weakref
from collections import Counter, deque
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import emulator
from numpy.typing import NDArray

from drive_seg.engines import kernels
from drive_seg.engines.driver import Gpu
from drive_seg.frame import RawOutputs

GPU = Gpu(0, "NVIDIA Fake", (9, 0), 132, 80_000, False, "13.0")


class Error(Exception):
    """pycuda.driver.Error."""


class OutOfMemory(Error):
    """pycuda.driver.MemoryError."""


class LaunchError(Error):
    """pycuda.driver.LaunchError."""


class FakeGpu:
    """The device: memory, streams, and what may go wrong.

    Attributes:
        fail_after: so many allocations succeed, then memory is out.
        taken: allocations asked for.
        lost: every call fails from now on.
        unreachable: its context cannot be made current any more.
        futile: what pycuda was made to free on a lost device. It warns of each on the console, and where the context
            cannot be made current for it the process ends.
        during_capture: what other threads do meanwhile.
        refuses: ``module`` (the kernels do not load), ``runtime`` (TensorRT has none) or ``memory`` (for a plan).
        detached: pycuda's destructor of the primary context ran.
        pageable: copies from memory that is not page-locked; they make the host wait.
        network: what the plan computes.
        order: seed of the order in which work is done.
    """

    def __init__(
        self,
        network: Callable[[NDArray[np.uint8]], RawOutputs],
        shape: tuple[int, int],
        seed: int = 0,
        tensorrt: str = "10.3.0",
    ) -> None:
        self.network = network
        self.tensorrt = tensorrt
        self.width, self.height = shape
        self.random = random.Random(seed)
        self.memory: dict[int, NDArray[np.uint8]] = {}
        """By address: that of the host, so that kernels can be run on it."""
        self.pinned: dict[int, int] = {}
        self.streams: weakref.WeakValueDictionary[int, FakeStream] = weakref.WeakValueDictionary()
        self.alive: Counter[str] = Counter()
        self.abandoned: Counter[str] = Counter()
        self.fail_after: int | None = None
        self.taken = 0
        self.lost = self.unreachable = False
        self.futile: Counter[str] = Counter()
        self.refuses = ""
        self.detached = False
        self.pageable = 0
        self.capturing: Capture | None = None
        self.during_capture: Callable[[], None] = lambda: None
        self.can_capture = True
        self.launches: list[str] = []
        self.header_flags = 0
        self._clock = itertools.count(1)
        self.stack = threading.local()
        self.null = FakeStream.null(self)
        """The default stream, which ours do not wait for: what is put on it is late too."""

    # Context.

    def check(self) -> None:
        """Every call needs a current context and a living device."""
        assert getattr(self.stack, "depth", 0) > 0, "no context is current on this thread"
        if self.lost:
            raise LaunchError("unspecified launch failure")

    def destroyed(self, what: str) -> None:
        """Called by finalisers. pycuda only warns where the context is not current, and the thing is there for ever."""
        self.alive[what] -= 1
        if self.lost and what != "contexts":  # those are TensorRT's
            self.futile[what] += 1
        if not self.lost and getattr(self.stack, "depth", 0) == 0:
            self.abandoned[what] += 1

    def synchronize(self) -> None:
        """cuCtxSynchronize. During a capture, whoever's, it is refused, and spoils the capture."""
        self.check()
        if self.capturing is not None:
            self.capturing.spoiled = True
            raise Error("cuCtxSynchronize failed: operation not permitted when stream is capturing")
        self.run_until(lambda: self.idle)

    # Memory.

    def take(self) -> None:
        self.check()
        self.taken += 1
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise OutOfMemory("cuMemAlloc failed: out of memory")
            self.fail_after -= 1

    def view(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """Device memory; it must lie within one living allocation."""
        for base, content in self.memory.items():
            if base <= address < base + max(content.size, 1):
                assert address + nbytes <= base + content.size, "beyond the end of an allocation"
                return content[address - base : address - base + nbytes]
        raise AssertionError(f"address {address:#x} is not allocated")

    # Streams.

    def put(self, stream: FakeStream, work: Callable[[], None]) -> None:
        self.check()
        if self.capturing is not None and self.capturing.stream == stream.handle:
            self.capturing.work.append(work)
        else:
            stream.queue.append((None, work))

    def step(self, only: FakeStream | None = None) -> bool:
        """Do one piece of work that may be done now; False where there is none."""
        ready = [stream for stream in list(self.streams.values()) if stream.ready and only in (None, stream)]
        if not ready:
            return False
        _, work = self.random.choice(ready).queue.popleft()
        if work is not None:
            work()
        return True

    def run_until(self, done: Callable[[], bool]) -> None:
        self.check()
        while not done():
            assert self.step(), "a deadlock: what is waited for is never recorded"

    @property
    def idle(self) -> bool:
        return not any(stream.queue for stream in list(self.streams.values()))

    def tick(self) -> float:
        return float(next(self._clock))

    @property
    def leaks(self) -> str:
        """What was not freed."""
        left = {"memory": len(self.memory), "pinned": len(self.pinned), **self.alive}
        left |= {f"{what} destroyed where no context was current": count for what, count in self.abandoned.items()}
        return ", ".join(f"{count} {what}" for what, count in left.items() if count)


class Capture:
    """Work that is recorded and not done."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.work: list[Callable[[], None]] = []
        self.spoiled = False


class FakeStream:
    @classmethod
    def null(cls, gpu: FakeGpu) -> FakeStream:
        stream = cls.__new__(cls)
        stream.gpu, stream.handle, stream.queue = gpu, 0, deque()
        gpu.streams[0] = stream
        return stream

    def __init__(self, gpu: FakeGpu, flags: int) -> None:
        gpu.take()
        assert flags == 1, "streams must not wait for the default stream"
        self.gpu = gpu
        gpu.alive["streams"] += 1
        weakref.finalize(self, gpu.destroyed, "streams").atexit = False
        self.handle = id(self)
        self.queue: deque[tuple[tuple[FakeEvent, int] | None, Callable[[], None] | None]] = deque()
        gpu.streams[self.handle] = self

    @property
    def ready(self) -> bool:
        if not self.queue:
            return False
        gate = self.queue[0][0]
        return gate is None or gate[0].done >= gate[1]

    def wait_for_event(self, event: FakeEvent) -> None:
        self.gpu.check()
        self.queue.append(((event, event.recorded), None))

    def synchronize(self) -> None:
        self.gpu.run_until(lambda: not self.queue)


class FakeEvent:
    def __init__(self, gpu: FakeGpu, flags: int = 0) -> None:
        gpu.take()
        self.gpu = gpu
        self.waits_asleep = bool(flags & 1)
        gpu.alive["events"] += 1
        weakref.finalize(self, gpu.destroyed, "events").atexit = False
        self.recorded = self.done = 0
        self.time = 0.0

    def record(self, stream: FakeStream) -> None:
        self.recorded += 1
        number = self.recorded

        def mark() -> None:
            self.done, self.time = number, self.gpu.tick()

        self.gpu.put(stream, mark)

    def synchronize(self) -> None:
        assert self.waits_asleep, "a core would do nothing but ask"
        self.gpu.run_until(lambda: self.done >= self.recorded)

    def time_till(self, other: FakeEvent) -> float:
        assert self.done == self.recorded and other.done == other.recorded, "cuEventElapsedTime: not ready"
        return other.time - self.time


class _Pinned:
    def __init__(self, gpu: FakeGpu, nbytes: int) -> None:
        gpu.take()
        self._gpu, self._content = gpu, np.full(nbytes, 0xCD, np.uint8)
        self.__array_interface__ = self._content.__array_interface__
        gpu.pinned[self._content.ctypes.data] = nbytes

    def free(self) -> None:
        if self._gpu.lost:
            self._gpu.futile["pinned"] += 1
        del self._gpu.pinned[self._content.ctypes.data]


class _Allocation:
    def __init__(self, gpu: FakeGpu, nbytes: int) -> None:
        gpu.take()
        self._gpu = gpu
        room = np.full(nbytes + 256, 0xAB, np.uint8)
        self._address = -(-room.ctypes.data // 256) * 256
        gpu.memory[self._address] = room[self._address - room.ctypes.data :][:nbytes]

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        if self._gpu.lost:
            self._gpu.futile["memory"] += 1
        del self._gpu.memory[self._address]


class _Context:
    """The primary context. Its destructor detaches it like one that pycuda made, which the driver refuses."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        weakref.finalize(self, setattr, gpu, "detached", True).atexit = False

    def push(self) -> None:
        if self._gpu.unreachable:
            raise LaunchError("cuCtxPushCurrent failed: unspecified launch failure")
        self._gpu.stack.depth = getattr(self._gpu.stack, "depth", 0) + 1

    def pop(self) -> None:
        assert self._gpu.stack.depth > 0, "popped more often than pushed"
        self._gpu.stack.depth -= 1


def driver_of(gpu: FakeGpu) -> types.ModuleType:
    """``pycuda.driver``."""
    driver = types.ModuleType("pycuda.driver")

    class Context:
        @staticmethod
        def synchronize() -> None:
            gpu.synchronize()

    class Device:
        def __init__(self, index: int) -> None:
            assert index == 0

        def retain_primary_context(self) -> _Context:
            return _Context(gpu)

    def memset(address: int, value: int, count: int, stream: FakeStream) -> None:
        gpu.put(stream, lambda: gpu.view(address, count).fill(value))

    def up(address: int, source: Any, stream: FakeStream) -> None:
        host = _bytes(source)
        if not any(base <= host.ctypes.data < base + size for base, size in gpu.pinned.items()):
            gpu.pageable += 1
            host = host.copy()  # into memory of the driver's; the call returns when this is done
        gpu.put(stream, lambda: np.copyto(gpu.view(address, host.size), host))

    def down(target: Any, address: int, stream: FakeStream) -> None:
        host = _bytes(target)
        assert any(base <= host.ctypes.data < base + size for base, size in gpu.pinned.items()), "not page-locked"
        gpu.put(stream, lambda: np.copyto(host, gpu.view(address, host.size)))

    def down_now(target: Any, address: int) -> None:
        gpu.null.synchronize()
        np.copyto(_bytes(target), gpu.view(address, _bytes(target).size))

    def pagelocked_empty(nbytes: int, dtype: Any) -> NDArray[np.uint8]:
        return np.asarray(_Pinned(gpu, nbytes))

    driver.__dict__.update(
        Error=Error,
        MemoryError=OutOfMemory,
        LaunchError=LaunchError,
        Context=Context,
        Device=Device,
        Stream=lambda flags=0: FakeStream(gpu, flags),
        Event=lambda flags=0: FakeEvent(gpu, flags),
        event_flags=types.SimpleNamespace(DEFAULT=0, BLOCKING_SYNC=1),
        init=lambda: None,
        pagelocked_empty=pagelocked_empty,
        mem_alloc=lambda nbytes: _Allocation(gpu, nbytes),
        mem_get_info=lambda: (1 << 30, 80 << 30),
        memset_d8_async=memset,
        memcpy_htod_async=up,
        memcpy_dtoh_async=down,
        memcpy_dtoh=down_now,
        module_from_buffer=lambda cubin: _Module(gpu),
    )
    return driver


def _bytes(array: Any) -> NDArray[np.uint8]:
    assert array.flags.c_contiguous
    return np.asarray(array).reshape(-1).view(np.uint8)


class _Module:
    def __init__(self, gpu: FakeGpu) -> None:
        gpu.check()
        self._gpu = gpu
        gpu.alive["modules"] += 1
        weakref.finalize(self, gpu.destroyed, "modules").atexit = False

    def get_function(self, name: str) -> _Function:
        if self._gpu.refuses == "module":
            raise Error("cuModuleGetFunction failed: no kernel image is available for execution on the device")
        return _Function(self, self._gpu, name)


class _Function:
    """A kernel, run on the CPU from its CUDA source."""

    def __init__(self, module: _Module, gpu: FakeGpu, name: str) -> None:
        self._module, self._gpu, self._name = module, gpu, name

    def prepare(self, arguments: str) -> None:
        assert arguments == "P"

    def prepared_async_call(self, grid: Any, block: Any, stream: FakeStream, frames: int) -> None:
        gpu = self._gpu
        assert all(isinstance(side, int) and side > 0 for side in (*grid, *block)) and len(grid) == len(block) == 3

        def work() -> None:
            gpu.launches.append(self._name)
            records = gpu.view(frames, grid[2] * kernels.FRAME.itemsize).view(kernels.FRAME)
            extent = kernels.Extent(kernels.Sizes((32, 32), (32, 32), (8, 8), 0), grid[2], (1, 1), (1, 1))
            emulator().launch(kernels.Kernel(self._name, block, lambda _: grid), records, extent)
            if self._name == kernels.FUSION[-1].name:
                for record in records:
                    header = gpu.view(int(record["header"]), kernels.HEADER.itemsize).view(kernels.HEADER)
                    header["flags"] |= gpu.header_flags

        gpu.put(stream, work)


class FakeGraph:
    """``drive_seg.engines.cuda_graph.CudaGraph``; that one is tried in test_cuda_graph.py."""

    gpu: FakeGpu

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        from drive_seg.errors import EngineError

        if not self.gpu.can_capture:
            raise EngineError("CUDA graph: cannot capture this work (CUDA error 901)")
        assert not self.gpu.streams[stream].queue, "the stream must be idle"
        capture = self.gpu.capturing = Capture(stream)
        try:
            enqueue()
            self.gpu.during_capture()
        finally:
            self.gpu.capturing = None
        if capture.spoiled:
            raise EngineError("CUDA graph: cannot capture this work (CUDA error 901)")
        self._work = capture.work
        self.closed = False

    def launch(self, stream: int) -> None:
        assert not self.closed
        for work in self._work:
            self.gpu.put(self.gpu.streams[stream], work)
        self.gpu.put(self.gpu.streams[stream], lambda: self.gpu.launches.append("graph"))

    def close(self) -> None:
        self.closed = True


def tensorrt_of(gpu: FakeGpu) -> types.ModuleType:
    """``tensorrt``, the runtime side. Plans begin with ``FAKE``; those of 8.6 say ``sharing`` where they were built so.

    In 8.6 the first context gets the one profile by itself. Those made while it lives have to ask for it, which needs
    such a plan, or they take no shape (NvInferRuntime.h of 8.6, getOptimizationProfile).
    The first run of a context after a shape was set allocates, which no capture survives (NvInferRuntime.h, enqueueV2).
    While there is any runtime, the first one's logger is everybody's, and another one is warned about.
    """
    trt = types.ModuleType("tensorrt")
    is_old = gpu.tensorrt.startswith("8.")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def __init__(self) -> None: ...

    names = ("image", "semantic", "confidence", "centers", "offsets")

    class ExecutionContext:
        def __init__(self, logger: Any, profile: int, profile_is_free: bool) -> None:
            gpu.alive["contexts"] += 1
            weakref.finalize(self, gpu.destroyed, "contexts").atexit = False
            self._logger = logger
            self.active_optimization_profile, self._profile_is_free = profile, profile_is_free
            self._shape: tuple[int, ...] = ()
            self._is_set_up = False
            self._addresses: dict[str, int] = {}

        def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
            assert profile == 0 and stream in gpu.streams
            if not self._profile_is_free:
                self._logger.log(ILogger.ERROR, "Profile 0 has been chosen by another IExecutionContext.")
                raise RuntimeError("Error in set optimization profile async.")
            self.active_optimization_profile = profile
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            if self.active_optimization_profile != 0:
                self._logger.log(ILogger.ERROR, "IExecutionContext::setInputShape: no optimization profile is set")
                return False
            self._shape, self._is_set_up = shape, False
            return name == "image" and shape[1:] == (gpu.height, gpu.width, 3)

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            n, height, width, _ = self._shape
            cells = height // 4, width // 4
            maps = (n, height, width)
            return dict(zip(names, (self._shape, maps, maps, (n, 3, *cells), (n, 2, *cells)), strict=True))[name]

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            if gpu.capturing is not None and gpu.capturing.stream == stream and not self._is_set_up:
                self._logger.log(ILogger.ERROR, "Cuda Runtime (operation not permitted when stream is capturing)")
                return False
            self._is_set_up = True
            shape, addresses = self._shape, dict(self._addresses)

            def work() -> None:
                gpu.launches.append("network")
                image = gpu.view(addresses["image"], int(np.prod(shape))).reshape(shape).copy()
                raw = gpu.network(image)
                for name in names[1:]:
                    flat = np.ascontiguousarray(getattr(raw, name)).reshape(-1).view(np.uint8)
                    gpu.view(addresses[name], flat.size)[:] = flat

            gpu.put(gpu.streams[stream], work)
            return True

    class Engine:
        num_io_tensors = len(names)

        def get_tensor_name(self, index: int) -> str:
            return names[index]

        def get_tensor_dtype(self, name: str) -> str:
            return "float32" if name in ("centers", "offsets") else "uint8"

        def __init__(self, logger: Any, plan: bytes) -> None:
            self._logger = logger
            self._shares = not is_old or b"sharing" in plan
            self._contexts: weakref.WeakSet[ExecutionContext] = weakref.WeakSet()

        def create_execution_context(self) -> Any:
            try:
                gpu.take()
            except OutOfMemory:
                self._logger.log(ILogger.ERROR, "defaultAllocator: out of memory")
                return None
            is_first = all(context.active_optimization_profile for context in self._contexts)
            context = ExecutionContext(
                self._logger, 0 if is_first or not is_old else -1, profile_is_free=is_first or self._shares
            )
            self._contexts.add(context)
            return context

    runtimes: weakref.WeakSet[Runtime] = weakref.WeakSet()
    everybodys: list[weakref.ref[Any]] = []

    class Runtime:
        def __init__(self, logger: Any) -> None:
            assert not gpu.lost, "TensorRT 8.6 ends the process"
            gpu.check()
            if not runtimes:
                everybodys[:] = [weakref.ref(logger)]
            heard = everybodys[0]()
            assert heard is not None, "TensorRT writes to a logger that is gone"
            if heard is not logger:
                heard.log(ILogger.WARNING, "The logger passed into createInferRuntime differs from an existing one")
            runtimes.add(self)
            if gpu.refuses == "runtime":
                logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            if gpu.refuses == "memory":
                self._logger.log(ILogger.ERROR, "Requested amount of GPU memory could not be allocated: out of memory")
                return None
            if plan.startswith(b"FAKE"):
                return Engine(self._logger, plan)
            self._logger.log(ILogger.ERROR, "magic tag does not match")
            return None

    class IExecutionContext:
        execute_async_v3 = None

    trt.__spec__ = ModuleSpec("tensorrt", None)
    trt.__dict__.update(
        __version__=gpu.tensorrt,
        ILogger=ILogger,
        Runtime=Runtime,
        IExecutionContext=IExecutionContext,
        nptype=np.dtype,
        NetworkDefinitionCreationFlag=types.SimpleNamespace(**{"EXPLICIT_BATCH" if is_old else "STRONGLY_TYPED": 0}),
        BuilderFlag=types.SimpleNamespace(FP16=0),
    )
    if not gpu.tensorrt.startswith("8.5"):
        trt.__dict__.update(HardwareCompatibilityLevel=None)
    return trt


def install(gpu: FakeGpu, patch: pytest.MonkeyPatch) -> None:
    """Make ``gpu`` the machine's only one, for this test."""
    from drive_seg.engines import cuda, registry, trt, trt_library

    driver = driver_of(gpu)
    package = types.ModuleType("pycuda")
    package.__spec__ = ModuleSpec("pycuda", None)
    package.driver = driver  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "pycuda", package)
    patch.setitem(sys.modules, "pycuda.driver", driver)
    patch.setitem(sys.modules, "tensorrt", tensorrt_of(gpu))
    for module in (cuda, registry, trt_library):
        patch.setattr(module, "find_gpu", lambda index=0: GPU)
    patch.setattr(cuda, "_contexts", {})
    patch.setattr(trt, "CudaGraph", type("Graph", (FakeGraph,), {"gpu": gpu}))
    patch.setattr(kernels, "cubin", lambda capability, cache: b"cubin")
