"""The plots of a report: SVG by matplotlib, made small and coloured by the page's style sheet.

Drawn in place-holder colours that become CSS variables, so that one drawing serves a light and a dark page.
Texts stay texts: they can be searched, selected and read aloud.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import MissingDependency, pip_install

INSTALL = pip_install(extra="offline")

SERIES = 9
"""Different colours of curves; the page defines ``--series-0`` and so on."""

_INK, _MUTED, _GRID = "#010101", "#010102", "#010103"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "line"}
_VARIABLES |= {f"#0101{16 + number:02x}": f"series-{number}" for number in range(SERIES)}

_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (8, 2, 2, 2)))
"""Beside the colours: who does not see them apart sees these."""

_POINTS = 160
"""Corners of a distribution's curve: more cannot be seen at this size, and a long run would make a large page."""

_STRETCHES = 400
"""Most points of a score over the frames."""

_LONGEST_NAME = 24

_LEAST_MS = 0.001
"""What a shorter time is drawn as: a logarithmic axis has no zero."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "drive_seg",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "text.color": _INK,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,
}


def percentile_plot(latency_ms: Mapping[str, Mapping[str, float]]) -> str:
    """One row per stage, from p50 over p95 to p99 and the longest, on a logarithmic axis; an ``<svg>`` element.

    Args:
        latency_ms: milliseconds by stage: ``p50``, ``p95``, ``p99``, ``max``.
    """
    stages = list(latency_ms)[::-1]
    rows = np.arange(len(stages))
    columns = {
        name: [max(latency_ms[stage][name], _LEAST_MS) for stage in stages] for name in ("p50", "p95", "p99", "max")
    }
    with _figure(7.0, 0.9 + 0.34 * len(stages)) as (figure, axes):
        axes.hlines(rows, columns["p50"], columns["max"], color=_GRID, linewidth=1.2)
        axes.hlines(rows, columns["p50"], columns["p95"], color=_series(0), linewidth=5, alpha=0.35)
        marks = (("p50", "o", 36, 0), ("p95", "D", 26, 0), ("p99", "D", 26, 1), ("max", "|", 60, 3))
        for name, marker, size, series in marks:
            axes.scatter(columns[name], rows, s=size, marker=marker, color=_series(series), label=name, zorder=3)
        axes.set_yticks(rows, [_short(stage) for stage in stages])
        axes.set_ylim(-0.6, len(stages) - 0.4)
        _log_milliseconds(axes)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=4, handletextpad=0.2, columnspacing=1.6)
        return _svg(figure, "percentiles")


def distribution_plot(times_ms: Mapping[str, Sequence[float]]) -> str:
    """Share of the frames that took at most so long, a curve for each stage; an ``<svg>`` element.

    Args:
        times_ms: milliseconds of every frame by stage, in the stages' order; an empty stage is left out.
    """
    with _figure(7.0, 3.6) as (figure, axes):
        for number, (stage, values) in enumerate((s, v) for s, v in times_ms.items() if len(v)):
            milliseconds, share = _steps(np.sort(np.maximum(np.asarray(values, np.float64), _LEAST_MS)))
            width = 2.4 if stage in ("processing", "end_to_end") else 1.5
            axes.step(
                milliseconds,
                share * 100,
                where="post",
                color=_series(number % SERIES),
                linestyle=_DASHES[number % len(_DASHES)],
                linewidth=width,
                label=_short(stage),
            )
        axes.set(ylim=(0, 101), ylabel="frames, %")
        axes.tick_params(axis="y", labelcolor=_MUTED)
        axes.grid(visible=True, axis="y")
        _log_milliseconds(axes)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure, "distribution")


def score_plot(scores: Mapping[str, Sequence[float]]) -> str:
    """Scores over the frames in order; of long runs the mean and the worst of each stretch. An ``<svg>`` element.

    Args:
        scores: 0..1 by name, NaN where undefined, all of one length.
    """
    from matplotlib.ticker import MaxNLocator

    with _figure(11.0, 2.6) as (figure, axes):
        for number, (name, values) in enumerate(scores.items()):
            frames, mean, worst = _stretches(np.asarray(values, np.float64) * 100)
            color = _series(2 * (1 - number % 2))
            axes.plot(frames, mean, color=color, linewidth=1.5, label=name)
            if not np.array_equal(mean, worst, equal_nan=True):
                axes.fill_between(frames, worst, mean, color=color, alpha=0.2, linewidth=0, label=f"{name}, worst")
        axes.set(ylim=(0, 101), ylabel="score, %", xlabel="frame")
        axes.margins(x=0.005)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(length=0)
        axes.tick_params(axis="y", labelcolor=_MUTED)
        axes.grid(visible=True, axis="y")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return _svg(figure, "scores")


def _stretches(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Middle, mean and least of up to ``_STRETCHES`` equal stretches of a series; NaN where one has no value."""
    edges = np.unique(np.linspace(0, values.size, min(values.size, _STRETCHES) + 1).round().astype(np.intp))
    parts = [part[np.isfinite(part)] for part in np.split(values, edges[1:-1])]
    mean = np.array([part.mean() if part.size else np.nan for part in parts])
    worst = np.array([part.min() if part.size else np.nan for part in parts])
    return (edges[1:] + edges[:-1] - 1) / 2, mean, worst


def _steps(ordered: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners (milliseconds, share 0..1) of the empirical distribution, every value where there are few."""
    count = ordered.size
    ranks = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(np.intp))
    share = np.concatenate([[0.0], (ranks + 1) / count])
    return np.concatenate([ordered[:1], ordered[ranks]]), share


def _log_milliseconds(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    dense = high / max(low, 1e-9) < 1000
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if dense else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="both", length=0)
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("milliseconds (logarithmic)")


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes in the house style; the style of whoever calls us is left alone."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("matplotlib", "report.html", INSTALL) from error
    # Ubuntu 22.04 has 3.5, which has no text.parse_math.
    with mpl.rc_context({key: value for key, value in _STYLE.items() if key in mpl.rcParams}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _short(name: str) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _series(number: int) -> str:
    return f"#0101{16 + number:02x}"


def _svg(figure: Any, name: str) -> str:
    """The figure as an element for a page: no prologue, no fixed size, ids of its own, the page's fonts and colours."""
    out = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue().decode()
    text = text[text.index("<svg") :]
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)  # how older releases write it
    text = re.sub(r"#0101[0-9a-f]{2}", lambda match: f"var(--{_VARIABLES[match[0]]})", text)
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+|\s+", r"\1 ", path[0]), text)
    text = re.sub(r">\s+<", ">\n<", text)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
