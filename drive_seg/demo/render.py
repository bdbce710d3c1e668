"""What remains of a demo: the overlay video and the plot of latencies, made after the run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.decode import decode_rgb
from drive_seg.demo.spool import Spool
from drive_seg.errors import MissingDependency, pip_install
from drive_seg.frame import Frame, PanopticResult, StageTimes
from drive_seg.labels import LabelSet, mask_of
from drive_seg.offline.video import VideoWriter
from drive_seg.overlay import STAGE_COLORS, draw_overlay
from drive_seg.telemetry import Percentiles

_PERCENTILE_COLORS = {"p50": "#1b3a5c", "p95": "#5b8cc0", "p99": "#b5cfe8"}
_JUMP = 20.0
"""A gap between two frames that is so many times the usual one is no part of their pace."""
_BREAK = 5.0
"""Frames that are so many times the mean gap apart are not joined: nothing is known of the time between them..."""
_LEAST_BREAK_S = 0.5
"""... where it is so long; they may arrive in bursts."""
_TALLEST = 4.0
"""Frames that took so many times what the slowest twentieth took are cut off, or one would make a flat line of all."""


def require_matplotlib() -> None:
    """Raise MissingDependency where ``plot_latency`` would fail: before a run, not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependency("matplotlib", "latency.png", pip_install(extra="offline"))


def render_video(spool: Spool, labels: LabelSet, path: Path, progress: Callable[[int], None]) -> int:
    """Draw every kept frame; the video plays at the speed at which the frames were taken. Returns how many.

    Raises:
        DriveSegError: the file cannot be written.
    """
    stamps = []
    writer = VideoWriter(path, _pace([frame.stamp_ns for frame in spool.frames()]))
    try:
        for frame in spool.frames():
            rgb = decode_rgb(frame.image)
            size = (frame.image.width, frame.image.height)
            mask = mask_of(frame.panoptic)
            core = Frame(frame.image, stamp_ns=frame.stamp_ns)
            result = PanopticResult(
                core, mask, frame.panoptic, frame.instances, size, lanes=frame.lanes, times=frame.times
            )
            writer.write(draw_overlay(rgb, result, labels, frame.times, fps=frame.fps or None))
            stamps.append(frame.stamp_ns)
            progress(len(stamps))
    finally:
        writer.close()
    return len(stamps)


def _pace(stamps: Sequence[int]) -> float:
    """Frames per second over ascending stamps, but for gaps where their clock was set."""
    gaps = np.diff(np.array(stamps, np.int64)) / 1e9
    usual = gaps[gaps <= _JUMP * np.median(gaps)] if gaps.size else gaps
    span = float(usual.sum())
    return usual.size / span if span > 0 else 15.0


def plot_latency(rows: Sequence[tuple[float, StageTimes]], path: Path) -> None:
    """Two panels: every frame's stages stacked over time with end_to_end, and percentiles by stage.

    Where no frame came for a while, nothing is drawn. Frames far beyond the others are cut off, as the title says.

    Args:
        rows: (seconds on any clock, times) in order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    over_time, by_stage = figure.subplots(2, 1, gridspec_kw={"height_ratios": [3, 2]})
    _draw_frames(over_time, rows)
    _draw_percentiles(by_stage, rows)
    for axes in (over_time, by_stage):
        handles, names = axes.get_legend_handles_labels()
        order = slice(None, None, -1 if axes is over_time else 1)  # of a stack, as it is stacked
        axes.legend(handles[order], names[order], loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    figure.savefig(path, dpi=110)


def _draw_frames(axes: Any, rows: Sequence[tuple[float, StageTimes]]) -> None:
    seconds = np.array([moment for moment, _ in rows])
    seconds = seconds - (seconds[0] if seconds.size else 0.0)
    gaps = np.diff(seconds)
    breaks = np.flatnonzero(gaps > max(_LEAST_BREAK_S, _BREAK * gaps.mean())) + 1 if gaps.size else np.empty(0, np.intp)
    moments = np.insert(seconds, breaks, np.nan)

    def joined(stage: str, missing: float) -> NDArray[np.float64]:
        return np.insert(_column(rows, stage, missing), breaks, np.nan)

    stacked = [stage for stage in STAGE_COLORS if _column(rows, stage).any()]
    colors = ["#{:02x}{:02x}{:02x}".format(*STAGE_COLORS[stage]) for stage in stacked]
    if stacked:
        axes.stackplot(moments, [joined(stage, 0.0) for stage in stacked], labels=stacked, colors=colors)
    whole = joined("end_to_end", np.nan)
    if np.isfinite(whole).any():
        axes.plot(moments, whole, color="black", linewidth=0.8, label="end_to_end")
    axes.axhline(1000 / 30, color="black", linestyle="--", linewidth=1.0, label="one frame at 30 Hz")
    tallest = np.fmax(np.sum([_column(rows, stage) for stage in stacked], axis=0), _column(rows, "end_to_end"))
    title = "latency of every frame, camera stamp to published"
    top = _TALLEST * float(np.percentile(tallest, 95)) if tallest.size else 0.0
    beyond = tallest[tallest > top]
    if beyond.size and top > 0:
        axes.set_ylim(top=top)
        title += f"\n{beyond.size} of {tallest.size} frames cut off, the longest took {beyond.max():.0f} ms"
    axes.set(xlabel="seconds", ylabel="ms", title=title)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _draw_percentiles(axes: Any, rows: Sequence[tuple[float, StageTimes]]) -> None:
    names, found = [], []
    for stage in (*STAGE_COLORS, "processing", "end_to_end"):
        values = _column(rows, stage, missing=np.nan)
        percentiles = Percentiles.of(values[np.isfinite(values)])
        if percentiles is not None:
            names.append(stage)
            found.append(percentiles)
    for shift, (statistic, color) in enumerate(_PERCENTILE_COLORS.items()):
        heights = [getattr(percentiles, statistic) for percentiles in found]
        bars = axes.bar(np.arange(len(names)) + (shift - 1) * 0.27, heights, 0.25, label=statistic, color=color)
        axes.bar_label(bars, fmt="%.1f", fontsize="x-small")
    axes.set_xticks(np.arange(len(names)), names)
    axes.set(ylabel="ms", title="percentiles by stage")
    axes.margins(y=0.1)


def _column(rows: Sequence[tuple[float, StageTimes]], stage: str, missing: float = 0.0) -> NDArray[np.float64]:
    values = (getattr(times, stage) for _, times in rows)
    return np.array([missing if value is None else value for value in values], np.float64)
