"""What was measured so far: a file that a run which was cut goes on with, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drive_seg.errors import EngineError
from drive_seg.gpu_benchmark.table import markdown


class Record:
    """Both are written after every step.

    Args:
        file: the JSON; the page is beside it.
        machine: what the figures are of, with what else they depend on.
        command: how those to come are measured.

    Raises:
        EngineError: the file is of another machine, or no such file.

    Attributes:
        results: all of it. ``commands``, of all runs; ``cases`` by name, each with its figures or its ``error``;
            ``torch``, with ``why SIZE`` where something of it is missing; ``begun``, how often each step was.
    """

    def __init__(self, file: Path, machine: dict[str, Any], command: str) -> None:
        self.results: dict[str, Any] = _read(file) if file.is_file() else {}
        if self.results.get("machine", machine) != machine:
            was = self.results["machine"]
            differs = (name for name in machine if was.get(name) != machine[name])
            other = ", ".join(f"{name}: {was.get(name)} there, {machine[name]} now" for name in differs)
            raise EngineError(f"{file} was measured on another machine or with other frames ({other}); move it away")
        self.results["machine"] = machine
        self.results["commands"] = [*dict.fromkeys([*self.results.get("commands", ()), command])]
        for part in ("cases", "torch", "begun"):
            self.results.setdefault(part, {})
        self._file = file
        self.keep()

    def begun(self, step: str) -> int:
        """How often it was begun. What did not end is taken last: it may have been what the run was ended for."""
        return int(self.results["begun"].get(step, 0))

    def begin(self, step: str, unfinished: dict[str, Any], error: str) -> None:
        """Note that a step is begun; ``unfinished[error]`` says so until it is done."""
        self.results["begun"][step] = self.begun(step) + 1
        unfinished[error] = "the run was ended before it was done"
        self.keep()

    def keep(self) -> None:
        """Write both; a run may be killed at any time."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        for file, text in (
            (self._file, json.dumps(self.results, indent=1)),
            (self._file.with_suffix(".md"), markdown(self.results)),
        ):
            part = file.with_suffix(".part")
            part.write_text(text, encoding="utf-8")
            part.replace(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # a copy that was cut, for one
        raise EngineError(f"{file} cannot be read ({error}); move it away") from error
    if not isinstance(results, dict):
        raise EngineError(f"{file} has no measurements; move it away")
    return results
