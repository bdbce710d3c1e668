"""Networks of another make through the sidecar's decoder block, on every backend (docs/bring_your_own_model.md)."""

from __future__ import annotations

import hashlib
import re
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tiny_model import write_tiny_model

from drive_seg import Pipeline, open_pipeline
from drive_seg.engines import EngineOptions, FunctionEngine, availability
from drive_seg.engines.foreign import MAX_COMPONENTS, ForeignTensors
from drive_seg.engines.planned import key_here
from drive_seg.errors import EngineError, ModelError
from drive_seg.foreign import Decoder
from drive_seg.frame import CameraImage, Frame
from drive_seg.labels import Label, LabelSet
from drive_seg.machine import describe_model
from drive_seg.model import load_model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

BACKENDS = [row.backend for row in availability() if row.available and row.backend != "tensorrt"]
WIDTH, HEIGHT = 128, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LABELS = [
    {"id": 0, "name": "road", "thing": False, "color": [128, 64, 128]},
    {"id": 1, "name": "sky", "thing": False, "color": [70, 130, 180]},
    {"id": 2, "name": "car", "thing": True, "color": [0, 0, 142]},
]
CLASSES = ["car", None, "road", "sky"]
"""Of the network's four channels."""


ENDS = {"start": 0, "end": -3, "axis": 1}


