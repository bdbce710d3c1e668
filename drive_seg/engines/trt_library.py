"""The one door to the ``tensorrt`` package, for the builder and the runtime; versions 8.6, 10 and 11."""

from __future__ import annotations

import functools
import logging
import threading
from collections import deque
from typing import Any

from drive_seg.engines.driver import Gpu, find_gpu
from drive_seg.errors import EngineError, MissingDependency, pip_install

INSTALL = pip_install(extra="gpu")

_log = logging.getLogger(__name__)
_making = threading.Lock()


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


class Said:
    """What TensorRT complains of from now on: its calls only say "failed".

    Attributes:
        logger: for TensorRT, which wants one for the whole process and goes on using the first that it was given, also
            when what that was given for is gone.
    """

    def __init__(self, trt: Any) -> None:
        with _making:
            self.logger = _logger(trt)
        self._errors: int = self.logger.count
        self._warnings: int = self.logger.warned

    def reason(self) -> str:
        """The last errors in one line; without any, as when CUDA does not start under 8.6, the last warning.

        That memory is short is a warning too, and what comes of it an error: "could not find any implementation".
        """
        new = self.logger.count - self._errors
        warning = self.logger.warning if self.logger.warned > self._warnings else ""
        if not new:
            return "TensorRT gave no reason" + (f", but warned: {warning}" if warning else "")
        about_memory = [warning] if "memory" in warning.lower() else []
        return " | ".join([*self.logger.errors][-new:] + about_memory)


@functools.lru_cache(maxsize=1)
def _logger(trt: Any) -> Any:
    """Writes to Python's log, and counts and keeps the errors and the last warning."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=3)
            self.count = 0
            self.warning = ""
            self.warned = 0

        def log(self, severity: Any, message: str) -> None:
            message = " ".join(message.split())  # some have several lines
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message)
                self.count += 1
                _log.error("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                self.warning = message
                self.warned += 1
                _log.warning("TensorRT: %s", message)
            else:
                _log.debug("TensorRT: %s", message)

    return Logger()
