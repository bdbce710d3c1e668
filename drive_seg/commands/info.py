"""``drive_seg info``: what this machine has, and what ``auto`` would pick."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from drive_seg.commands.options import AsJson, Debug

EXAMPLES = """[bold]Examples[/bold]

drive_seg info

drive_seg info --model models/default.yaml --json"""


def info(
    model: Annotated[
        str, typer.Option("--model", help="Also print and check this model: a name, or path of a sidecar YAML.")
    ] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show ROS, GPU and backends, why one is unavailable, and what auto would pick."""
    from rich.table import Table
    from rich.text import Text

    from drive_seg.commands.terminal import report
    from drive_seg.machine import describe_machine, describe_model, try_auto

    found: dict[str, Any] = describe_machine()
    found["auto"] = try_auto(model or "default")
    if model:
        found["model"] = describe_model(model)
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for key, value in _rows(found):
        table.add_row(key, Text(str(value)))  # a string would lose what stands in brackets as markup
    report(as_json, found, table)
    if model and found["auto"]["backend"] == "none" and "available" in found["backends"].values():
        from drive_seg.errors import EngineError

        raise EngineError(found["auto"]["why"])


def _rows(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{key} ")
        else:
            rows.append((f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else value))
    return rows
