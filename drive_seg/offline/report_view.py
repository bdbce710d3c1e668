"""What a report shows, as plain values: the content of ``metrics.json`` sorted into cards, rows and cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Card:
    """One figure. ``value`` is None where there is none; ``notes`` are lines below it, that then say why."""

    label: str
    value: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassRow:
    """The scores of one class, 0..1, None where they are undefined; ``color`` is its CSS colour.

    ``counts`` are the matched, the false and the missed segments.
    """

    name: str
    kind: str
    color: str
    iou: float | None
    pq: float | None
    sq: float | None
    rq: float | None
    boundary: float | None
    ap: float | None
    counts: tuple[int, int, int] | None


@dataclass(frozen=True)
class ConfusionRow:
    """One class of the truth: its pixels, and their shares by predicted class, 0..1, None where it has no pixel."""

    name: str
    pixels: int
    shares: tuple[float | None, ...]


@dataclass(frozen=True)
class Confusion:
    """Truth down, prediction across; the diagonal is right."""

    columns: tuple[str, ...]
    rows: tuple[ConfusionRow, ...]


def main_cards(metrics: Tree, latency_ms: Tree) -> list[Card]:
    """The figures that everyone asks for first."""
    panoptic, semantic, lane = (_part(metrics, key) for key in ("panoptic", "semantic", "lane"))
    found = [Card("Frames", f"{metrics['frames']:,}", _unmatched(_part(metrics, "unmatched")))]
    for group, label in (("all", "PQ"), ("things", "PQ things"), ("stuff", "PQ stuff")):
        scores = _part(panoptic, group)
        stuff_only = group == "all" and _part(panoptic, "things").get("pq") is None
        qualities = (f"SQ {percent(scores.get('sq'))}", f"RQ {percent(scores.get('rq'))}")
        parts = ("of stuff only",) if stuff_only else qualities
        found.append(_fraction(label, scores.get("pq"), parts, "truth without instances"))
    classes = sum(iou is not None for iou in _part(semantic, "per_class").values())
    known = ("of one class",) if classes == 1 else ("mean of", f"{classes} classes")
    found.append(_fraction("mIoU", semantic.get("miou"), known, "no labelled pixel"))
    lane_notes = (f"within {lane.get('tolerance_px')} px", f"IoU {percent(lane.get('iou'))}")
    found.append(_fraction("Lane F1", lane.get("f1"), lane_notes, "truth without lane markings"))
    lines = _part(lane, "lines")
    if lines:
        line_notes = (f"{lines['found']} of {lines['true']} found", f"{lines['predicted']} predicted")
        found.append(_fraction("Lane lines F1", lines["f1"], line_notes, "no lane boundaries"))
    fps, whole = metrics.get("fps"), _part(latency_ms, "processing") or _part(latency_ms, "end_to_end")
    times = (f"p50 {whole['p50']:.1f} ms", f"p99 {whole['p99']:.1f} ms") if whole else ()
    found.append(Card("Throughput", f"{fps:.1f} fps" if fps else None, times or ("predictions from files",)))
    return found


def more_cards(metrics: Tree) -> list[Card]:
    """Figures for the second look."""
    boundary, instance, temporal = (_part(metrics, key) for key in ("boundary", "instance", "temporal"))
    tracking = _part(metrics, "tracking")
    tolerance = (f"mean over classes, within {boundary.get('tolerance_px')} px",)
    ap_notes = (f"AP50 {percent(instance.get('ap50'))} · AP75 {percent(instance.get('ap75'))}",)
    pairs = (f"still pixels that change class, {_counted(temporal.get('pairs', 0), 'pair')} of frames",)
    return [
        _fraction("Boundary F1", boundary.get("f1"), tolerance, "no boundary"),
        _fraction("Instance AP", instance.get("ap"), ap_notes, "no scored instances"),
        _fraction("Flicker", temporal.get("flicker"), pairs, "no consecutive frames", digits=2),
        _fraction("IDF1", tracking.get("idf1"), _switches(tracking), "no identities in truth or prediction"),
    ]


def _switches(tracking: Tree) -> tuple[str, ...]:
    switches, objects = tracking.get("id_switches"), tracking.get("objects")
    if not objects:
        return ()
    counted = "1 switch" if switches == 1 else f"{switches:,} switches"
    return f"{counted} of {objects:,} objects", f"MOTA {percent(tracking.get('mota'))}"


def class_rows(metrics: Tree) -> list[ClassRow]:
    """Every class with its scores."""
    iou, panoptic, boundary, instance = (
        _part(_part(metrics, key), "per_class") for key in ("semantic", "panoptic", "boundary", "instance")
    )
    rows = []
    for label in metrics["labels"]:
        name = label["name"]
        scores = _part(panoptic, name)
        counted = scores.get("pq") is not None
        rows.append(
            ClassRow(
                name,
                kind="thing" if label["thing"] else "stuff",
                color="#{:02x}{:02x}{:02x}".format(*map(int, label["color"])),
                iou=iou.get(name),
                pq=scores.get("pq"),
                sq=scores.get("sq"),
                rq=scores.get("rq"),
                boundary=_part(boundary, name).get("f1"),
                ap=_part(instance, name).get("ap"),
                counts=(int(scores["tp"]), int(scores["fp"]), int(scores["fn"])) if counted else None,
            )
        )
    return rows


def confusion(metrics: Tree) -> Confusion | None:
    """The confusion matrix, rows normalised; None where no pixel was compared."""
    matrix: Sequence[Sequence[int]] = _part(metrics, "semantic").get("confusion") or []
    if not any(map(any, matrix)):
        return None
    names = [str(label["name"]) for label in metrics["labels"]]
    rows = []
    for name, counts in zip(names, matrix, strict=True):
        total = sum(counts)
        rows.append(ConfusionRow(name, total, tuple(count / total if total else None for count in counts)))
    return Confusion((*names, "unlabelled")[: len(matrix[0])], tuple(rows))


def facts(tree: Tree, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A tree of settings as rows of name and value."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from facts(value, f"{name} · ")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield name, ", ".join(map(str, value))
        elif value not in (None, ""):
            yield name, str(value)


def percent(fraction: float | None, digits: int = 1) -> str:
    """``45.3 %`` that does not break in two, or ``n/a``."""
    return "n/a" if fraction is None else f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def _fraction(label: str, fraction: float | None, notes: tuple[str, ...], why_not: str, digits: int = 1) -> Card:
    return Card(label, None, (why_not,)) if fraction is None else Card(label, percent(fraction, digits), notes)


def _unmatched(counts: Tree) -> tuple[str, ...]:
    """What was left out, in words."""
    kinds = {"prediction": counts.get("predictions"), "truth": counts.get("truths")}
    left = [f"{_counted(count, kind)} unmatched" for kind, count in kinds.items() if count]
    return tuple(left) or ("all matched",)


def _counted(count: int, noun: str) -> str:
    """As ``errors.counted``, with the thousands apart like all numbers of the page."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _part(tree: Tree, key: str) -> Tree:
    """A branch of the tree; an empty one where it is absent or null."""
    return tree.get(key) or {}
