"""``drive_seg evaluate --compare``: two evaluations side by side, and whether the second may pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from drive_seg.errors import ConfigError, DriveSegError

if TYPE_CHECKING:
    from rich.table import Table

    from drive_seg.offline.compare import Comparison, Difference

DETAILS = (".sq", ".rq", ".ap50", ".ap75", ".p95", ".max")
"""Metrics that only ``--json`` lists."""


def compare(
    before: Path, after: Path, fail_if: Sequence[str] = (), seed: int = 0, block: int = 1, as_json: bool = False
) -> None:
    """Print what changed from one ``metrics.json`` to the other.

    Args:
        fail_if: ``METRIC:MARGIN``, how much worse a metric may get.
        seed, block: of the bootstrap, see ``drive_seg.offline.compare.compare_files``.

    Raises:
        typer.BadParameter: ``fail_if`` is not understood or names no metric.
        DriveSegError: a file cannot be compared, or a limit is not kept.
    """
    from drive_seg.commands.terminal import report
    from drive_seg.offline.compare import Limit, compare_files

    try:
        limits = [Limit.parse(text) for text in fail_if]
        found = compare_files(before, after, seed=seed, block=block)
        lost = found.regressions(limits)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="'--fail-if'") from error
    shown = [row for row in found.differences.values() if not row.metric.endswith(DETAILS)]
    overall = [row for row in shown if ".per_class." not in row.metric]
    classes = [row for row in shown if ".per_class." in row.metric]
    report(
        as_json,
        {**found.as_dict(), "fail_if": list(fail_if), "regressions": lost},
        _table("overall", overall),
        "",
        _table("per class", classes),
        "",
        _method(found),
    )
    if lost:
        raise DriveSegError(f"{after} regressed: {'; '.join(lost)}")


def _table(title: str, rows: Iterable[Difference]) -> Table:
    """Fractions in per cent; counts, times and rates in their unit."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("metric", no_wrap=True)
    for column in ("before", "after", "change", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    styles = {"better": "green", "worse": "red"}
    for row in rows:
        if row.before is None and row.after is None:
            continue
        own_unit = row.metric in ("fps", "tracking.id_switches") or row.metric.startswith("latency_ms.")
        scale = 1 if own_unit else 100
        values = (_number(row.before, scale), _number(row.after, scale), _number(row.change, scale, "+"))
        interval = " to ".join(_number(end, scale, "+") for end in row.interval) if row.interval else ""
        verdict = Text(row.verdict, styles.get(row.verdict, ""))
        table.add_row(Text(row.metric.replace(".per_class.", ".")), *values, interval, verdict)
    return table


def _number(value: float | None, scale: int, sign: str = "") -> str:
    return "n/a" if value is None else f"{value * scale:{sign}.2f}"


def _method(found: Comparison) -> str:
    from drive_seg.offline.compare import LEAST_BLOCKS

    old, new = found.frames
    frames = f"the same {old} frames, paired" if found.paired else f"different frames ({old} and {new}), not paired"
    drawn = f"blocks of {found.block} frames" if found.block > 1 else "single frames"
    method = f"intervals from {found.resamples} bootstrap draws of {drawn}, seed {found.seed}"
    if min(old, new) < LEAST_BLOCKS * found.block:
        method = f"too few frames for intervals (at least {LEAST_BLOCKS * found.block})"
    return (
        f"{found.before} -> {found.after}: {frames}; scores in per cent, latency in ms; "
        f"{method}; --json has all metrics"
    )
