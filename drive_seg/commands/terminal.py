"""What commands say: people read stderr and tables, programs the last line of stdout."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from drive_seg.errors import counted, printable

_SHOW_EVERY_S = 0.2
_LINE_EVERY_S = 30.0

_WIDEST = 10_000
"""Columns that any table has room in."""

_NAMED = 5
"""Images with the same trouble that are named one by one."""
_OF_AN_IMAGE = re.compile(r"(left out|failed) (.+?): (\D*)")
"""A warning about an image: its fate and name, and how the reason begins, up to what may differ from image to image."""

notes = Console(stderr=True, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """A line on stderr about something that did not stop the work."""
    print(f"drive_seg: warning: {printable(message)}", file=sys.stderr)


@contextmanager
def few_warnings() -> Iterator[Callable[[str], None]]:
    """``warn`` that of images with the same trouble names the first ones, and in the end says how many more there were.

    A long bag in a wrong encoding would fill the terminal with thousands of equal lines.
    """
    alike: Counter[tuple[str, str]] = Counter()
    named: dict[tuple[str, str], str] = {}

    def say(message: str) -> None:
        if found := _OF_AN_IMAGE.match(message):
            fate, name, reason = found.groups()
            alike[fate, reason] += 1
            if alike[fate, reason] > _NAMED:
                return
            named[fate, reason] = name
        warn(message)

    try:
        yield say
    finally:
        for kind, count in alike.items():
            if (more := count - _NAMED) > 0:
                warn(f"{kind[0]} {counted(more, 'more image')} like {named[kind]}")


def report(as_json: bool, payload: Mapping[str, Any], *human: Table | str) -> None:
    """Print the outcome: for people to stdout, or with ``--json`` only the object.

    A table whose last column folds holds text, which a terminal has in as many lines as it needs.
    """
    if as_json:
        print(json.dumps(payload), flush=True)
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for part in human:
        if isinstance(part, str):
            console.print(part)
        elif console.is_terminal and part.columns[-1].overflow == "fold":
            console.print(part, soft_wrap=False)
        elif part.row_count:  # where no frame was served there is no latency
            # Lines that a narrow terminal breaks can be read; numbers that are cut off are wrong.
            needed = Measurement.get(console, console.options.update(max_width=_WIDEST), part).maximum
            console.width = max(console.width, needed)
            console.print(part)


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; the yielded function takes how much is done."""
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=notes) as progress:
        task = progress.add_task(what, total=total, rate="")
        reached = [0, 0.0]  # how much is done, and when that was last shown

        def show() -> None:
            speed = progress.tasks[0].speed
            progress.update(task, completed=reached[0], rate=f"{speed:.1f}/s" if speed else "")
            reached[1] = time.monotonic()

        def update(done: int) -> None:
            reached[0] = done
            if time.monotonic() - reached[1] >= _SHOW_EVERY_S:  # rich takes longer than people look
                show()

        try:
            yield update
        finally:
            show()


@contextmanager
def phase_bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for work in phases; the yielded function takes phase, done and total (0: unknown).

    In a file or a pipe, where a bar shows at its end only: a line for every new phase, and every half minute.
    """
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()]
    started = time.monotonic()
    said: dict[str, float] = {}

    def line(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase not in said or now - max(said.values()) >= _LINE_EVERY_S:
            said[phase] = now
            notes.print(f"{what}: {phase}{f' {done}/{total}' if total else ''}, {now - started:.0f} s", markup=False)

    if not notes.is_terminal:
        yield line
        return
    with Progress(*columns, console=notes) as progress:
        task = progress.add_task(what, total=None)

        def update(phase: str, done: int, total: int) -> None:
            progress.update(task, description=f"{what}: {phase}", completed=done, total=total or None)

        yield update


def latency_table(latency_ms: Mapping[str, Mapping[str, float]], title: str = "latency, ms") -> Table:
    """Percentiles by stage."""
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for column in ("p50", "p95", "p99", "max"):
        table.add_column(column, justify="right")
    for stage, values in latency_ms.items():
        table.add_row(stage, *(f"{values[c]:.2f}" for c in ("p50", "p95", "p99", "max")))
    return table
