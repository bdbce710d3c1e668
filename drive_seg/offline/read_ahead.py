"""A bag's next megabytes are loaded while the last ones are used.

rosbags reads chunk by chunk and jumps about between them, which the system does not take for reading on: of a bag that
is not in memory, every chunk would have to be waited for.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

_AHEAD = 32 << 20
"""Bytes ahead: some frames, and little beside the memory that an evaluation takes."""
_STEP = 4 << 20

Connection = TypeVar("Connection")


def read_ahead(
    files: Sequence[Path], recorded: tuple[int, int], messages: Iterable[tuple[Connection, int, bytes]]
) -> Generator[tuple[Connection, int, bytes], None, None]:
    """The messages, and on the way the system is told what will be wanted next.

    Args:
        files: of the bag; of several, and where the system takes no advice, nothing is loaded ahead.
        recorded: when the first and the last message of the bag were, ns: a message's time says about where it is.
    """
    if len(files) != 1 or not hasattr(os, "posix_fadvise"):
        yield from messages
        return
    start, span = recorded[0], max(1, recorded[1] - recorded[0])
    with files[0].open("rb") as file:
        size, told = os.fstat(file.fileno()).st_size, 0
        for connection, time, raw in messages:
            here = size * (time - start) // span
            told = max(told, here)
            while told < min(size, here + _AHEAD):
                os.posix_fadvise(file.fileno(), told, _STEP, os.POSIX_FADV_WILLNEED)
                told += _STEP
            yield connection, time, raw
