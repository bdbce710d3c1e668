"""What the documents show must work as it stands: files they link to, options, parameters, and their YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def blocks(document: str, language: str) -> list[str]:
    """The code of a document in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("where", ["docs/metrics.md", "drive_seg/offline/label_map.py"])
def test_the_label_map_that_is_shown_scores_the_shipped_model(where: str, tmp_path: Path) -> None:
    from drive_seg.model import load_model
    from drive_seg.offline.label_map import bind, load_map
    from drive_seg.offline.truth_sets import CITYSCAPES
    from drive_seg.resources import find_model

    found = re.search(r"^ *classes:\n.*?^ *instances: false", (ROOT / where).read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    indent = len(found[0]) - len(found[0].lstrip())
    (tmp_path / "map.yaml").write_text("\n".join(line[indent:] for line in found[0].splitlines()))
    scored = bind(load_map(str(tmp_path / "map.yaml")), load_model(find_model("default")).labels, CITYSCAPES)
    assert [label.name for label in scored.labels] == ["background", "road", "vehicle", "people"]


@pytest.mark.parametrize("command", ["sim", "run"])
def test_the_help_of_a_command_names_everything_it_writes(command: str, tmp_path: Path) -> None:
    from tiny_model import write_tiny_model
    from typer.testing import CliRunner

    from drive_seg.cli import app

    source = tmp_path / "drive"
    made = CliRunner().invoke(app, ["sim", "--frames", "1", "--width", "64", "--height", "64", "-o", str(source)])
    assert made.exit_code == 0, made.output
    if command == "run":
        model = str(write_tiny_model(tmp_path))
        arguments = ["run", str(source / "image"), "-o", str(tmp_path / "out"), "--model", model]
        done = CliRunner().invoke(app, [*arguments, "--backend", "onnxruntime"])
        assert done.exit_code == 0, done.output
    said = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, [command, "--help"]).output)
    written = {path.name for path in (source if command == "sim" else tmp_path / "out").iterdir()}
    assert len(written) >= 4
    assert not [name for name in written if name not in said]
