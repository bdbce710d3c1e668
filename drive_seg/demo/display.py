"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from drive_seg.demo.watch import IMAGE_TOPIC, PREFIX, Watcher

_LIVE_PERIOD_S = 0.5
_PLAIN_PERIOD_S = 2.0
_SPIN_PERIOD_S = 0.1
_PLAIN_WAIT_S = 10.0
_RECENT_S = 5.0
_NARROWEST = 53
"""Columns that the tables need for four digits before the point: rich would cut the names of stages to a letter."""


class Display(Protocol):
    """Shows phases and figures."""

    def phase(self, text: str) -> None:
        """What is being done now."""
        ...

    def wait(self, what: str) -> None:
        """The phase goes on until ``what`` is there; called often, shown now and then."""
        ...

    def update(self, watcher: Watcher, elapsed: float, seconds: float) -> None:
        """New figures; called often, shown now and then."""
        ...

    def __enter__(self) -> Display: ...

    def __exit__(self, *error: object) -> None: ...


def open_display(plain: bool) -> Display:
    """A live table, or with ``plain`` (or where stdout is no terminal, or a narrow one, or cannot redraw) lines."""
    if plain or not sys.stdout.isatty() or Console().is_dumb_terminal or Console().width < _NARROWEST:
        return PlainDisplay(sys.stderr if plain else sys.stdout)
    return LiveDisplay()


class PlainDisplay:
    """A line per phase, and one every other second."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = 0.0
        self._wait = _Wait()

    def phase(self, text: str) -> None:
        """Print it."""
        self._print(text)

    def wait(self, what: str) -> None:
        """A line every ten seconds."""
        waited = self._wait.seconds(what)
        if waited >= self._wait.shown + _PLAIN_WAIT_S:
            self._wait.shown = waited
            self._print(f"waiting for {what}, {waited:.0f} s")

    def update(self, watcher: Watcher, elapsed: float, seconds: float) -> None:
        """Print rates, drops, latency and instances."""
        if time.monotonic() - self._shown < _PLAIN_PERIOD_S:
            return
        self._shown = time.monotonic()
        parts = [f"{elapsed:5.1f} / {seconds:g} s", f"mask {watcher.arrivals['mask'].rate():.1f} Hz"]
        whole = watcher.percentiles(_RECENT_S).get("end_to_end")
        if whole is not None:
            parts.append(f"end to end p50 {whole.p50:.1f} p99 {whole.p99:.1f} ms")
        if watcher.state is not None:
            parts.append(f"dropped {watcher.state.counts().total_dropped}")
        parts.append(_instances(watcher))
        self._print("   ".join(parts))

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.flush()


class LiveDisplay:
    """Tables that are redrawn in place."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), auto_refresh=False)
        self._shown = 0.0
        self._wait = _Wait()
        self._spinner = Spinner("dots")
        self._tables: RenderableType = ""

    def phase(self, text: str) -> None:
        """Print it above the tables."""
        self._live.console.print(text, markup=False, highlight=False)

    def wait(self, what: str) -> None:
        """Something that moves, in place of the tables' first line where they are there."""
        waited = self._wait.seconds(what)
        if waited < self._wait.shown + _SPIN_PERIOD_S:
            return
        self._wait.shown = waited
        self._spinner.update(text=f"waiting for {what}, {waited:.0f} s")
        tables = self._tables.renderables[1:] if isinstance(self._tables, Group) else ()
        self._live.update(Group(self._spinner, *tables), refresh=True)

    def update(self, watcher: Watcher, elapsed: float, seconds: float) -> None:
        """Redraw."""
        if time.monotonic() - self._shown < _LIVE_PERIOD_S:
            return
        self._shown = time.monotonic()
        head = Text(f"{elapsed:.0f} of {seconds:g} s   {_fate(watcher)}   {_instances(watcher)}")
        self._tables = Group(head, _rates(watcher), "", _latencies(watcher))
        self._live.update(self._tables, refresh=True)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.update(self._tables)
        self._live.stop()


class _Wait:
    """What is waited for, since when, and after how many seconds that was last shown."""

    def __init__(self) -> None:
        self._what = ""
        self._since = 0.0
        self.shown = 0.0

    def seconds(self, what: str) -> float:
        """For how long it has been waited for."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._since, self.shown = what, now, 0.0
        return now - self._since


def _fate(watcher: Watcher) -> str:
    if watcher.state is None:
        return "waiting for /diagnostics"
    counts = watcher.state.counts()
    dropped = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items() if count) or "none"
    return f"received {counts.received}, published {counts.published}, dropped {dropped}, failed {counts.failed}"


def _instances(watcher: Watcher) -> str:
    return "  ".join(f"{name} {count}" for name, count in watcher.instance_counts.items())


def _rates(watcher: Watcher) -> Table:
    table = _table("topic", "messages", "Hz")
    for name, arrivals in watcher.arrivals.items():
        topic = IMAGE_TOPIC if name == "image" else f"{PREFIX}/{name}"
        table.add_row(topic, str(arrivals.count), f"{arrivals.rate():.1f}")
    return table


def _latencies(watcher: Watcher) -> Table:
    table = _table("stage, ms", "p50", "p95", "p99", "max")
    for stage, value in watcher.percentiles(_RECENT_S).items():
        table.add_row(stage, *(f"{x:.2f}" for x in (value.p50, value.p95, value.p99, value.max)))
    return table


def _table(first: str, *numbers: str) -> Table:
    """Names, and numbers under each other; so low that both tables fit a terminal of 24 lines."""
    table = Table(first, box=SIMPLE_HEAD, show_edge=False)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table
