"""``report.html``: an evaluation as one page that needs nothing else, neither a network nor a script."""

from __future__ import annotations

import base64
import importlib.util
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drive_seg.errors import DriveSegError, MissingDependency
from drive_seg.offline import report_view as view
from drive_seg.offline.evaluation import Evaluation
from drive_seg.offline.report_figures import INSTALL, distribution_plot, percentile_plot, score_plot
from drive_seg.offline.report_frames import FramePicture

TEMPLATE = "report.html.j2"


def require_report_packages() -> None:
    """Raise MissingDependency where ``write_report`` would: before a long evaluation, not after it."""
    for package in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(package, "report.html", INSTALL)


def write_report(
    path: Path,
    evaluation: Evaluation,
    worst: Sequence[FramePicture] = (),
    times_ms: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        worst: pictures of the worst frames, worst first (``WorstFrames.frames``).
        times_ms: milliseconds of every frame by stage, for the distribution; left out where None.

    Raises:
        DriveSegError: the file cannot be written.
        MissingDependency: jinja2 or matplotlib is not installed.
    """
    page = render_report(evaluation, worst, times_ms)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files that are no UTF-8 have in their text what UTF-8 cannot write.
        path.write_bytes(page.encode("utf-8", errors="replace"))
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # half a page looks like a whole one
        raise DriveSegError(f"cannot write {path}: {error}") from error


def render_report(
    evaluation: Evaluation,
    worst: Sequence[FramePicture] = (),
    times_ms: Mapping[str, Sequence[float]] | None = None,
) -> str:
    """The page as text; the arguments are those of ``write_report``."""
    environment = _environment()
    metrics, latency = evaluation.metrics, evaluation.latency
    measured = {stage: values for stage, values in (times_ms or {}).items() if len(values)}
    scored = _scores_by_frame(evaluation)
    page: str = environment.get_template(TEMPLATE).render(
        title=_title(evaluation.environment),
        cards=view.main_cards(metrics, latency),
        more_cards=view.more_cards(metrics),
        classes=view.class_rows(metrics),
        confusion=view.confusion(metrics),
        score_plot=score_plot(scored) if scored else None,
        latency=latency,
        percentile_plot=percentile_plot(latency) if latency else None,
        distribution_plot=distribution_plot(measured) if measured else None,
        worst=worst,
        command=evaluation.command,
        facts=list(view.facts(evaluation.environment)),
    )
    return page


def _scores_by_frame(evaluation: Evaluation) -> dict[str, list[float]]:
    """What there is of PQ and mIoU, a value for every frame; nothing for a single frame."""
    rows = [(frame.pq, frame.miou) for frame in evaluation.frames]
    if len(rows) < 2:
        return {}
    things = (evaluation.metrics.get("panoptic") or {}).get("things") or {}
    names = ("PQ" if things.get("pq") is not None else "PQ of stuff", "mIoU")
    columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}
    return {name: values for name, values in columns.items() if any(map(math.isfinite, values))}


def _title(environment: Mapping[str, Any]) -> str:
    """What was evaluated, in a few words."""
    source = environment.get("source")
    parts = (environment.get("model"), Path(str(source)).name if source else None)
    return " on ".join(str(part) for part in parts if part)


def _environment() -> Any:
    """Jinja with everything escaped and a misspelt name an error."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependency("jinja2", "report.html", INSTALL) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("drive_seg.offline"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = view.percent
    environment.filters["data_url"] = lambda jpeg: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    return environment
