"""Child processes that never outlive their parent and whose last words are kept."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from drive_seg.errors import DriveSegError

_PATIENCE_S = 6.0
_PR_SET_PDEATHSIG = 1
_LAST_LINES = 40


class Child:
    """A Python process in its own session, so that Ctrl-C reaches it through ``stop`` only.

    Args:
        name: for messages.
        arguments: of the interpreter: ``["-m", MODULE, ...]`` or ``[FILE, ...]``.
        environment: variables to set beside those of this process.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
        self._drain = threading.Thread(target=self._read, name=f"drive_seg_{name}_output", daemon=True)
        self._drain.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise DriveSegError with its last words when it has failed."""
        code = self.exit_code
        if code:
            self._drain.join(timeout=1.0)
            words = "\n  ".join([line for line in self.lines if line][-8:]) or "it said nothing"
            raise DriveSegError(f"the {self.name} process ended with code {code}:\n  {words}")

    def stop(self) -> int:
        """SIGINT, and SIGKILL when that does not end it; returns the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        self._drain.join(timeout=1.0)
        return code

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def _die_with_parent() -> Callable[[], object] | None:
    """A function for the child that has the kernel end it with its parent, where the kernel can (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
