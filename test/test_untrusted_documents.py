"""YAML and JSON from outside: whatever is in them, they are read or refused in one clear sentence."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drive_seg.documents import MAX_BYTES, MAX_DEPTH, read_yaml
from drive_seg.errors import ConfigError, ModelError, SourceError
from drive_seg.labels import DRIVING
from drive_seg.model import load_model
from drive_seg.offline.evaluate import evaluate_predictions
from drive_seg.offline.evaluation import Evaluation
from drive_seg.offline.instance_lists import instances_of
from drive_seg.offline.label_map import bind, load_map
from drive_seg.offline.predictions import open_predictions
from drive_seg.offline.truth import open_truth
from drive_seg.offline.truth_sets import open_coco

ROOT = Path(__file__).resolve().parents[1]

SIDECAR = {
    key: value for key, value in yaml.safe_load((ROOT / "models/default.yaml").read_text()).items() if key != "metrics"
}
# One folder serves all examples of a property.
lenient = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.sampled_from([10**400, float("inf"), float("nan"), "../../etc/passwd", "/etc/passwd", "fp32", "NHWC"]),
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4), max_leaves=12
)


def laughs(levels: int = 40) -> str:
    """A short document that stands for 9 ** levels entries."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


EVIL = [
    laughs(),
    "classes: {road: &r [road], car: *r}",
    "[" * 5000,
    "a: " * 5000,
    "- " * 3000 + "x",
    "? " * 3000,
    "a: 2001-99-99",
    "a: " + "9" * 5000,
    "a: 1" + ":1" * 60000,
    "!!python/object/apply:os.system ['true']",
    "!!python/name:os.system",
    "a: !!binary '*'",
    "a: !!int x",
    "a: !!int ''",
    "a: !!float ''",
    "a: !!bool perhaps",
    "a: !!timestamp soon",
    "{[1]: 2}",
    "%TAG !e! tag:" + "x" * 100_000 + "\n---\n[" + "!e!a 1, " * 1000 + "]",
    "\x00",
    "name: [1\n",
    "name: mine\n\tmodel: ours\n",
    "a: " + "x" * MAX_BYTES,
]


def readers(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """Whatever reads a YAML file of a user."""
    found: dict[str, Callable[[Path], Any]] = {
        "sidecar": load_model,
        "label map": lambda path: bind(load_map(str(path)), DRIVING, {"road": 0, "car": 1}),
    }
    try:
        from drive_seg.network.train_config import load_train_config
    except ImportError:  # torch is optional
        return found
    return {**found, "training": load_train_config}


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_evil_documents_are_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(text)
    for name, reader in readers(tmp_path).items():
        with pytest.raises((ConfigError, ModelError)) as caught:
            reader(path)
        assert "evil.yaml" in str(caught.value) and len(str(caught.value)) < 2000, name
        assert "\n" not in str(caught.value), name


def test_depth_and_length_have_limits_that_real_documents_are_far_from(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1))
    assert read_yaml(path, "nest")
    path.write_text("[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH)
    with pytest.raises(ConfigError, match=f"deeper than {MAX_DEPTH}"):
        read_yaml(path, "nest")
    path.write_text("# " + "x" * MAX_BYTES)
    with pytest.raises(ConfigError, match=f"at most {MAX_BYTES} bytes"):
        read_yaml(path, "nest")
    for shipped in [*ROOT.glob("config/**/*.yaml"), *ROOT.glob("models/*.yaml")]:
        assert read_yaml(shipped, "shipped") and shipped.stat().st_size < MAX_BYTES / 10


def predictions(folder: Path, name: str, text: str) -> Path:
    """A folder of one frame, and another of its truth, with one more file beside the former's."""
    for side in ("predicted", "truth"):
        (folder / side / "panoptic").mkdir(parents=True)
        assert cv2.imwrite(str(folder / side / "panoptic/000000.png"), np.full((8, 8), 3001, np.uint16))
    (folder / "predicted" / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("instances.jsonl", '{"frame": "000000", "stamp_ns": 0, "instances": [{"id": "3001", "score": NaN}]}'),
        ("instances.jsonl", '{"frame": "000000", "stamp_ns": 0, "instances": [{"id": "3001", "score": -Infinity}]}'),
        ("instances.jsonl", '{"frame": "000000", "stamp_ns": 0, "instances": [{"id": "3001", "score": 1e400}]}'),
        ("instances.jsonl", '{"frame": "000000", "stamp_ns": 0, "instances": [{"id": "3001", "score": 87.5}]}'),
        ("instances.jsonl", '{"frame": "000000", "stamp_ns": 0, "instances": [{"id": "3001", "score": -0.5}]}'),
        ("instances.jsonl", '{"frame": "000000", "stamp_ns": 1e400, "instances": []}'),
        ("instances.jsonl", "[" * 100_000),
        ("lanes.jsonl", '{"frame": "000000", "lanes": ' + "[" * 100_000),
    ],
    ids=range(8),
)
def test_lists_of_predictions_are_refused_in_one_sentence(name: str, text: str, tmp_path: Path) -> None:
    folder = predictions(tmp_path, name, text)
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        evaluate(folder)


