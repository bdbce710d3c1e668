"""Labels, configuration, sidecar and telemetry: what they accept, what they refuse and how they say it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from drive_seg.config import PARAMETERS, Parameter, camera_parameters, load
from drive_seg.errors import ConfigError, ModelError
from drive_seg.labels import DRIVING, LabelSet, mask_of
from drive_seg.model import load_model
from drive_seg.telemetry import Percentiles, Window

ROOT = Path(__file__).resolve().parents[1]


def test_shipped_configuration_states_every_parameter_and_its_default() -> None:
    shipped = yaml.safe_load((ROOT / "config" / "drive_seg.yaml").read_text())["/**"]["ros__parameters"]
    assert shipped.pop("front") == {p.name.removeprefix("front."): p.default for p in camera_parameters("front")}
    assert shipped == {parameter.name: parameter.default for parameter in PARAMETERS}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("backend", "cuda", "must be one of auto, tensorrt"),
        ("score_threshold", 1.5, "<= 1.0, got 1.5"),
        ("min_instance_area", -1, ">= 0, got -1"),
        ("min_instance_area", True, "must be int, got bool"),
        ("score_threshold", True, "must be float, got bool"),
        ("score_threshold", float("nan"), "got nan"),
        ("autostart", 1, "must be bool, got int"),
        ("model", 3, "must be str, got int"),
        ("network_size", "960x544px", "which it cannot be"),
        ("cameras", [], "at least one"),
        ("cameras", ["a", "a"], "unique"),
        ("cameras", ["front camera"], "letters"),
        ("cameras", ["rück"], "letters"),
        ("cameras", [1], "list of strings"),
        ("front.image_topic", "", "must not be empty"),
        ("front.image_topic", "/camera/image-raw", "front.image_topic is '/camera/image-raw'"),
        ("front.camera_info_topic", "no topic!", "front.camera_info_topic is 'no topic!'"),
    ],
)
def test_refused_values_name_parameter_expectation_and_value(name: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(lambda parameter: value if parameter.name == name else parameter.default)


@pytest.mark.parametrize("topic", ["/a/b_1", "image_raw", "~/image/compressed", "/{node}/image", "_hidden/x"])
def test_topics_of_every_form_are_taken(topic: str) -> None:
    config = load(lambda parameter: topic if parameter.name == "front.image_topic" else parameter.default)
    assert config.cameras[0].image_topic == topic


@pytest.mark.parametrize("topic", ["/", "~", "~a", "//a", "a/", "a//b", "/2a", "a b", "ä"])
def test_what_ros_takes_for_no_topic_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match="image_topic"):
        load(lambda parameter: topic if parameter.name == "front.image_topic" else parameter.default)


def test_integers_are_accepted_where_a_float_is_meant() -> None:
    def lookup(parameter: Parameter) -> Any:
        return 250 if parameter.name == "max_age_ms" else parameter.default

    assert load(lookup).max_age_ms == 250.0


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=50))
def test_mask_of_panoptic(values: list[int]) -> None:
    legal = [v for v in values if v < 65000 or v == 65535]
    expected = [255 if v == 65535 else v // 1000 if v >= 1000 else min(v, 255) for v in legal]
    if legal and all(v >= 1000 or v < 256 for v in legal):
        assert mask_of(np.array(legal, np.uint16)).tolist() == expected


@pytest.mark.parametrize("table", ["palette", "is_thing"])
def test_what_all_share_of_the_labels_cannot_be_written(table: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(DRIVING, table)[3] = 0


def test_label_sets_refuse_what_the_formats_cannot_hold() -> None:
    row = {"id": 0, "name": "a", "thing": False, "color": [1, 2, 3]}
    assert len(LabelSet.from_dicts([row])) == 1
    for change, message in (
        ({"id": 1}, "0..n-1"),
        ({"color": [1, 2]}, "three values"),
        ({"color": [1, 2, 256]}, "0..255"),
        ({"name": ""}, "non-empty"),
        ({"name": None}, "name must be text, in quotes if need be, got None"),
        ({"name": False}, "name must be text, .* got False"),  # YAML's no
        ({"name": 7}, "name must be text, .* got 7"),
        ({"name": "a\x1b[31m"}, "without control characters; .* is not"),
        ({"name": "a\ud800"}, "without control characters"),
    ):
        with pytest.raises(ModelError, match=message):
            LabelSet.from_dicts([{**row, **change}])
    with pytest.raises(ModelError, match="must have id, name"):
        LabelSet.from_dicts([{"id": 0}])
    rows = [{**row, "id": number, "name": f"c{number % 100}"} for number in range(150)]
    with pytest.raises(ModelError, match=r"unique .*; 'c0' is not$"):
        LabelSet.from_dicts(rows)


@pytest.mark.parametrize("name", ["traffic light", "Straße 道路", "a/b", "void", "all", "🚗", "x" * 400])
def test_label_names_may_be_any_text(name: str) -> None:
    row = {"id": 0, "name": name, "thing": False, "color": [1, 2, 3]}
    assert LabelSet.from_dicts([row, {**row, "id": 1, "name": name.upper() + "2"}])[0].name == name


def sidecar(folder: Path, **changes: Any) -> Path:
    onnx = folder / "net.onnx"
    onnx.write_bytes(b"graph")
    tree: dict[str, Any] = {
        "name": "net",
        "task": "panoptic",
        "onnx": {"fp32": {"path": "net.onnx", "sha256": hashlib.sha256(b"graph").hexdigest()}},
        "input": {"width": 640, "height": 384, "layout": "NHWC", "dtype": "uint8", "color": "rgb"},
        "labels": [{"id": x.id, "name": x.name, "thing": x.thing, "color": list(x.color)} for x in DRIVING],
    }
    tree.update(changes)
    path = folder / "net.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_sidecar_round_trip_and_digest(tmp_path: Path) -> None:
    model = load_model(sidecar(tmp_path))
    assert model.labels == DRIVING and model.graph("fp32") == tmp_path / "net.onnx"
    with pytest.raises(ModelError, match="no int8 graph, it has fp32"):
        model.graph("int8")
    digest = {"path": "net.onnx", "sha256": hashlib.sha256(b"graph").hexdigest().upper()}  # as PowerShell prints it
    assert load_model(sidecar(tmp_path, onnx={"fp32": digest})).graph("fp32") == tmp_path / "net.onnx"
    (tmp_path / "net.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="damaged or was replaced"):
        model.graph("fp32")
    (tmp_path / "net.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234567\n")
    with pytest.raises(ModelError, match=r"net\.onnx is only a pointer of Git LFS: do git lfs pull"):
        model.graph("fp32")
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(ModelError, match="does not exist"):
        model.graph("fp32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "depth"}, "task must be 'panoptic'"),
        ({"onnx": {"fp32": {"path": "../net.onnx", "sha256": ""}}}, "leaves the folder"),
        ({"onnx": {"fp64": {"path": "net.onnx", "sha256": ""}}}, "precision must be one of"),
        ({"onnx": {}}, "at least one of"),
        (
            {"input": {"width": 640, "height": 380, "layout": "NHWC", "dtype": "uint8", "color": "rgb"}},
            "multiple of 32",
        ),
        (
            {"input": {"width": 640, "height": 384, "layout": "NCHW", "dtype": "uint8", "color": "rgb"}},
            "NHWC",
        ),
        ({"labels": "road"}, "must have id|malformed"),
        ({"labels": [{"id": 0, "name": "car", "thing": True, "color": [1, 2, 3]}]}, "label 0, 'car', is a thing"),
        (
            {"labels": [{"id": i, "name": f"c{i}", "thing": i == 65, "color": [1, 2, 3]} for i in range(150)]},
            r"net\.yaml: label 65, 'c65', is a thing: .* do not fit 16 bits; things have ids up to 64\. .*`decoder:`",
        ),
        ({"outputs": {"sematic": "x"}}, "malformed: `outputs` has the unknown keys 'sematic'; expected semantic, conf"),
        ({"outputs": None}, "`outputs` must be a mapping of semantic, .*, got None"),
        ({"decoder": {"kind": "semantic_ids"}}, "`decoder` lacks output"),
        ({"onnx": {"fp32": {"path": "net.onnx"}}}, "`onnx: fp32` lacks sha256"),
        ({"onnx": {"fp32": "net.onnx"}}, "`onnx: fp32` must be a mapping of path, sha256, got 'net.onnx'"),
        ({"labels": None}, "`labels` must be a list, got None"),
        (
            {
                "input": {
                    "width": 64,
                    "height": 64,
                    "layout": "NHWC",
                    "dtype": "uint8",
                    "color": "rgb",
                    "std": [1, 1, 1],
                }
            },
            r"got {.*'std': \[1, 1, 1\]}; another needs a `decoder:`",
        ),
        (
            {"labels": [{"id": 0, "name": "road", "thing": "no", "color": [1, 2, 3]}]},
            r"net\.yaml: label 0 must have .*\(thing must be true or false, got 'no'\)",
        ),
        (
            {"labels": [{"id": 0.7, "name": "road", "thing": False, "color": [1, 2, 3]}]},
            r"id must be a whole number, got 0\.7",
        ),
    ],
)
def test_unusable_sidecars_say_what_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(sidecar(tmp_path, **changes))


def test_a_sidecar_that_is_no_yaml_or_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    for content in (b"a: [", b"- list\n", b"\xff\xfe\x00"):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"broken\.yaml"):
            load_model(file)
    with pytest.raises(ModelError, match="cannot read"):
        load_model(tmp_path / "absent.yaml")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_observed_values_with_the_right_share_below(values: list[float]) -> None:
    found = Percentiles.of(np.array(values))
    assert found is not None and found.max == max(values)
    for share, value in ((0.50, found.p50), (0.95, found.p95), (0.99, found.p99)):
        assert value in values
        assert sum(v <= value for v in values) >= share * len(values) - 1e-9
        assert sum(v < value for v in values) < share * len(values)


def test_a_window_forgets_and_stays_bounded() -> None:
    now = [0.0]
    window = Window(seconds=10.0, capacity=8, clock=lambda: now[0])
    assert window.percentiles() is None
    for second in range(20):
        now[0] = float(second)
        window.add(float(second))
    assert sorted(window.values().tolist()) == [12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0]
    now[0] = 25.5
    assert sorted(window.values().tolist()) == [16.0, 17.0, 18.0, 19.0]
    now[0] = 60.0
    assert window.values().size == 0
