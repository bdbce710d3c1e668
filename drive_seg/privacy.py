"""Nobody is told what runs here: libraries that report their use to their makers are kept from it.

By default ONNX Runtime (since 1.29) sends its sessions to Microsoft and OpenVINO every import to Google Analytics, each
with an id that it keeps in the home folder, and Ray its clusters to ray.io. A vehicle has no business with any of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_REPORTER = "openvino_telemetry"


def forbid_reports() -> None:
    """Set what ONNX Runtime and Ray ask for when they start, unless the user has said something else: call it before
    they are imported."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@contextmanager
def without_reporter() -> Iterator[None]:
    """Import OpenVINO in here: without the package that reports it takes a stub of its own. (It knows no variable, and
    the reporter forks a process in the middle of ours.)"""
    if _REPORTER in sys.modules:  # whoever imported it before us wanted it
        yield
        return
    sys.modules[_REPORTER] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        yield
    finally:
        del sys.modules[_REPORTER]
