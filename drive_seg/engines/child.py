"""A build in a process of its own, seen from the process that wants it: see ``drive_seg.engines.builder``."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drive_seg.engines.build import Job, Made
from drive_seg.engines.builder import write_request
from drive_seg.engines.compiler import BuildProgress
from drive_seg.engines.gate import Agreement
from drive_seg.errors import EngineError

BUILDER: tuple[str, ...] = (sys.executable, "-m", "drive_seg.engines.builder")
_POLL_S = 0.1


def make_in_child(
    job: Job, progress: BuildProgress, cancelled: Callable[[], bool], command: Sequence[str] = BUILDER
) -> Made:
    """Run the builder; a ``Maker`` (see ``drive_seg.engines.build``).

    The child is gone when this returns or raises, for whatever reason (also KeyboardInterrupt).

    Args:
        progress: called several times a second, also while there is nothing new: TensorRT 8.6 compiles in one step.
        command: the builder; the paths of request and answer are appended.

    Raises:
        EngineError: it failed, crashed, or was cancelled.
    """
    with tempfile.TemporaryDirectory(prefix="drive_seg_build_") as folder:
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.npz"
        write_request(request, job)
        child = subprocess.Popen(
            [*command, str(request), str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # whoever stops reading at a strange byte leaves the child waiting before a full pipe
        )
        try:
            error, noise = _follow(child, progress, cancelled)
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
        if error:
            raise EngineError(error)
        if not answer.is_file():  # what crashes at its end, as GPU libraries may in their teardown, has made its plan
            raise EngineError(f"the engine builder {_fate(child.returncode)}: {noise or 'it said nothing'}")
        return _read_answer(answer)


def _follow(child: subprocess.Popen[str], progress: BuildProgress, cancelled: Callable[[], bool]) -> tuple[str, str]:
    """Pass its progress on until it ends; returns its error line and the end of its standard error."""
    lines: queue.Queue[str | None] = queue.Queue()
    noise: deque[str] = deque(maxlen=5)

    def read() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            lines.put(line)
        lines.put(None)

    def listen() -> None:
        assert child.stderr is not None
        for line in child.stderr:
            noise.append(line.strip())

    readers = [threading.Thread(target=target, daemon=True) for target in (read, listen)]
    for reader in readers:
        reader.start()
    error = ""
    step: tuple[str, int, int] | None = None
    try:
        while True:
            if cancelled():
                raise EngineError("the engine build was cancelled")
            try:
                line = lines.get(timeout=_POLL_S)
            except queue.Empty:
                if step:
                    progress(*step)
                continue
            if line is None:
                child.wait()
                return error, " | ".join(filter(None, noise))
            said = json.loads(line)
            if "error" in said:
                error = said["error"]
            else:
                step = said["phase"], said["done"], said["total"]
                progress(*step)
    finally:
        child.kill()
        for reader in readers:
            reader.join()


def _fate(code: int | None) -> str:
    return f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"


def _read_answer(path: Path) -> Made:
    with np.load(path) as file:
        figures: dict[str, Any] = json.loads(str(file["agreement"]))
        return Made(file["plan"].tobytes(), file["timing"].tobytes(), Agreement(**figures), str(file["note"]))
