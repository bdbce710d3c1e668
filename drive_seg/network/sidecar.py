"""Writing model sidecars; ``drive_seg.model`` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from drive_seg.documents import read_yaml


def write_sidecar(path: Path, document: dict[str, Any]) -> None:
    """Write the sidecar in the order of ``document``, short lists on one line."""
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Replace ``metrics:`` of an existing sidecar, fractions rounded to four digits."""
    document = read_yaml(path, "model sidecar")
    document["metrics"] = _rounded(metrics)
    write_sidecar(path, document)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 4) if isinstance(value, float) else value
