"""A run that was stopped goes on as if it had not been, and one that begins anew takes nothing from the one before."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'drive_seg[train]')")

from checkpoints import write_checkpoint

from drive_seg.errors import ConfigError, SourceError
from drive_seg.network.augment import Augmentation
from drive_seg.network.held_out import HeldOut
from drive_seg.network.lite import LiteEncoder
from drive_seg.network.panoptic import NetworkConfig, PanopticNet
from drive_seg.network.render import render
from drive_seg.network.train import REPORT_EVERY, Progress, train
from drive_seg.network.train_config import TrainConfig

TINY = NetworkConfig(encoder="plain", channels=(8, 8, 16, 16, 16), blocks=(1, 1, 1), context=16, decoder=16, head=16)


class Killed(BaseException):
    """No handler of errors takes it for one."""


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames to learn from, which no run changes."""
    folder = tmp_path_factory.mktemp("sim")
    render(folder, 2, 1, 96, 64, first_seed=3)
    return folder


@pytest.fixture
def config(drives: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        out_dir=tmp_path / "run", sim_folder=drives, steps=2, batch=2, workers=0, threads=1, save_every=1,
        device="cpu", imagenet=False, network=TINY, augmentation=Augmentation(width=96, height=64),
    )  # fmt: skip


def scored(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Validation gives these scores, in turn."""
    given = iter(scores)
    monkeypatch.setattr("drive_seg.network.train.score", lambda *_: {"score": next(given)})


def rows(path: Path) -> list[int]:
    with path.open(newline="", encoding="utf-8") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def stop(_: Progress) -> None:
    raise Killed


def test_a_run_that_was_stopped_gives_the_weights_of_one_that_was_not(config: TrainConfig) -> None:
    config = replace(config, steps=REPORT_EVERY + 2, save_every=7, rate=5e-3, warmup=3)
    with pytest.raises(Killed):
        train(config, stop)
    resumed = torch.load(train(config), weights_only=True)
    whole = torch.load(train(replace(config, out_dir=config.out_dir / "whole")), weights_only=True)
    assert resumed["step"] == whole["step"] == config.steps
    for kind in ("weights", "average"):
        assert all(torch.equal(value, resumed[kind][name]) for name, value in whole[kind].items()), kind
    curve = rows(config.out_dir / "losses.csv")
    assert curve == rows(config.out_dir / "whole" / "losses.csv") == [REPORT_EVERY, config.steps], "each step once"


def test_a_run_that_runs_away_stops_and_leaves_what_was_learnt_before(config: TrainConfig) -> None:
    train(config)
    with pytest.raises(ConfigError, match=r"gradients of step \d+ are not finite: set a lower rate than 1e\+09"):
        train(replace(config, steps=40, rate=1e9, save_every=100))
    kept = torch.load(config.out_dir / "checkpoint.pt", weights_only=True)
    assert all(value.isfinite().all() for kind in ("weights", "average") for value in kept[kind].values())
    assert train(replace(config, steps=kept["step"] + 1)).is_file()


def test_a_run_goes_on_with_the_decay_of_its_configuration(config: TrainConfig) -> None:
    train(replace(config, weight_decay=0.1))
    state = torch.load(train(replace(config, steps=3, weight_decay=0.02)), weights_only=True)
    assert sorted({group["weight_decay"] for group in state["optimizer"]["param_groups"]}) == [0.0, 0.02]


@pytest.mark.filterwarnings("ignore:.*is a no-op")
def test_the_optimisers_step_counts_stay_on_the_host(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads one for every parameter in every step: on a GPU each would be waited for."""
    train(config)
    made: list[Any] = []
    adam = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups: made.append(adam(groups)) or made[-1])
    train(replace(config, device="meta"))  # a device that every torch has, and that holds nothing
    (optimizer,) = made
    places = {name: {state[name].device.type for state in optimizer.state.values()} for name in ("step", "exp_avg")}
    assert places == {"step": {"cpu"}, "exp_avg": {"meta"}}


