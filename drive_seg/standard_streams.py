"""stdin, stdout and stderr, which some supervisors start a process without."""

from __future__ import annotations

import os


def occupy() -> None:
    """Open /dev/null in place of those that are closed.

    The next file that is opened, such as a bag, would have their number, and what C libraries print be written into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
