"""stdin, stdout and stderr, which some supervisors start a process without."""

from __future__ import annotations

import os
import sys


def occupy() -> None:
    """Open /dev/null in place of those that are closed.

    The next file that is opened, such as a bag, would have their number, and what C libraries print be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


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
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise
