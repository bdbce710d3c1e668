"""Writing model sidecars, which ``drive_seg.model`` reads, and telling those of our classes from others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from drive_seg.documents import read_yaml
from drive_seg.errors import ModelError
from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.model import Model, open_model


def load_own(spec: str) -> Model:
    """The model of a name or a sidecar, for what compares its answers with labels of ours by their ids.

    Raises:
        ModelError: there is none, or its classes are not those that training gives.
    """
    model = open_model(spec)
    if [_meaning(label) for label in model.labels] != [_meaning(label) for label in DRIVING]:
        raise ModelError(
            f"{model.path} has the classes {_listed(model.labels)}; only models of {_listed(DRIVING)} can be used "
            "here; drive_seg evaluate with a --label-map scores others"
        )
    return model


def _meaning(label: Label) -> tuple[int, str, bool]:
    return label.id, label.name, label.thing


def _listed(labels: LabelSet) -> str:
    return ", ".join(label.name for label in labels)


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
