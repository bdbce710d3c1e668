"""stdin, stdout and stderr, which some supervisors start a process without."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any


def occupy() -> None:
    """Open /dev/null in place of those that are closed.

    The next file that is opened, such as a bag, would have their number, and what C libraries print be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def outlive_terminal() -> None:
    """Have what is said to a terminal that is gone, as with an ssh connection, said to nobody.

    As an error of writing it would end the work, maybe before the SIGHUP that asks for an end in order is there.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            file = io.BufferedWriter(_Terminal(stream.fileno(), "w", closefd=False))
            said = io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=True)
            setattr(sys, name, said)


class _Terminal(io.FileIO):
    """Becomes /dev/null with the first that it cannot write since the terminal is gone."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            _to_nowhere(self.fileno())
            return len(content)


def flush() -> None:
    """Write what stdout still holds.

    Raises:
        OSError: it cannot be written, and goes to /dev/null: Python would try again when the process ends, with words
            of its own and exit code 120.
    """
    if sys.stdout is None:  # it was closed
        return
    try:
        sys.stdout.flush()
    except OSError:
        _to_nowhere(sys.stdout.fileno())
        raise


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
