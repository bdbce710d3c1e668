"""Stopping before a disk is full: a bag or video that could not be closed for want of space is lost as a whole."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from drive_seg.errors import DriveSegError

LEAST_FREE = 16 << 20
"""Bytes that are left alone: what a bag still holds in memory, its index and the summary must fit."""


def require_writable(folder: Path) -> None:
    """Raise OSError unless a file can be made in ``folder``, or in the nearest of its parents that is there."""
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def require_room(folder: Path, size: int = 0) -> None:
    """Raise DriveSegError unless ``size`` more bytes fit on the disk of ``folder`` with LEAST_FREE to spare."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE + size:
        raise DriveSegError(
            f"the disk of {folder} is full: {free >> 20} MiB are left, and {LEAST_FREE >> 20} MiB are kept "
            "so that what was written can be closed"
        )