def write_network(path: Path, stride: int = 1, batch: int | str = "N") -> None:
    """A 1x1 convolution: channel c of the logits is 20 * (normalised channel c), the fourth is 0: red means car, green
    nothing, blue road, dark sky. As torchvision and segmentation_models export: NCHW float in, logits out."""
    from onnx import TensorProto as T
    from onnx import helper

    weights = np.zeros((4, 3, 1, 1), np.float32)
    weights[[0, 1, 2], [0, 1, 2]] = 20.0
    size = [batch, 3, HEIGHT, WIDTH]
    out = [batch, 4, HEIGHT // stride, WIDTH // stride]
    node = helper.make_node("Conv", ["input", "w"], ["logits"], kernel_shape=[1, 1], strides=[stride, stride])
    graph = helper.make_graph(
        [node],
        "plain",
        [helper.make_tensor_value_info("input", T.FLOAT, size)],
        [helper.make_tensor_value_info("logits", T.FLOAT, out)],
        [helper.make_tensor("w", T.FLOAT, weights.shape, weights.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_model(folder: Path, stride: int = 1, batch: int | str = "N", **changes: Any) -> Path:
    """The network and its sidecar."""
    write_network(folder / "plain.onnx", stride, batch)
    digest = hashlib.sha256((folder / "plain.onnx").read_bytes()).hexdigest()
    tree: dict[str, Any] = {
        "name": "plain",
        "task": "panoptic",
        "onnx": {"fp32": {"path": "plain.onnx", "sha256": digest}},
        "input": {
            "name": "input",
            "width": WIDTH,
            "height": HEIGHT,
            "layout": "NCHW",
            "dtype": "float32",
            "color": "rgb",
            "mean": list(MEAN),
            "std": list(STD),
        },
        "decoder": {"kind": "semantic_logits", "output": "logits", "classes": CLASSES},
        "labels": LABELS,
    }
    tree.update(changes)
    path = folder / "plain.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def scene() -> NDArray[np.uint8]:
    """Sky above, road below, two cars that do not touch, a patch of nothing."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[32:, :, 2] = 255
    image[40:56, 8:32] = (255, 0, 0)
    image[44:60, 80:120] = (255, 0, 0)
    image[:8, :8] = (0, 255, 0)
    return image


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_a_plain_semantic_network_gives_panoptic_results(backend: str, stride: int, tmp_path: Path) -> None:
    with open_pipeline(write_model(tmp_path, stride), backend, "fp32", cache_dir=None) as pipeline:
        result = pipeline(scene())
    expected = np.ones((HEIGHT, WIDTH), np.uint8)
    expected[32:] = 0
    expected[40:56, 8:32] = expected[44:60, 80:120] = 2
    expected[:8, :8] = 255
    allowed = 0 if stride == 1 else 4 * stride * (24 + 16 + 40 + 16) + 8 * stride * 4
    assert (result.mask != expected).sum() <= allowed
    assert [instance.class_name for instance in result.instances] == ["car", "car"]
    if stride == 1:
        assert {(b.x, b.y, b.width, b.height) for b in (i.box for i in result.instances)} == {
            (8, 40, 24, 16),
            (80, 44, 40, 16),
        }
        assert all(instance.score > 0.99 for instance in result.instances)


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_may_all_be_stuff(backend: str, tmp_path: Path) -> None:
    labels = [{**label, "thing": False} for label in LABELS]
    with open_pipeline(write_model(tmp_path, labels=labels), backend, "fp32", cache_dir=None) as pipeline:
        result = pipeline(scene())
    assert result.instances == () and (result.mask[40:56, 8:32] == 2).all()
    np.testing.assert_array_equal(result.panoptic, np.where(result.mask == 255, np.uint16(65535), result.mask))


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_and_what_is_left_from_the_last_one(backend: str, tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path))
    images = [scene(), np.ascontiguousarray(scene()[:, ::-1]), np.zeros_like(scene())]
    with open_pipeline(model.path, backend, "fp32", max_batch=3, cache_dir=None) as pipeline:
        together = pipeline.submit([Frame(CameraImage.from_rgb(image)) for image in images]).wait()
        for image, result in zip(images, together, strict=True):
            np.testing.assert_array_equal(pipeline(image).panoptic, result.panoptic)


def tensors(decoder: Decoder, batch: int = 1, size: tuple[int, int] = (32, 64)) -> ForeignTensors:
    return ForeignTensors(decoder, [2], np.zeros((batch, *size, 3), np.uint8))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_what_is_fed(layout: str, color: str, dtype: str) -> None:
    decoder = Decoder("semantic_logits", "x", (0, 255), layout, dtype, color, MEAN, STD)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
    foreign = ForeignTensors(decoder, [], pixels)
    foreign.write(2)
    expected = pixels[..., ::-1] if color == "bgr" else pixels
    assert foreign.fed.dtype == dtype
    if dtype != "uint8":
        expected = (expected / 255 - np.array(MEAN)) / np.array(STD)
    if layout == "NCHW":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(foreign.fed, expected, atol=2e-3 if dtype == "float16" else 1e-5)


def test_logits_become_classes_and_softmax_confidence() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (1, 3, 32, 64)).astype(np.float32)
    raw = tensors(Decoder("semantic_logits", "x", (1, 255, 0))).read(logits)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(raw.semantic, np.array([1, 255, 0])[logits.argmax(axis=1)])
    np.testing.assert_allclose(raw.confidence / 255, probability.max(axis=1), atol=1 / 255)


def test_probabilities_and_channels_that_are_last() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (1, 3, 32, 64)).astype(np.float32)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    plain = tensors(Decoder("semantic_logits", "x", (1, 255, 0))).read(logits)
    for kind, output in (
        ("semantic_logits", np.ascontiguousarray(np.moveaxis(logits, 1, 3))),
        ("semantic_logits", np.log(probability)),
        ("semantic_probabilities", probability),
        ("semantic_probabilities", np.ascontiguousarray(np.moveaxis(probability, 1, 3))),
    ):
        raw = tensors(Decoder(kind, "x", (1, 255, 0))).read(output)
        np.testing.assert_array_equal(raw.semantic, plain.semantic)
        np.testing.assert_allclose(raw.confidence / 255, plain.confidence / 255, atol=1.5 / 255)


@pytest.mark.parametrize(("channels", "stride"), [(4, 8), (2, 16), (8, 4)])
def test_as_many_rows_as_channels_that_are_last(channels: int, stride: int) -> None:
    """The side behind N then looks like the channels: 20 rows of stride 32 and 20 classes, for example."""
    height, width = 32 // stride, 64 // stride
    assert height == channels
    logits = np.random.default_rng(1).normal(0, 3, (1, channels, height, width)).astype(np.float32)
    decoder = Decoder("semantic_logits", "x", tuple(range(channels)))
    plain = tensors(decoder).read(logits)
    last = tensors(decoder).read(np.ascontiguousarray(np.moveaxis(logits, 1, 3)))
    np.testing.assert_array_equal(plain.semantic, logits.argmax(axis=1))
    np.testing.assert_array_equal(last.semantic, plain.semantic)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_softmax_in_the_graph_must_be_said(backend: str, tmp_path: Path) -> None:
    """Taken for logits, its confidences were those of a second softmax: with 19 classes, too low for any object."""
    classes = [*CLASSES, *[None] * 15]
    for kind in ("semantic_logits", "semantic_probabilities"):
        path = write_model(tmp_path, decoder={"kind": kind, "output": "scores", "classes": classes})
        graph = onnx.load(str(tmp_path / "plain.onnx"))
        pad = onnx.helper.make_tensor("pad", onnx.TensorProto.INT64, [8], [0, 0, 0, 0, 0, 15, 0, 0])
        graph.graph.initializer.append(pad)
        graph.graph.node.append(onnx.helper.make_node("Pad", ["logits", "pad"], ["padded"]))
        graph.graph.node.append(onnx.helper.make_node("Softmax", ["padded"], ["scores"], axis=1))
        del graph.graph.output[:]
        scores = onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["N", 19, HEIGHT, WIDTH])
        graph.graph.output.append(scores)
        onnx.save(graph, str(tmp_path / "plain.onnx"))
        tree = yaml.safe_load(path.read_text())
        tree["onnx"]["fp32"]["sha256"] = hashlib.sha256((tmp_path / "plain.onnx").read_bytes()).hexdigest()
        path.write_text(yaml.safe_dump(tree))
        if kind == "semantic_logits":
            with pytest.raises(EngineError, match=r"add up to 1, .*correct `kind: semantic_probabilities`"):
                open_pipeline(path, backend, cache_dir=None)
            continue
        with open_pipeline(path, backend, cache_dir=None) as pipeline:
            found = pipeline(scene()).instances
        assert len(found) == 2 and all(instance.score > 0.9 for instance in found)


@pytest.mark.parametrize(
    ("kind", "classes", "output", "message"),
    [
        ("semantic_probabilities", 3, np.full((1, 3, 32, 64), -2.0, np.float32), "correct `kind: semantic_logits`"),
        ("semantic_logits", 3, np.full((1, 3, 32, 64), np.nan, np.float32), "output x is not a number"),
        ("semantic_logits", 2, np.zeros((1, 1, 32, 64), np.float32), r"\(1, 1, 32, 64\); the score of a single class"),
        ("semantic_ids", 3, np.zeros((1, 32, 64), np.float32), r"expected integer ids \(N, h, w\), got float32"),
    ],
)
def test_answers_that_cannot_be_read_say_why(kind: str, classes: int, output: NDArray[Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        tensors(Decoder(kind, "x", tuple(range(classes)))).read(output)


def test_ids_beyond_the_classes_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    read = tensors(Decoder("semantic_ids", "eighteen", (1, 0)))
    for ids in (1, 255, -1, 18, 18, 7):
        semantic = read.read(np.full((1, 32, 64), ids)).semantic
        assert (semantic == (0 if ids == 1 else 255)).all()
        assert len(caplog.records) == (ids in (18, 7))
    assert "decoder: eighteen has ids beyond the 2 `classes`" in caplog.text


def test_ids_are_taken_as_they_are() -> None:
    ids = np.random.default_rng(1).integers(0, 3, (1, 1, 32, 64))
    for output in (ids, ids[:, 0], ids.astype(np.int32), ids.astype(np.uint8).reshape(1, 32, 64, 1)):
        raw = tensors(Decoder("semantic_ids", "x", (1, 255, 0))).read(output)
        np.testing.assert_array_equal(raw.semantic, np.array([1, 255, 0])[ids[:, 0]])
    odd = np.full((1, 32, 64), -1)
    assert (tensors(Decoder("semantic_ids", "x", tuple([0] + [1] * 254))).read(odd).semantic == 255).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_object_that_another_covers_leaves_nothing_to_the_one_behind(mirrored: bool) -> None:
    """A bus, a person in front of its end, a car beyond: cells that bus and person share lie nearer to the car."""
    labels = LabelSet(
        (Label(0, "road", False, (0, 0, 0)), Label(1, "car", True, (0, 0, 9)), Label(2, "person", True, (9, 0, 0)))
    )
    ids = np.zeros((1, HEIGHT, WIDTH), np.int64)
    ids[0, 10:50, 2:70], ids[0, 10:50, 70:78], ids[0, 20:50, 78:90] = 1, 2, 1
    ids = np.ascontiguousarray(ids[..., ::-1]) if mirrored else ids
    read = ForeignTensors(Decoder("semantic_ids", "x", (0, 1, 2)), [1, 2], np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))
    with Pipeline(FunctionEngine(lambda _: read.read(ids), (WIDTH, HEIGHT)), labels) as pipeline:
        found = pipeline(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).instances
    columns = sorted((i.class_name, i.box.x, i.box.width) for i in found)
    left = [(WIDTH - x - width if mirrored else x, width) for x, width in ((2, 68), (78, 12), (70, 8))]
    assert columns == sorted((name, *box) for name, box in zip(("car", "car", "person"), left, strict=True))


def test_the_smallest_of_too_many_objects_are_unlabelled() -> None:
    """One object per 8x8 block of a large image; the first MAX_COMPONENTS are larger than the rest."""
    ids = np.zeros((1, 128, 256), np.int64)
    for number in range(200):
        y, x = divmod(number, 32)
        side = 4 if number < MAX_COMPONENTS else 1
        ids[0, 8 * y : 8 * y + side, 8 * x : 8 * x + side] = 1
    raw = tensors(Decoder("semantic_ids", "x", (0, 2)), size=(128, 256)).read(ids)
    assert int((raw.centers > 0).sum()) == MAX_COMPONENTS
    assert int((raw.semantic == 255).sum()) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "boxes"}, "kind must be one of semantic_logits, semantic_probabilities, semantic_ids, got 'boxes'"),
        ({"classes": ["car", "plane"]}, "class 'plane' is no label; there are road, sky, car"),
        ({"classes": []}, "1..255 channels, got 0"),
        ({"classes": ["road"]}, "classes has one entry; the score of a single class says nothing of the other"),
        ({"softmax": True}, "unknown keys"),
        ({"classes": "road"}, "classes must be a list of labels, one for each channel, got 'road'"),
        ({"classes": [["road"], "car"]}, r"class \['road'\] is no label"),
        ({"output": None, "kind": None}, "kind must be one of"),
    ],
)
def test_unusable_decoders_say_what_is_wrong(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    block = {"kind": "semantic_logits", "output": "logits", "classes": CLASSES, **changes}
    with pytest.raises(ModelError, match=message):
        load_model(write_model(tmp_path, decoder=block))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "CHW"}, "layout"),
        ({"std": [0, 1, 1]}, "std"),
        ({"mean": [0.5]}, r"mean must be three numbers, got \[0\.5\]"),
        ({"std": "0.5"}, "std must be three numbers, got '0.5'"),
        ({"means": list(MEAN)}, "`input` has the unknown keys 'means'; expected .*mean, std"),
        ({"dtype": "uint8"}, "an input of uint8 is fed pixels as they are; remove its mean and std"),
        ({"width": 128.5}, r"input width must be a whole number, got 128\.5"),
        ({"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}, "divide mean and std of pixels 0..255 by 255"),
        ({"dtype": "f2"}, "dtype"),
    ],
)
def test_unusable_inputs_say_what_is_wrong(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    size = yaml.safe_load(write_model(tmp_path).read_text())["input"]
    with pytest.raises(ModelError, match=message):
        load_model(write_model(tmp_path, input={**size, **changes}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_that_is_not_as_described_fails_when_it_is_opened(backend: str, tmp_path: Path) -> None:
    block = {"kind": "semantic_logits", "output": "logits", "classes": ["car", "road"]}
    with pytest.raises(EngineError, match=r"expected float logits \(N, 2, h, w\)"):
        open_pipeline(write_model(tmp_path, decoder=block), backend, cache_dir=None)
    with pytest.raises(EngineError, match=r"nowhere|cannot|not"):
        open_pipeline(write_model(tmp_path, decoder={**block, "output": "nowhere"}), backend, cache_dir=None)


GRAPH = r"input 'input' float32 \(\?, 3, 64, 128\): "


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("size", "output", "message"),
    [
        (
            {"name": "image"},
            "logits",
            r"no input 'image', it has 'input' float32 \(\?, 3, 64, 128\); correct",
        ),
        ({}, "out", r"no output 'out', it has 'logits' float32 \(\?, 4, 64, 128\); correct `decoder: output`"),
        (
            {"dtype": "uint8", "mean": None, "std": None},
            "logits",
            GRAPH + "the sidecar says uint8; correct `input: dtype`",
        ),
        (
            {"layout": "NHWC"},
            "logits",
            GRAPH + r"\(N, 64, 128, 3\) would be fed; correct `input:` \(width, height, layout\)",
        ),
    ],
)
def test_a_graph_with_other_inputs_or_outputs_is_told_in_one_line(
    backend: str, size: dict[str, Any], output: str, message: str, tmp_path: Path
) -> None:
    """With what there is and the field to correct, however long the backend's own words are."""
    given = {**yaml.safe_load(write_model(tmp_path).read_text())["input"], **size}
    given = {name: value for name, value in given.items() if value is not None}
    block = {"kind": "semantic_logits", "output": output, "classes": CLASSES}
    with pytest.raises(EngineError, match=rf"plain\.onnx: {message}") as refused:
        open_pipeline(write_model(tmp_path, input=given, decoder=block), backend, cache_dir=None)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif("onnxruntime" not in BACKENDS, reason="onnxruntime is not installed")
def test_onnx_runtime_says_which_sides_of_a_graph_are_fixed(tmp_path: Path) -> None:
    size = yaml.safe_load(write_model(tmp_path).read_text())["input"]
    with pytest.raises(EngineError, match=GRAPH + r"\(N, 3, 96, 128\).*network_size: model"):
        open_pipeline(write_model(tmp_path, input={**size, "height": 96}), "onnxruntime", cache_dir=None)
    for batch, wanted, text in ((4, 1, "of 1"), (1, 3, "of 1 to 3")):
        path = write_model(tmp_path, batch=batch)
        with pytest.raises(EngineError, match=rf"\({batch}, 3, 64, 128\): batches {text} are wanted"):
            open_pipeline(path, "onnxruntime", max_batch=wanted, cache_dir=None)
    with open_pipeline(write_model(tmp_path, batch=1), "onnxruntime", cache_dir=None) as pipeline:
        assert len(pipeline(scene()).instances) == 2


@pytest.mark.skipif("openvino" not in BACKENDS, reason="openvino is not installed")
def test_openvino_changes_a_fixed_graph_and_takes_its_own_format(tmp_path: Path) -> None:
    import openvino

    with open_pipeline(write_model(tmp_path), "openvino", "fp32", cache_dir=None) as pipeline:
        expected = pipeline(scene()).panoptic
    path = write_model(tmp_path, batch=4)
    openvino.save_model(openvino.Core().read_model(tmp_path / "plain.onnx"), tmp_path / "plain.xml", False)
    tree = yaml.safe_load(path.read_text())
    for name in ("plain.onnx", "plain.xml"):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        path.write_text(yaml.safe_dump({**tree, "onnx": {"fp32": {"path": name, "sha256": digest}}}))
        with open_pipeline(path, "openvino", "fp32", max_batch=2, cache_dir=None) as pipeline:
            for result in pipeline.submit([Frame(CameraImage.from_rgb(scene()))] * 2).wait():
                np.testing.assert_array_equal(result.panoptic, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("things", "cut", "message"),
    [
        ((3, 4), False, r"output centers has 3 channels, expected 2, .*\(vehicle, pedestrian\)"),
        ((2, 3, 4, 5), False, r"output centers has 3 channels, expected 4"),
        ((3, 4, 5), True, r"output semantic is \d+x\d+, expected 128x64 or a whole fraction"),
    ],
)
def test_a_graph_of_our_form_that_does_not_fit_its_sidecar_is_refused_when_it_is_opened(
    backend: str, things: tuple[int, ...], cut: bool, message: str, tmp_path: Path
) -> None:
    """It would fail on the first frame that has a thing in it, or give its channels to other classes."""
    path = write_tiny_model(tmp_path, size=(128, 64))
    graph = onnx.load(str(tmp_path / "tiny.onnx"))
    for node in [*graph.graph.node]:
        if cut and node.output[0] in ("semantic", "confidence"):  # without its last rows
            name, whole = node.output[0], f"whole_{node.output[0]}"
            node.output[0] = whole
            ends = [onnx.helper.make_tensor(f"{k}_{name}", onnx.TensorProto.INT64, [1], [v]) for k, v in ENDS.items()]
            graph.graph.initializer.extend(ends)
            graph.graph.node.append(onnx.helper.make_node("Slice", [whole, *(end.name for end in ends)], [name]))
    onnx.save(graph, str(tmp_path / "tiny.onnx"))
    tree = yaml.safe_load(path.read_text())
    tree["onnx"]["fp32"]["sha256"] = hashlib.sha256((tmp_path / "tiny.onnx").read_bytes()).hexdigest()
    for label in tree["labels"]:
        label["thing"] = label["id"] in things
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(EngineError, match=rf"tiny\.yaml: {message}"):
        open_pipeline(path, backend, cache_dir=None)


def test_info_says_what_it_is_fed(tmp_path: Path) -> None:
    assert describe_model(str(write_model(tmp_path)))["input"] == "128x64 float32 NCHW RGB by its decoder block"


def test_tensorrt_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="decoder block, which tensorrt does not obey"):
        key_here(load_model(write_model(tmp_path)), EngineOptions())


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is printed, but for torchvision's network: its weights cannot be downloaded here."""
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Lraspp(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self, weights: str, num_classes: int) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, num_classes, 1)

        def forward(self, image: Any) -> dict[str, Any]:
            return {"out": self.convolution(image)}

    segmentation = types.SimpleNamespace(lraspp_mobilenet_v3_large=Lraspp)
    torchvision = types.SimpleNamespace(models=types.SimpleNamespace(segmentation=segmentation))
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs" / "bring_your_own_model.md"
    if not page.is_file():
        pytest.skip("the source archive has no docs")
    text = page.read_text(encoding="utf-8")
    python, sidecar = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("python", "yaml"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates its exporters one after the other
        exec(compile(python, "example", "exec"), {"__name__": "example"})
    digest = hashlib.sha256(Path("lraspp.onnx").read_bytes()).hexdigest()
    Path("lraspp.yaml").write_text(sidecar.replace("sha256: ...", f"sha256: {digest}"), encoding="utf-8")
    assert len(list(tmp_path.iterdir())) == 2, "weights beside the file have no digest"
    with open_pipeline("lraspp.yaml", BACKENDS[0]) as pipeline:
        result = pipeline(np.zeros((384, 640, 3), np.uint8))
    assert result.mask.shape == (384, 640)