def test_the_best_weights_survive_a_run_that_is_killed_as_it_writes_them(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, held_out=HeldOut(drives=1, every=2))
    scored(monkeypatch, 0.5, 0.5)
    save: Callable[..., Any] = torch.save

    def killed(state: dict[str, Any], path: Path) -> None:
        if path.stem == "best":
            raise Killed
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(Killed):
            train(config)
    best = train(config)
    assert best.name == "best.pt" and torch.load(best, weights_only=True)["step"] == 2


def test_a_validation_that_was_cut_short_is_made_up_for(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, held_out=HeldOut(drives=1, every=2))

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("drive_seg.network.train.score", killed)
        with pytest.raises(Killed):
            train(config)
    scored(monkeypatch, 0.5)
    assert train(config).name == "best.pt"
    assert rows(config.out_dir / "scores.csv") == [2]


def test_a_folder_to_validate_on_that_is_not_there_is_found_before_anything_is_learnt(config: TrainConfig) -> None:
    with pytest.raises(SourceError, match="nowhere/images holds no image"):
        train(replace(config, data_root=config.out_dir, held_out=HeldOut(folder="nowhere", every=2)))
    assert not config.out_dir.exists()


def test_a_run_that_begins_anew_forgets_the_one_before(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, held_out=HeldOut(drives=1, every=1))
    scored(monkeypatch, 0.9, 0.8, 0.1, 0.2)
    train(config)
    (config.out_dir / "checkpoint.pt").unlink()
    best = train(config)
    assert torch.load(best, weights_only=True)["step"] == 2, "the best of this run, not the better one of the other"
    assert rows(config.out_dir / "scores.csv") == [1, 2]
    assert rows(config.out_dir / "losses.csv") == [2]
    (config.out_dir / "checkpoint.pt").unlink()
    assert train(replace(config, held_out=HeldOut())).name == "checkpoint.pt"


def test_weights_that_a_run_starts_from_are_not_removed_by_it(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, held_out=HeldOut(drives=1, every=1))
    scored(monkeypatch, 0.9, 0.8)
    best = train(config)
    (config.out_dir / "checkpoint.pt").unlink()
    with pytest.raises(ConfigError, match=r"replaces .*best\.pt; move it"):
        train(replace(config, start=str(best)))
    assert best.is_file()


@pytest.mark.parametrize("later", ["gone.pt", ""], ids=["start is gone", "start is not named any more"])
def test_a_run_goes_on_without_what_it_started_from_and_keeps_its_terms(config: TrainConfig, later: str) -> None:
    start = write_checkpoint(config.out_dir.parent / "start.pt", PanopticNet(TINY), "their pictures", "Their licence")
    config = replace(config, start=str(start), training_data="my pictures", license="My licence")
    first = torch.load(train(config), weights_only=True)
    start.unlink()
    again = torch.load(train(replace(config, steps=3, start=later)), weights_only=True)
    assert again["step"] == 3
    for key, both in {
        "training_data": "their pictures Then: my pictures",
        "license": "Their licence And: My licence",
    }.items():
        assert first[key] == again[key] == both


def test_a_run_goes_on_without_the_weights_of_imagenet(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, network=replace(TINY, encoder="lite0"), steps=1, imagenet=True)
    monkeypatch.setattr(LiteEncoder, "load_imagenet", lambda _: None)
    train(config)
    monkeypatch.undo()
    monkeypatch.setattr("drive_seg.network.lite.importlib.util.find_spec", lambda _: None)
    assert torch.load(train(replace(config, steps=2)), weights_only=True)["step"] == 2


@pytest.mark.parametrize("change", [{"frozen": 0}, {"weight_decay": 0.0}])
def test_a_checkpoint_of_other_parts_says_what_to_do(config: TrainConfig, change: dict[str, Any]) -> None:
    config = replace(config, network=replace(TINY, encoder="lite0"), steps=1)
    train(config)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt .*set frozen, imagenet, .*or delete it"):
        train(replace(config, steps=2, **change))


def test_a_checkpoint_of_another_network_says_how_to_go_on(config: TrainConfig) -> None:
    train(config)
    with pytest.raises(ConfigError, match=r"is of another network .* set network: \{.*decoder: 16.*\}"):
        train(replace(config, network=replace(TINY, decoder=24)))
