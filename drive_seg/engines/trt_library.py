"""The one door to the ``tensorrt`` package, for the builder and the runtime; versions 8.6, 10 and 11."""

from __future__ import annotations

import logging
from typing import Any

from drive_seg.engines.driver import Gpu, find_gpu
from drive_seg.errors import EngineError, MissingDependency, pip_install

INSTALL = pip_install(extra="gpu")

_log = logging.getLogger(__name__)


def load_tensorrt(gpu_id: int = 0) -> tuple[Any, Gpu]:
    """The module and the GPU it is to work on.

    The driver is asked first: where there is none, using TensorRT ends the process.

    Raises:
        EngineError: no driver, no such GPU, or a TensorRT that is too old or does not load.
        MissingDependency: TensorRT is not installed.
    """
    gpu = find_gpu(gpu_id)
    try:
        import tensorrt as trt
    except ModuleNotFoundError as error:
        raise MissingDependency("tensorrt", "backend tensorrt", INSTALL) from error
    except ImportError as error:
        raise EngineError(f"tensorrt is installed but does not load: {error}") from error
    # New in 8.6, as is sharing a profile: what 8.5 has built for minutes would serve one slot only.
    if not hasattr(trt, "HardwareCompatibilityLevel"):
        version = getattr(trt, "__version__", "a folder of that name")  # which Python takes for a package
        raise EngineError(f"TensorRT 8.6 or newer is needed, got {version}")
    return trt, gpu


def strongly_typed(trt: Any) -> bool:
    """Whether arithmetic is what the graph says (10 and newer) and not the builder's choice (8.6)."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") or not hasattr(trt.BuilderFlag, "FP16")


def new_logger(trt: Any) -> Any:
    """A TensorRT logger that writes to Python's, and keeps its errors in ``.errors``: calls only say "failed"."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
                _log.error("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                _log.warning("TensorRT: %s", message)
            else:
                _log.debug("TensorRT: %s", message)

        def reason(self) -> str:
            """The last errors in one line."""
            return " | ".join(self.errors[-3:]) or "TensorRT gave no reason"

    return Logger()
