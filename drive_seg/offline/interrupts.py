"""Ctrl-C, SIGTERM and SIGHUP as a flag while threads work together.

As an exception they may come between any two instructions, also in the middle of handing something to another thread,
which is then never woken (CPython's ``Condition.notify`` cannot be interrupted safely).
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from drive_seg.signals import requests_to_end


class Interrupts:
    """While the context is open, the first signal that would raise KeyboardInterrupt only sets ``requested``.

    A second one acts as ever, for who cannot wait. Signals that the caller handles in another way stay the caller's,
    and so does everything outside of the main thread.
    """

    def __init__(self) -> None:
        self.requested = False
        self._ours: list[int] = []

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in requests_to_end():
                if signal.getsignal(number) is signal.default_int_handler:
                    signal.signal(number, self._on_signal)
                    self._ours.append(number)
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._give_back()

    def _give_back(self) -> None:
        while self._ours:
            signal.signal(self._ours.pop(), signal.default_int_handler)
