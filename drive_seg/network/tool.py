"""The end of a module that is run: ``python -m drive_seg.network.NAME``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from drive_seg.errors import DriveSegError, MissingDependency, pip_install, printable


def run(main: Callable[[], None]) -> None:
    """Call ``main``; what it raises on purpose, and a torch or onnx that is not installed, ends the process with 1 and
    one line instead of a traceback. Modules that need those are therefore imported in ``main``.
    """
    try:
        main()
    except DriveSegError as error:
        _end(error)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("torch", "onnx"):
            raise
        _end(MissingDependency(package, "this command", pip_install(extra="train")))


def _end(error: DriveSegError) -> None:
    sys.exit(f"drive_seg: error: {printable(str(error))}")
