"""Logits put on top of a trained network's, and the search for them. Skipped without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'drive_seg[train]')")

from checkpoints import write_checkpoint
from typer.testing import CliRunner

from drive_seg import open_pipeline
from drive_seg.cli import app
from drive_seg.documents import read_yaml
from drive_seg.errors import ConfigError, ModelError
from drive_seg.labels import DRIVING
from drive_seg.model import load_model
from drive_seg.network import adjust, search
from drive_seg.network.adjustment import LogitAdjustment
from drive_seg.network.export import export_onnx
from drive_seg.network.panoptic import NetworkConfig, Normalise, PanopticNet
from drive_seg.network.validate import labelled_folder, validate_labelled
from drive_seg.sim import Simulator

TINY = NetworkConfig(encoder="plain", channels=(8, 8, 16, 16, 16), blocks=(1, 1, 1), context=16, decoder=16, head=16)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Of so small a network: several would wait for each other wherever a processor is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights that say all classes here and there."""
    torch.manual_seed(4)
    net = PanopticNet(TINY)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    return write_checkpoint(tmp_path / "net.pt", net)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of the simulator with their labels."""
    for kind in ("images", "labels"):
        (tmp_path / "street" / kind).mkdir(parents=True)
    for seed in range(2):
        shot = Simulator(seed, 192, 128).frame(0)
        cv2.imwrite(str(tmp_path / f"street/images/{seed}.png"), shot.image[..., ::-1])
        cv2.imwrite(str(tmp_path / f"street/labels/{seed}.png"), np.minimum(shot.mask, 4))
    return tmp_path / "street"


def answers(sidecar: Path, image: np.ndarray) -> list[np.ndarray]:
    """Class ids (H, W), confidence, centers (T, h, w) and offsets of an exported model."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(load_model(sidecar).graph("fp32")), providers=["CPUExecutionProvider"])
    return [output[0] for output in session.run(None, {"image": image[None]})]


def odds(heat: np.ndarray) -> np.ndarray:
    return np.log(heat / (1 - heat))


def test_an_exported_model_says_what_its_logits_and_the_added_ones_say(checkpoint: Path, tmp_path: Path) -> None:
    image = Simulator(3, 96, 64).frame(0).image
    added = {"road": -0.5, "vehicle": 1.5}
    plain = export_onnx(checkpoint, tmp_path, "plain", size=(96, 64))
    adjusted = export_onnx(
        checkpoint, tmp_path, "adjusted", size=(96, 64), adjustment=LogitAdjustment(added, {"cyclist": 2.0})
    )
    net = PanopticNet(TINY).eval()
    net.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    with torch.no_grad():
        logits = net(Normalise()(torch.from_numpy(image[None]))).semantic[0].numpy()
    expected = np.zeros((64, 96), np.uint8)
    for row in range(64):
        for column in range(96):
            sub_pixel = row % 4 * 4 + column % 4
            said = [logits[16 * label.id + sub_pixel, row // 4, column // 4] for label in DRIVING]
            expected[row, column] = np.argmax(
                [x + added.get(label.name, 0) for x, label in zip(said, DRIVING, strict=True)]
            )
    before, after = answers(plain, image), answers(adjusted, image)
    assert (after[0] == expected).mean() > 0.999
    assert (before[0] != expected).mean() > 0.01

    assert (after[2][:2] == before[2][:2]).all(), "of centers only the cyclists' change"
    both = (before[2][2] > 0) & (after[2][2] > 0)
    assert both.any()
    assert odds(after[2][2][both]) - odds(before[2][2][both]) == pytest.approx(2.0, abs=1e-2)
    assert (after[3] == before[3]).all()
    assert read_yaml(adjusted, "sidecar")["logit_adjustment"] == {"classes": added, "centers": {"cyclist": 2.0}}
    assert "logit_adjustment" not in read_yaml(plain, "sidecar")


def test_a_model_that_cannot_be_written_says_so(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "models/taken.yaml").mkdir(parents=True)
    for folder, name in ((tmp_path / "file", "net"), (Path("/proc/nowhere"), "net"), (tmp_path / "models", "taken")):
        with pytest.raises(ModelError, match=f"cannot write the model to {folder}: "):
            export_onnx(checkpoint, folder, name, size=(96, 64))


def test_only_classes_that_there_are_can_be_adjusted() -> None:
    with pytest.raises(ConfigError, match=r"added to background, road, .*, got car"):
        LogitAdjustment({"car": 0.4})
    with pytest.raises(ConfigError, match="added to vehicle, pedestrian, cyclist, got road"):
        LogitAdjustment(centers={"road": 0.4})


@pytest.mark.parametrize("given", ["vehicle", "vehicle=much", "vehicle=nan", "vehicle=1e9"])
def test_a_command_line_without_logits_is_refused(given: str, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["export", str(tmp_path / "x.pt"), "--name", "x", "--adjust", given])
    assert outcome.exit_code == 2 and given in outcome.output


def test_the_search_finds_the_best_within_its_step() -> None:
    best = {"classes": {"vehicle": 0.6, "cyclist": -0.4}, "centers": {"vehicle": -0.8}}

    def score(trial: LogitAdjustment) -> float:
        error = 0.0
        for head, names in (("classes", [label.name for label in DRIVING]), ("centers", ["vehicle", "pedestrian"])):
            error += sum((getattr(trial, head).get(name, 0) - best[head].get(name, 0)) ** 2 for name in names)
        return -error

    found, reached = search.search(score)
    assert found.document() == best
    assert reached == pytest.approx(0, abs=1e-9)


def test_the_search_does_not_follow_chance() -> None:
    rng = np.random.default_rng(1)
    found, _ = search.search(lambda trial: 0.7 + 0.0002 * rng.random())
    assert found == LogitAdjustment()


def test_what_the_search_prints_is_what_export_then_does(
    checkpoint: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(checkpoint), "--folder", str(folder), "--drives", "1"]
    monkeypatch.setattr(sys, "argv", ["adjust", *given])
    # Some fifty trials on every picture: smaller ones, and the network as large as those of the folder.
    monkeypatch.setattr(adjust, "_SIZE", (320, 180))
    monkeypatch.setattr(search, "DEFAULT_SIZE", (192, 128))
    adjust.main()
    report = json.loads(capsys.readouterr().out)
    assert sum(report["after"].values()) > sum(report["before"].values())

    command = ["export", str(checkpoint), "--name", "better", "-o", str(tmp_path), *report["options"].split()]
    command += ["--width", "192", "--height", "128"]
    assert CliRunner().invoke(app, command).exit_code == 0
    with open_pipeline(tmp_path / "better.yaml", "onnxruntime", "fp32", camera=(192, 128)) as pipeline:
        figures = validate_labelled(pipeline, labelled_folder(folder))
    assert figures["iou"]["mean"] == pytest.approx(report["after"]["miou"], abs=0.02)
