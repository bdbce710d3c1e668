"""What a run may begin with, and what then is said of where its weights come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'drive_seg[train]')")

from checkpoints import write_checkpoint

from drive_seg.errors import ConfigError
from drive_seg.labels import DRIVING
from drive_seg.model import load_model
from drive_seg.network.augment import Augmentation
from drive_seg.network.export import ModelCard, export_onnx, write_model
from drive_seg.network.panoptic import NetworkConfig, PanopticNet
from drive_seg.network.render import render
from drive_seg.network.start import start_from
from drive_seg.network.terms import Terms
from drive_seg.network.train import train
from drive_seg.network.train_config import TrainConfig, load_train_config

TINY = NetworkConfig(
    encoder="plain", channels=(8, 8, 16, 16, 16), blocks=(1, 1, 1), context=16, decoder=16, head=16, refine=False
)


def taught(config: NetworkConfig = TINY) -> PanopticNet:
    """A network of which no layer does nothing."""
    torch.manual_seed(4)
    net = PanopticNet(config)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    return net.eval()


def one_step(tmp_path: Path, start: Path, training_data: str, terms: str, states_start: bool = False) -> Path:
    """The checkpoint of a run from ``start``."""
    if not (tmp_path / "sim").exists():
        render(tmp_path / "sim", 1, 1, 96, 64, first_seed=3)
    config = TrainConfig(
        out_dir=tmp_path / f"after_{start.stem}", sim_folder=tmp_path / "sim", steps=1, batch=2, workers=0, threads=1,
        imagenet=False, network=TINY, augmentation=Augmentation(width=96, height=64), start=str(start),
        training_data=training_data, license=terms, states_start=states_start,
    )  # fmt: skip
    return train(config)


def test_what_comes_of_a_checkpoint_states_its_data_and_licence(tmp_path: Path) -> None:
    start = write_checkpoint(tmp_path / "theirs.pt", PanopticNet(TINY), "Their images.", "for research only")
    first = one_step(tmp_path, start, "Our images.", "Apache-2.0")
    model = load_model(export_onnx(first, tmp_path, "mine", size=(96, 64)))
    assert model.training_data == "Their images. Then: Our images."
    assert model.license == "for research only And: Apache-2.0"

    again = torch.load(one_step(tmp_path, first, "Our images.", "Apache-2.0"), weights_only=True)
    assert again["training_data"] == "Their images. Then: Our images.", "the same data once more is no news"
    assert again["license"] == "for research only And: Apache-2.0"


def test_a_run_may_tell_all_the_data_itself_but_keeps_the_licence(tmp_path: Path) -> None:
    start = write_checkpoint(tmp_path / "theirs.pt", PanopticNet(TINY), "3000 frames.", "for research only")
    state = torch.load(one_step(tmp_path, start, "6500 frames.", "Apache-2.0", states_start=True), weights_only=True)
    assert state["training_data"] == "6500 frames."
    assert state["license"] == "for research only And: Apache-2.0"


RESEARCH = "Weights for research only. The program that made them is Apache-2.0."


@pytest.mark.parametrize(
    ("before", "own", "both"),
    [
        ("Apache-2.0", "Apache-2.0", "Apache-2.0"),
        ("Apache-2.0", RESEARCH, RESEARCH),
        (RESEARCH, "Apache-2.0", RESEARCH),
        ("for\n  research only", "for research only", "for research only"),
        ("GPL-3.0", "LGPL-3.0", "GPL-3.0 And: LGPL-3.0"),
        ("CC-BY-NC-4.0", "CC-BY", "CC-BY-NC-4.0 And: CC-BY"),
        ("not stated", "MIT", "not stated And: MIT"),
        ("", "MIT", "MIT"),
    ],
)
def test_terms_are_joined_without_repeating_and_without_losing_any(before: str, own: str, both: str) -> None:
    assert Terms("", before).then(Terms("", own)).license == both
    assert Terms("", before).then(Terms("", own), restated=True).license == both


def test_a_block_that_the_network_has_not_is_never_dropped(tmp_path: Path) -> None:
    refined = replace(TINY, refine=True)
    start = str(write_checkpoint(tmp_path / "refined.pt", taught(refined)))
    with pytest.raises(ConfigError, match=r"learnt in refine would be lost; set network: \{.*refine: true.*\}"):
        start_from(PanopticNet(TINY), start)
    net = PanopticNet(refined)
    start_from(net, start)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in taught(refined).state_dict().items())


@pytest.mark.parametrize("change", [{"decoder": 24}, {"head": 24}, {"refine": True}, {"context": 32, "refine": True}])
def test_a_model_of_another_network_says_how_to_have_that_one(tmp_path: Path, change: dict[str, int]) -> None:
    made = replace(TINY, **change)
    sidecar = write_model(taught(made), tmp_path / "theirs.yaml", ModelCard(), DRIVING, (96, 64))
    with pytest.raises(ConfigError, match=r"is of another network: .*; set network: \{.*\}$") as error:
        start_from(PanopticNet(TINY), str(sidecar))
    (tmp_path / "c.yaml").write_text(str(error.value).partition("; set ")[2])
    advised = load_train_config(tmp_path / "c.yaml").network
    assert advised == made
    start_from(PanopticNet(advised), str(sidecar))


def test_a_model_that_no_network_of_ours_could_be_says_only_where_it_differs(tmp_path: Path) -> None:
    other = replace(TINY, blocks=(2, 1, 1))
    sidecar = write_model(taught(other), tmp_path / "theirs.yaml", ModelCard(), DRIVING, (96, 64))
    with pytest.raises(ConfigError, match=r"is of another network: it has \d+ convolutions, [^{]*$"):
        start_from(PanopticNet(TINY), str(sidecar))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"average": PanopticNet(TINY).state_dict()}, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match=r"start: .*weights\.pt is not a checkpoint of drive_seg train"):
        start_from(PanopticNet(TINY), str(tmp_path / "weights.pt"))
