"""The figures of an evaluation on a terminal."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from drive_seg.commands.terminal import latency_table
from drive_seg.errors import counted


def tables(document: dict[str, Any]) -> list[Table | str]:
    """The figures of ``metrics.json`` for people."""
    shown: list[Table | str] = [_class_table(document), _overall(document)]
    if document["latency_ms"]:
        shown.append(latency_table(document["latency_ms"]))
    return shown


def _class_table(document: dict[str, Any]) -> Table:
    table = Table(
        title=f"{counted(document['frames'], 'frame')}, percent",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("class", "PQ", "SQ", "RQ", "TP", "FP", "FN", "IoU", "edge F1", "AP"):
        table.add_column(column, justify="left" if column == "class" else "right", no_wrap=True)
    panoptic, boundary = document["panoptic"], document["boundary"]["per_class"]
    instance = document["instance"]["per_class"]
    for name, row in panoptic["per_class"].items():
        table.add_row(
            name,
            *(_percent(row[key]) for key in ("pq", "sq", "rq")),
            *(str(row[key]) for key in ("tp", "fp", "fn")),
            *map(_percent, (document["semantic"]["per_class"][name], boundary[name]["f1"])),
            _percent(instance.get(name, {}).get("ap")),
        )
    table.add_section()
    whole = (document["semantic"]["miou"], document["boundary"]["f1"], document["instance"]["ap"])
    for kind in ("things", "stuff", "all"):
        row = panoptic[kind]
        rest = map(_percent, whole) if kind == "all" else ()
        table.add_row(kind, *(_percent(row[key]) for key in ("pq", "sq", "rq")), "", "", "", *rest)
    return table


def _overall(document: dict[str, Any]) -> str:
    lane, temporal, unmatched = document["lane"], document["temporal"], document["unmatched"]
    tracking = document["tracking"]
    parts = [f"lane marking F1 {_percent(lane['f1'])} within {lane['tolerance_px']} px, IoU {_percent(lane['iou'])}"]
    if lane["lines"] is not None:
        lines = lane["lines"]
        within = f"within {lines['tolerance_px']} px ({lines['found']} of {lines['true']})"
        parts.append(f"lane boundaries F1 {_percent(lines['f1'])} {within}")
    parts.append(f"flicker {_percent(temporal['flicker'])} of still pixels")
    if tracking["idf1"] is not None:
        switches = tracking["id_switches"]
        ids = f"{switches} identity switch{'' if switches == 1 else 'es'} of {tracking['objects']} objects"
        parts.append(f"tracking IDF1 {_percent(tracking['idf1'])}, MOTA {_percent(tracking['mota'])}, {ids}")
    if document["fps"] is not None:
        parts.append(f"{document['fps']:.1f} frames/s, scoring included")
    if unmatched["predictions"]:
        parts.append(f"{counted(unmatched['predictions'], 'frame')} without truth")
    if unmatched["truths"]:
        parts.append(f"{counted(unmatched['truths'], 'truth')} without frame")
    return "; ".join(parts)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"
