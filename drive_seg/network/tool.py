"""The end of a module that is run: ``python -m drive_seg.network.NAME``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from drive_seg.errors import DriveSegError, printable


def run(main: Callable[[], None]) -> None:
    """Call ``main``; what it raises on purpose ends the process with 1 and one line instead of a traceback."""
    try:
        main()
    except DriveSegError as error:
        sys.exit(f"drive_seg: error: {printable(str(error))}")
