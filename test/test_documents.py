"""What the documents show must work as it stands: files they link to, options, parameters, and their YAML."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


def test_the_tutorial_s_node_says_what_it_takes() -> None:
    for package in ("rclpy", "vision_msgs", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    node = ROOT / "benchmarks" / "tutorial_node.py"
    done = subprocess.run([sys.executable, str(node), "--help"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and "model sidecar" in done.stdout


@pytest.mark.parametrize("command", ["sim", "run"])
def test_the_help_of_a_command_names_everything_it_writes(command: str, tmp_path: Path) -> None:
    from tiny_model import write_tiny_model
    from typer.testing import CliRunner

    from drive_seg.cli import app

    source = tmp_path / "drive"
    made = CliRunner().invoke(app, ["sim", "--frames", "1", "--width", "64", "--height", "64", "-o", str(source)])
    assert made.exit_code == 0, made.output
    beside = set()
    if command == "run":
        model = str(write_tiny_model(tmp_path))
        (tmp_path / "video").mkdir()
        for out in ("out", "video/OUT.mp4"):
            arguments = ["run", str(source / "image"), "-o", str(tmp_path / out), "--model", model]
            done = CliRunner().invoke(app, [*arguments, "--backend", "onnxruntime"])
            assert done.exit_code == 0, done.output
        beside = {path.name.replace("OUT.mp4", "OUT") for path in (tmp_path / "video").iterdir()}
    said = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, [command, "--help"]).output)
    written = beside | {path.name for path in (source if command == "sim" else tmp_path / "out").iterdir()}
    assert len(written) >= 4
    assert not [name for name in written if name not in said]


def test_the_parameter_file_for_several_cameras_loads() -> None:
    from drive_seg.config import Parameter, load

    (shown,) = (block for block in blocks("README.md", "yaml") if "cameras:" in block)
    given = yaml.safe_load(shown)["/**"]["ros__parameters"]

    def value(parameter: Parameter) -> object:
        camera, _, name = parameter.name.rpartition(".")
        return (given[camera] if camera else given).get(name, parameter.default)

    cameras = {camera.name: camera for camera in load(value).cameras}
    assert list(cameras) == ["front", "rear"]
    assert cameras["rear"].compressed and cameras["rear"].camera_info_topic == "/rear/camera_info"


def test_the_readme_says_what_the_ids_of_the_shipped_models_mean() -> None:
    from drive_seg.model import load_model
    from drive_seg.resources import find_model

    found = re.search(r"Classes of the shipped models: (.*?)\.", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    said = [tuple(entry.split()) for entry in found[1].split(",")]
    for name in ("default", "simulator"):
        labels = load_model(find_model(name)).labels
        assert said == [(str(label.id), label.name) for label in labels]
        assert [label.id for label in labels.things] == [3, 4, 5]


def test_the_pixels_of_a_detection_are_found_as_the_readme_says() -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")
    import numpy as np
    from std_msgs.msg import Header

    from drive_seg.frame import Box, Instance
    from drive_seg.ros.convert import ImageBuffer, detections

    buffer = ImageBuffer("16UC1")
    buffer.pixels((4, 6), np.uint16)[:] = 1
    buffer.pixels((4, 6), np.uint16)[1:3, 2:4] = 3001
    (shown,) = (block for block in blocks("README.md", "python") if "detection.id" in block)
    for track, expected in ((None, ""), (17, "17")):
        car = Instance(3001, 3, "vehicle", 0.9, Box(2, 1, 2, 2), 4, track)
        names = {"numpy": np, "panoptic": buffer.message(Header()), "instances": detections([car], Header())}
        exec(shown, names)
        assert names["track"] == expected
        assert np.argwhere(names["pixels"]).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]


def test_every_parameter_is_in_the_readme_with_its_default() -> None:
    from drive_seg.config import PARAMETERS

    table = (ROOT / "README.md").read_text().partition("### Parameters")[2].partition("### Tracking")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    said = {
        name: default
        for row in rows
        for name, default in zip(re.findall(r"`([a-z_]+)`", row[0]), row[1].split(", "), strict=False)
    }
    for parameter in PARAMETERS:
        default = said[parameter.name].strip("`").split(" ")[0]
        wanted = parameter.default
        if isinstance(wanted, list):
            assert default == f"[{', '.join(wanted)}]"
        elif isinstance(wanted, bool):
            assert default == str(wanted).lower()
        else:
            assert type(wanted)(default) == wanted
            assert not isinstance(wanted, float) or "." in default, "ROS refuses 30 where 30.0 is wanted"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            assert (document.parent / path).exists() if path else anchor in anchors, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_options_that_are_shown_exist(document: Path) -> None:
    import typer

    from drive_seg.cli import app

    group = typer.main.get_command(app)
    for name, rest in re.findall(r"drive_seg ([a-z-]+)((?:[^`\n#&]|\\\n)*)", document.read_text()):
        command = getattr(group, "commands", {}).get(name)
        if command is None:
            continue
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert not set(re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", rest)) - known - {"--help"}, f"{name}{rest}"
