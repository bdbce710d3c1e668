"""Frames kept on disk while the demo runs, small and cheap, to be drawn when nothing is measured any more."""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.decode import decode_rgb
from drive_seg.demo.watch import SeenFrame
from drive_seg.frame import CameraImage, Instance, Lane, StageTimes

_QUALITY = 92
_LIMIT_BYTES = 2 << 30
_WAITING = 4


@dataclass(frozen=True)
class _Entry:
    stamp_ns: int
    offset: int
    jpeg_bytes: int
    starts_bytes: int
    values_bytes: int
    shape: tuple[int, int]
    instances: tuple[Instance, ...]
    times: StageTimes
    lanes: tuple[Lane, ...]
    fps: float


class Spool:
    """Camera images as JPEG, panoptic maps as runs, in one temporary file, written by one thread.

    Never slows the caller: a frame that comes while ``_WAITING`` others wait is left out, and so is everything beyond
    2 GB (about two hours of video), or what disk or memory takes.
    """

    def __init__(self) -> None:
        # Without a buffer, which would keep what the disk refused, and have it refused again when it is read.
        self._file = tempfile.TemporaryFile(prefix="drive_seg_demo_", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._entries: list[_Entry] = []
        self._queue: queue.Queue[SeenFrame | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write, name="drive_seg_spool", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, frame: SeenFrame) -> None:
        """Keep a frame, if there is time for it."""
        with suppress(queue.Full):
            self._queue.put_nowait(frame)

    def finish(self) -> None:
        """Write what waits; nothing may be added afterwards."""
        self._queue.put(None)
        self._thread.join()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread and remove the file."""
        if self._thread.is_alive():
            self.finish()
        self._file.close()

    def _write(self) -> None:
        if hasattr(os, "SCHED_IDLE"):  # Linux: only when nobody else wants the processor
            with suppress(OSError):  # gVisor knows the usual policy only
                os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
        full = False
        while (frame := self._queue.get()) is not None:
            offset = self._file.tell()
            if full or offset > _LIMIT_BYTES:
                continue
            try:
                bgr = cv2.cvtColor(decode_rgb(frame.image), cv2.COLOR_RGB2BGR)
                jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
                starts, values = runs_of(frame.panoptic)
                content = b"".join(part.tobytes() for part in (jpeg, starts, values))
                full = self._file.write(content) < len(content)
            except (MemoryError, cv2.error):  # cv2's own is for want of memory, too
                continue
            except OSError:
                full = True
            if full:
                continue
            shape = (frame.panoptic.shape[0], frame.panoptic.shape[1])
            sizes = (jpeg.nbytes, starts.nbytes, values.nbytes)
            self._entries.append(
                _Entry(frame.stamp_ns, offset, *sizes, shape, frame.instances, frame.times, frame.lanes, frame.fps)
            )

    def frames(self) -> Iterator[SeenFrame]:
        """The kept frames in order of their stamps."""
        for entry in sorted(self._entries, key=lambda entry: entry.stamp_ns):
            self._file.seek(entry.offset)
            jpeg = np.frombuffer(self._file.read(entry.jpeg_bytes), np.uint8)
            starts = np.frombuffer(self._file.read(entry.starts_bytes), np.uint32)
            values = np.frombuffer(self._file.read(entry.values_bytes), np.uint16)
            bgr = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)
            panoptic = from_runs(starts, values, entry.shape)
            image = CameraImage.from_bgr(bgr)
            yield SeenFrame(entry.stamp_ns, image, panoptic, entry.instances, entry.times, entry.lanes, entry.fps)


def runs_of(panoptic: NDArray[np.uint16]) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Where runs of equal values start in the flattened map (uint32), and the value of each (uint16)."""
    flat = panoptic.reshape(-1)
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1)).astype(np.uint32)
    return starts, flat[starts]


def from_runs(starts: NDArray[np.uint32], values: NDArray[np.uint16], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """The inverse of ``runs_of``: uint16 of ``shape``."""
    ends = np.append(starts[1:], np.uint32(shape[0] * shape[1]))
    lengths = (ends - starts).astype(np.int64)
    return np.repeat(values, lengths).reshape(shape)
