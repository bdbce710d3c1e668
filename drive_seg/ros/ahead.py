"""A simulated drive that is rendered ahead of its playing, by processes of its own (``python -m drive_seg.ros.ahead``).

The first pictures are rendered as fast as can be. What goes on behind them while they play takes only the processor's
time that nobody else wants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count, cycle, islice
from pathlib import Path
from typing import IO, Generic, TypeVar

import cv2
import numpy as np

from drive_seg.engines.threads import cpu_threads
from drive_seg.errors import SourceError
from drive_seg.frame import Box, Instance, Lane
from drive_seg.ros.pictures import Packed, Picture, SimulatedPictures

_MOST_PROCESSES = 4

T = TypeVar("T")


@dataclass(frozen=True)
class Drive:
    """The arguments of ``SimulatedPictures``."""

    seed: int
    width: int
    height: int
    rate: float
    weather: str


@dataclass(frozen=True)
class _Part:
    """Every ``parts``-th picture from ``part`` on: as fast as can be up to ``first``, and none from there on unless
    ``goes_on``."""

    part: int
    parts: int
    first: int
    goes_on: bool


class Ahead(Generic[T]):
    """The pictures of a drive, from memory: iterate when they are ``ready``.

    After the last that is held it jumps back to the oldest.

    Args:
        first: how many are rendered before any is played.
        most: how many are held. Where that is more than ``first``, rendering goes on while they play, and of more
            than ``most`` the oldest goes once it was played.
        make: called with each picture, once; what it returns is held.
    """

    def __init__(self, drive: Drive, first: int, most: int, make: Callable[[Picture], T]) -> None:
        self._first = first
        self._most = max(first, most)
        self._make = make
        self._held: deque[T] = deque()
        self._next = 0
        self._changed = threading.Condition()
        self._closed = False
        self._trouble = ""
        parts = min(cpu_threads(), _MOST_PROCESSES, first)
        goes_on = most > first
        self._processes = [_start(drive, _Part(part, parts, first, goes_on)) for part in range(parts)]
        expected = None if goes_on else first
        self._reader = threading.Thread(target=self._read, args=(expected,), name="drive_seg_ahead", daemon=True)
        self._reader.start()

    @property
    def ready(self) -> bool:
        """Whether the first pictures are there.

        Raises:
            SourceError: they never will be.
        """
        with self._changed:
            if len(self._held) < self._first and self._trouble:
                raise SourceError(self._trouble)
            return len(self._held) >= self._first

    def __iter__(self) -> Iterator[T]:
        """What was made of the pictures, without end."""
        while True:
            with self._changed:
                if self._next == len(self._held):
                    self._next = 0
                made = self._held[self._next]
                self._next += 1
                self._changed.notify()
            yield made

    def close(self) -> None:
        """End the processes."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        for process in self._processes:
            process.kill()
        self._reader.join()
        for process in self._processes:
            process.communicate()

    def _read(self, expected: int | None) -> None:
        for process in islice(cycle(self._processes), expected):
            assert process.stdout is not None and process.stderr is not None
            try:
                made = self._make(_received(process.stdout))
            except EOFError:  # it ended, between two pictures or within one
                words = process.stderr.read().decode(errors="replace").strip()
                with self._changed:
                    last = words.rpartition("\n")[2] or f"exit code {process.wait()}"
                    self._trouble = f"the simulator's process ended: {last}"
                return
            except Exception as error:  # noqa: BLE001 - memory for one: whoever asks for it would ask for ever
                with self._changed:
                    self._trouble = f"a rendered image cannot be kept: {error!r}"
                return
            with self._changed:
                # What was not played yet stays; meanwhile the processes wait until they are read again.
                self._changed.wait_for(lambda: len(self._held) < self._most or self._next > 0 or self._closed)
                if self._closed:
                    return
                if len(self._held) == self._most:
                    self._held.popleft()
                    self._next -= 1
                self._held.append(made)


def _send(picture: Picture, to: IO[bytes]) -> None:
    """A line of JSON, the pixels, the packed map."""
    assert picture.panoptic is not None and picture.lanes is not None
    head = {
        "shape": picture.pixels.shape,
        "packed": len(picture.panoptic.content),
        "lanes": [{**vars(lane), "points": lane.points.tolist()} for lane in picture.lanes],
        "instances": [asdict(instance) for instance in picture.instances],
    }
    to.write(json.dumps(head).encode() + b"\n")
    to.write(np.ascontiguousarray(picture.pixels).data)
    to.write(picture.panoptic.content)
    to.flush()


def _received(stream: IO[bytes]) -> Picture:
    """What ``_send`` wrote; EOFError where not all of it comes."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    height, width, channels = head["shape"]
    pixels, content = stream.read(height * width * channels), stream.read(head["packed"])
    if len(content) < head["packed"]:
        raise EOFError
    return Picture(
        np.frombuffer(pixels, np.uint8).reshape(height, width, channels),
        "rgb8",
        Packed(height, width, content),
        tuple(Lane(**{**lane, "points": np.array(lane["points"], np.float32)}) for lane in head["lanes"]),
        tuple(Instance(**{**instance, "box": Box(**instance["box"])}) for instance in head["instances"]),
    )


def _start(drive: Drive, part: _Part) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "drive_seg.ros.ahead", json.dumps(asdict(drive)), json.dumps(asdict(part))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for who started us, and see _step_aside
    )


def _step_aside() -> None:
    """From here on run only when nobody else wants the processor, as far as the system knows such a thing."""
    with suppress(OSError, AttributeError):  # Linux only; gVisor knows the usual policy only
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.nice(19)
    with suppress(OSError):  # desktops share time between sessions first, whatever the priorities within them
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


def main(drive: str, part: str) -> int:
    """Write the pictures to stdout until there are enough or nobody reads them any more."""
    share = _Part(**json.loads(part))
    cv2.setNumThreads(1)  # the others are for the other parts
    pictures = SimulatedPictures(**json.loads(drive))
    for index in count(share.part, share.parts):
        if index >= share.first and not share.goes_on:
            return 0
        if share.first <= index < share.first + share.parts:
            _step_aside()
        try:
            _send(pictures.render(index), sys.stdout.buffer)
        except BrokenPipeError:
            break
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more at its end
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
