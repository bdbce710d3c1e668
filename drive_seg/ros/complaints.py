"""Errors of a 30 Hz stream, in a log that stays readable: one line per camera and kind each second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from drive_seg.errors import DriveSegError, MalformedImage, counted

_PERIOD_S = 1.0


@dataclass
class _Stream:
    said_at: float = float("-inf")
    unsaid: int = 0


class Complaints:
    """Logs lost frames with their number, at most once a second per camera and kind of error. Thread-safe.

    Args:
        logger: a node's logger.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._streams: dict[tuple[str, type], _Stream] = {}

    def add(self, camera: str, error: DriveSegError) -> None:
        """A frame of ``camera`` was lost to ``error``."""
        now = time.monotonic()
        with self._lock:
            stream = self._streams.setdefault((camera, type(error)), _Stream())
            stream.unsaid += 1
            if now - stream.said_at < _PERIOD_S:
                return
            count, stream.unsaid, stream.said_at = stream.unsaid, 0, now
        images = counted(count, "image")
        if isinstance(error, MalformedImage):
            self._logger.warning(f"camera {camera}: {images} dropped as malformed, the last: {error}")
        else:
            self._logger.error(f"camera {camera}: {images} lost: {error}")
