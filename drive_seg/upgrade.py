"""A better engine, made on a thread of its own while another one serves; the worker changes over between two frames."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from drive_seg.errors import DriveSegError
from drive_seg.pipeline import Pipeline

Step = Callable[[str, int, int], None]
"""``step(phase, done, total)``; ``total`` is 0 where it is not known."""
Make = Callable[[Step, Callable[[], bool]], Pipeline]
"""``make(step, cancelled)`` gives the better pipeline, warm; it should look at ``cancelled()`` now and then."""


@dataclass(frozen=True)
class Better:
    """What can be made, in words for people, and what makes it."""

    what: str
    make: Make


_log = logging.getLogger(__name__)

_SIGN_OF_LIFE_S = 1.0


@dataclass(frozen=True)
class Progress:
    """How far it is. ``trouble`` says why it failed, ``done`` that the better engine serves."""

    what: str
    phase: str = "starting"
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    trouble: str = ""
    done: bool = False

    @property
    def text(self) -> str:
        """One line for people."""
        if self.done:
            return f"{self.what}: serves since {self.seconds:.0f} s after the start"
        if self.trouble:
            return f"{self.what}: {self.trouble}"
        steps = f" {self.step}/{self.steps}" if self.steps else ""
        return f"{self.what}: {self.phase}{steps}, {self.seconds:.0f} s"


class Upgrade:
    """Starts at once.

    Args:
        what: what is being made, for people.
        make: makes it, on this object's thread.
        hand_over: takes it; called on the same thread.
    """

    def __init__(self, what: str, make: Make, hand_over: Callable[[Pipeline], None]) -> None:
        self._make = make
        self._hand_over = hand_over
        self._progress = Progress(what)
        self._started = time.monotonic()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drive_seg_upgrade", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives this process no more threads; the engine that serves goes on
            self._fail(str(error))

    @property
    def progress(self) -> Progress:
        """How far it is now."""
        progress = self._progress
        if progress.done or progress.trouble:
            return progress
        return replace(progress, seconds=time.monotonic() - self._started)

    def stop(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Give it up if it is not done; returns when the thread has ended.

        Args:
            meanwhile: called every second until then, on this thread: not everything can be interrupted.
        """
        self._cancelled.set()
        while self._thread.is_alive():
            self._thread.join(_SIGN_OF_LIFE_S)
            if self._thread.is_alive():
                meanwhile()

    def _run(self) -> None:
        try:
            pipeline = self._make(self._step, self._cancelled.is_set)
        except DriveSegError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - the engine that serves must not suffer from this one
            _log.error("making a better engine failed unexpectedly", exc_info=error)
            self._fail(f"{type(error).__name__}: {error}")
        else:
            if self._cancelled.is_set():
                pipeline.close()
                return
            self._hand_over(pipeline)
            self._progress = replace(self.progress, done=True)

    def _step(self, phase: str, done: int, total: int) -> None:
        self._progress = replace(self._progress, phase=phase, step=done, steps=total)

    def _fail(self, why: str) -> None:
        self._progress = replace(self.progress, trouble=why)
