"""Which backends there are, why one is unavailable, and what ``auto`` picks."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace

from drive_seg.engines.driver import find_gpu
from drive_seg.engines.protocol import Engine, EngineOptions
from drive_seg.errors import ConfigError, EngineError, pip_install
from drive_seg.frame import RawOutputs
from drive_seg.labels import UNLABELLED
from drive_seg.model import Model


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be opened on this machine, and why not (with the fix)."""

    backend: str
    available: bool
    reason: str


def _open_openvino(model: Model, options: EngineOptions) -> Engine:
    from drive_seg.engines.openvino import OpenVinoEngine

    return OpenVinoEngine(model, options)


def _open_onnxruntime(model: Model, options: EngineOptions) -> Engine:
    from drive_seg.engines.onnx import OnnxEngine

    return OnnxEngine(model, options)


def _open_tensorrt(model: Model, options: EngineOptions) -> Engine:
    from drive_seg.engines.planned import open_tensorrt

    return open_tensorrt(model, options)


_OPENERS: dict[str, Callable[[Model, EngineOptions], Engine]] = {
    "tensorrt": _open_tensorrt,
    "openvino": _open_openvino,
    "onnxruntime": _open_onnxruntime,
}
BACKENDS = tuple(_OPENERS)
"""The backends in the order in which ``auto`` tries them."""


def availability(gpu_id: int = 0) -> list[Availability]:
    """One line per backend, in the order of ``BACKENDS``; opens nothing."""
    rows = [_tensorrt_row(gpu_id)]
    for backend in BACKENDS[1:]:
        if importlib.util.find_spec(backend) is None:
            rows.append(Availability(backend, False, f"not installed; {pip_install(backend)}"))
        else:
            rows.append(Availability(backend, True, "installed"))
    return rows


def _tensorrt_row(gpu_id: int) -> Availability:
    """The driver is asked too, and first: without it the packages are of no use, and dangerous to touch."""
    try:
        gpu = find_gpu(gpu_id)
    except EngineError as error:
        return Availability("tensorrt", False, str(error))
    missing = [name for name in ("tensorrt", "pycuda") if importlib.util.find_spec(name) is None]
    if missing:
        install = pip_install(extra="gpu")
        if gpu.integrated:  # PyPI's is made for the drivers of servers, not for JetPack's
            install = (
                "on a Jetson `sudo apt install python3-libnvinfer` is TensorRT, which a virtual environment sees with "
                f"--system-site-packages; the rest: {pip_install('pycuda>=2025.1.2', 'onnx')}"
            )
        reason = f"{gpu.name} is there, but {' and '.join(missing)} not installed; {install}"
        return Availability("tensorrt", False, reason)
    return Availability("tensorrt", True, f"installed, on {gpu.name}")


def open_engine(model: Model, backend: str = "auto", options: EngineOptions = EngineOptions()) -> Engine:
    """Open ``model`` on ``backend``; ``auto`` takes the first that works and tells why in ``engine.info.reason``.

    ``auto`` never compiles for minutes: it takes TensorRT where its engine is in the cache already.

    Raises:
        ConfigError: no such backend.
        EngineError: it (or, for ``auto``, every one) cannot be opened; the message has every reason.
        ModelError: the model's file is missing or damaged.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise ConfigError(f"backend must be auto or one of {', '.join(BACKENDS)}, got '{backend}'")
        if backend == "tensorrt" and not (row := _tensorrt_row(options.gpu_id)).available:
            raise EngineError(f"backend tensorrt is unavailable: {row.reason}")
        return _open_warm(backend, model, options, f"{backend} was asked for")
    passed: list[str] = []
    options = replace(options, build=False)
    for row in availability(options.gpu_id):
        if not row.available:
            passed.append(f"{row.backend}: {row.reason}")
            continue
        try:
            return _open_warm(row.backend, model, options, "; ".join([*passed, f"{row.backend}: first that works"]))
        except EngineError as error:
            passed.append(f"{row.backend}: {error}")
    raise EngineError(f"no backend can run {model.name}: {'; '.join(passed)}")


def _open_warm(backend: str, model: Model, options: EngineOptions, reason: str) -> Engine:
    """Open and run every slot once: the first inference is many times slower, and would cost live frames."""
    engine = _OPENERS[backend](model, options)
    try:
        for slot in engine.slots:
            for count in {1, options.max_batch}:
                slot.submit(count)
                _check_maps(slot.wait(), model, count)
    except EngineError:
        engine.close()
        raise
    engine.info = replace(engine.info, reason=reason)
    return engine


def _check_maps(maps: RawOutputs, model: Model, count: int) -> None:
    """See that the network's answer is one that post-processing can use: later it would fail on a live frame.

    Raises:
        EngineError: it is not.
    """
    things, (images, height, width) = [label.name for label in model.labels.things], maps.semantic.shape
    if images != count:
        raise EngineError(f"{model.path}: a batch of {count} got {images} answers; is a batch size fixed in the graph?")
    stride = model.height // height if height else 0
    if not stride or (height * stride, width * stride) != (model.height, model.width):
        raise EngineError(
            f"{model.path}: output {model.outputs.semantic} is {width}x{height}, expected {model.width}x{model.height} "
            "or a whole fraction of it"
        )
    if maps.centers.shape[1] != len(things):
        raise EngineError(
            f"{model.path}: output {model.outputs.centers} has {maps.centers.shape[1]} channels, expected "
            f"{len(things)}, one for each label that is a thing ({', '.join(things)}); correct `labels: thing`"
        )
    classes = maps.semantic[(maps.semantic >= len(model.labels)) & (maps.semantic != UNLABELLED)]
    if classes.size:
        raise EngineError(
            f"{model.path}: output {model.outputs.semantic} has class {classes.max()}, `labels:` end with "
            f"{len(model.labels) - 1}"
        )
