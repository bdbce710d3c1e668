"""The promises of every shipped ONNX file, checked with ONNX Runtime; torch is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drive_seg.labels import DRIVING
from drive_seg.model import PRECISIONS, Model, load_model

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

MODELS = sorted((Path(__file__).parents[1] / "models").glob("*.yaml"))
MAX_BYTES = 16 * 2**20
NEAR_WINDOW = 3


@pytest.fixture(scope="module", params=MODELS, ids=lambda path: str(path.stem))
def model(request: pytest.FixtureRequest) -> Model:
    return load_model(request.param)


@pytest.fixture(scope="module")
def session(model: Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(model.graph(model.precisions[0])), options, providers=["CPUExecutionProvider"])


def street(width: int, height: int, count: int = 1, seed: int = 0) -> np.ndarray:
    """Sky above asphalt, a marking, a dark box on the road, some noise: uint8 (count, height, width, 3)."""
    rng = np.random.default_rng(seed)
    image = np.full((count, height, width, 3), (150, 180, 220), np.int16)
    image[:, height // 2 :] = (95, 95, 98)
    image[:, height // 2 :, width // 2 : width // 2 + width // 80] = 235
    image[:, height * 7 // 16 : height * 10 // 16, width // 4 : width * 3 // 8] = (120, 25, 25)
    return np.clip(image + rng.integers(-12, 12, image.shape), 0, 255).astype(np.uint8)


def test_there_is_a_model_of_every_precision_and_one_without_terms_and_they_stay_small() -> None:
    models = {path.stem: load_model(path) for path in MODELS}
    assert models["default"].precisions == PRECISIONS
    assert any(model.license == "Apache-2.0" for model in models.values())
    assert sum(file.path.stat().st_size for model in models.values() for file in model.onnx.values()) <= 40e6


def test_sidecar_states_what_a_user_must_know(model: Model) -> None:
    assert model.labels == DRIVING
    assert model.metrics and model.training_data and model.license
    assert model.graph(model.precisions[0]).stat().st_size <= MAX_BYTES


def test_tensors_have_the_promised_names_and_types(session: ort.InferenceSession) -> None:
    inputs = {(t.name, t.type, len(t.shape)) for t in session.get_inputs()}
    outputs = {(t.name, t.type, len(t.shape)) for t in session.get_outputs()}
    assert inputs == {("image", "tensor(uint8)", 4)}
    assert outputs == {
        ("semantic", "tensor(uint8)", 3),
        ("confidence", "tensor(uint8)", 3),
        ("centers", "tensor(float)", 4),
        ("offsets", "tensor(float)", 4),
    }


@pytest.mark.parametrize(("width", "height", "count"), [(640, 384, 1), (320, 192, 2), (960, 544, 1), (96, 64, 3)])
def test_any_batch_and_size(session: ort.InferenceSession, width: int, height: int, count: int) -> None:
    semantic, confidence, centers, offsets = session.run(None, {"image": street(width, height, count)})
    assert semantic.shape == confidence.shape == (count, height, width)
    assert centers.shape == (count, len(DRIVING.things), height // 4, width // 4)
    assert offsets.shape == (count, 2, height // 4, width // 4)
    assert semantic.max() < len(DRIVING)
    assert confidence.min() >= 255 // len(DRIVING), "the likeliest of n classes has at least 1/n"
    assert centers.min() >= 0 and centers.max() <= 1 and np.isfinite(offsets).all()


def test_images_of_a_batch_do_not_mix(session: ort.InferenceSession) -> None:
    batch = np.concatenate([street(160, 96, seed=seed) for seed in range(3)])
    batch[1] = 0
    together = session.run(None, {"image": batch})
    for index in range(3):
        alone = session.run(None, {"image": batch[index : index + 1]})
        assert (together[0][index] == alone[0][0]).mean() > 0.999
        assert np.allclose(together[3][index], alone[3][0], atol=1e-2)


def test_every_center_is_alone_in_its_window(session: ort.InferenceSession) -> None:
    _, _, centers, _ = session.run(None, {"image": street(320, 192, 2)})
    reach = NEAR_WINDOW // 2
    checked = 0
    for n, t, i, j in zip(*np.nonzero(centers), strict=True):
        window = centers[n, t, max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1]
        assert np.count_nonzero(window) == 1
        checked += 1
    assert checked > 0


def test_no_sum_outgrows_float16_in_a_large_image(model: Model) -> None:
    """A backend may add up in the type of the tensors: features of 50 over 60x34 cells make 100 000."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'drive_seg[train]')")
    for precision in model.precisions:
        nodes = onnx.load(str(model.graph(precision))).graph.node
        means = [onnx.helper.get_node_attr_value(node, "axes") for node in nodes if node.op_type == "ReduceMean"]
        assert means == [[3], [2]], precision


def test_graph_uses_only_operators_that_every_backend_has(model: Model) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'drive_seg[train]')")
    graph = onnx.load(str(model.graph(model.precisions[0])))
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")] == [17]
    used = {node.op_type for node in graph.graph.node}
    assert used <= {
        "Add", "And", "Cast", "Clip", "Concat", "Constant", "Conv", "DepthToSpace", "Exp", "Greater", "GreaterOrEqual",
        "Identity", "Max", "MaxPool", "Mul", "Reciprocal", "ReduceMean", "Relu", "Resize", "Round", "Sigmoid",
        "Slice", "Split", "Squeeze", "Sub", "Transpose", "Where",
    }  # fmt: skip
    # TensorRT 8.6 allows 8-bit tensors only at the border: an input goes into a Cast, an output comes from one.
    eaten_by = {node.op_type for node in graph.graph.node if "image" in node.input}
    made_by = {node.op_type for node in graph.graph.node if {"semantic", "confidence"} & set(node.output)}
    assert eaten_by == made_by == {"Cast"}
