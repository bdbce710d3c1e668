"""Who may touch a pipeline: one thread at a time, of the process that opened it, until it is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from drive_seg.engines import Slot
from drive_seg.errors import EngineError


class Turns:
    """What a pipeline shares with its batches.

    Attributes:
        free: slots that no batch is in.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.free = list(slots)
        self._closed = False
        self._process = os.getpid()
        self._lock = threading.RLock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Keep other threads out: slots, scratch memory and trackers are one thread's at a time.

        Raises:
            EngineError: the pipeline is closed, or of another process.
        """
        if self._process != os.getpid():  # first: a thread that was not forked may hold the lock for ever
            raise EngineError(
                "the pipeline was opened in another process, and its engine's threads did not come along in the fork: "
                "open one in each process"
            )
        with self._lock:
            if self._closed:
                raise EngineError("the pipeline is closed: open another one")
            yield

    @contextmanager
    def end(self) -> Iterator[bool]:
        """The last turn: whether there is something to close. In a forked process there is not. No slot, and with it no
        engine, is held any more by who still holds the pipeline."""
        if self._process != os.getpid():
            yield False
            return
        with self._lock:
            open_, self._closed = not self._closed, True
            self.free.clear()
            yield open_