def test_a_score_that_is_1_but_for_rounding_is_taken(tmp_path: Path) -> None:
    row = '{"frame": "000000", "stamp_ns": 0, "instances": [{"id": "3001", "score": 1.0000001}]}'
    assert evaluate(predictions(tmp_path, "instances.jsonl", row)).metrics["instance"]["ap"] == 1


def test_detections_with_endless_ids_are_not_ours() -> None:
    def detection(text: str) -> SimpleNamespace:
        return SimpleNamespace(id=text, results=[SimpleNamespace(hypothesis=SimpleNamespace(score=0.5))])

    ids = ["9" * 5000, "3001/" + "9" * 5000, "3002/7"]
    listed = instances_of(SimpleNamespace(detections=[detection(text) for text in ids]), 1)
    assert listed.scores == {3002: 0.5} and listed.tracks is None


@pytest.mark.parametrize("p95", ["null", "NaN", "1e400", '"x"', "[]", "true"])
def test_latencies_that_are_none_are_left_out(p95: str, tmp_path: Path) -> None:
    good = '"inference": {"p50": 1, "p95": 2.5, "p99": 3, "max": 4}'
    bad = good.replace("inference", "decode").replace("2.5", p95)
    text = f'{{"latency_ms": {{{bad}, "publish": 3, "queue": {{"p50": 1}}, {good}}}}}'
    folder = predictions(tmp_path, "summary.json", text)
    assert dict(evaluate(folder).latency) == {"inference": {"p50": 1, "p95": 2.5, "p99": 3, "max": 4}}


def evaluate(folder: Path) -> Evaluation:
    opened = open_predictions(str(folder / "predicted"), DRIVING)
    assert opened is not None
    return evaluate_predictions(opened, open_truth(str(folder / "truth"), DRIVING), DRIVING).evaluation


@lenient
@given(text=st.text(alphabet=st.sampled_from("ab:- \n[]{}&*!'\"#|>?%@,.019~\t"), max_size=80))
@example(text="a: &x 1\nb: *x")
def test_any_text_is_read_or_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(text)
    for reader in readers(tmp_path).values():
        try:
            reader(path)
        except (ConfigError, ModelError) as error:
            assert str(error)  # noqa: PT017 - most texts are refused, none may raise anything else


@lenient
@given(data=st.data())
def test_any_tree_in_place_of_any_entry_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    """Shipped documents with one entry replaced: what a slip of the pen, or malice, makes of them."""
    samples = {
        "configuration": ROOT / "config/drive_seg.yaml",
        "sidecar": ROOT / "models/default.yaml",
        "label map": ROOT / "config/label_maps/camvid.yaml",
        "training": ROOT / "config/train/simulator.yaml",
    }
    known = readers(tmp_path)
    name = data.draw(st.sampled_from(sorted(known)))
    tree = yaml.safe_load(samples[name].read_text())
    root: Any = {"": tree}
    branch: Any = root
    key: Any = ""
    while isinstance(branch[key], (dict, list)) and branch[key] and data.draw(st.integers(0, 3)):
        branch = branch[key]
        keys = list(branch) if isinstance(branch, dict) else list(range(len(branch)))
        key = data.draw(st.sampled_from(keys))
    branch[key] = data.draw(trees)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(root[""]))
    try:
        known[name](path)
    except (ConfigError, ModelError) as error:
        assert str(error)  # noqa: PT017


@lenient
@given(
    tree=trees,
    where=st.sampled_from(["all", "categories", "images", "annotations", "segments_info", "id", "category_id"]),
)
def test_any_coco_document_is_read_or_refused(tree: Any, where: str, tmp_path: Path) -> None:
    segment: dict[str, Any] = {"id": 1, "category_id": 1, "iscrowd": 0}
    annotation: dict[str, Any] = {"image_id": 1, "file_name": "a.png", "segments_info": [segment]}
    document: Any = {
        "categories": [{"id": 1, "name": "road"}],
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [annotation],
    }
    if where == "all":
        document = tree
    else:
        {"segments_info": annotation, "id": segment, "category_id": segment}.get(where, document)[where] = tree
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(document, default=str, skipkeys=True))
    try:
        open_coco(path)
    except SourceError as error:
        assert "coco.json" in str(error)  # noqa: PT017


def test_a_coco_document_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text("[" * 200_000)
    with pytest.raises(SourceError, match=r"coco\.json"):
        open_coco(path)


@pytest.mark.parametrize("size", [(32 * 10**8, 32), (32, 32 * 10**20), (32736, 32736), (4096, 2080)])
def test_an_input_beyond_any_image_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    tree = {**SIDECAR, "input": {**SIDECAR["input"], "width": size[0], "height": size[1]}}
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ModelError, match=rf"net\.yaml: the input cannot be: {size[0]}x{size[1]} is over"):
        load_model(path)


def sidecar(folder: Path, path: str, digest: str = "0" * 64) -> Path:
    tree = dict(SIDECAR)
    tree["onnx"] = {"fp32": {"path": path, "sha256": digest}}
    file = folder / "net.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def test_no_path_of_a_sidecar_leaves_its_folder(tmp_path: Path) -> None:
    folder, secret = tmp_path / "model", tmp_path / "secret.onnx"
    (folder / "inner").mkdir(parents=True)
    secret.write_bytes(b"graph")
    (folder / "link.onnx").symlink_to(secret)
    (folder / "up").symlink_to(tmp_path)
    (folder / "inner/net.onnx").write_bytes(b"graph")
    for path in (
        "../secret.onnx",
        str(secret),
        "link.onnx",
        "up/secret.onnx",
        "inner/../../secret.onnx",
        ".",
        "..",
        "/",
    ):
        with pytest.raises(ModelError, match="leaves the folder"):
            load_model(sidecar(folder, path))
    digest = hashlib.sha256(b"graph").hexdigest()
    assert load_model(sidecar(folder, "inner/net.onnx", digest)).graph("fp32") == folder / "inner/net.onnx"


@lenient
@given(path=st.text(max_size=20) | st.sampled_from(["a\0b", "x" * 5000, "~/x"]))
def test_any_path_of_a_sidecar_stays_inside_or_is_refused(path: str, tmp_path: Path) -> None:
    try:
        model = load_model(sidecar(tmp_path, path))
    except ModelError:
        return
    assert tmp_path in model.onnx["fp32"].path.parents
    with pytest.raises(ModelError):
        model.graph("fp32")


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "os.system", "os.popen"}


def unsafe_calls(tree: ast.AST) -> list[str]:
    """What loads code where data is meant, as 'line: what'."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"{node.lineno}: imports {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given_as = {word.arg: ast.unparse(word.value) for word in node.keywords}
        positional = [ast.unparse(argument) for argument in node.args]
        if (
            name in UNSAFE_CALLS
            or name.endswith("read_pickle")
            or (name == "torch.load" and given_as.get("weights_only") != "True")
            or (name.endswith("np.load") and given_as.get("allow_pickle", "False") != "False")
            or (name == "yaml.load" and positional[1:] != ["_PlainLoader"])
            or given_as.get("shell", "False") != "False"
        ):
            found.append(f"{node.lineno}: {ast.unparse(node)[:80]}")
    return found


def test_nothing_in_the_package_loads_pickle_or_runs_text() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{what}"
        for path in sorted((ROOT / "drive_seg").rglob("*.py"))
        for what in unsafe_calls(ast.parse(path.read_text()))
    }
    assert found == set()


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(line: str) -> None:
    assert len(unsafe_calls(ast.parse(line))) == 1
