"""The training loop. ``train(config)`` returns the checkpoint; ``export.export_onnx`` makes a model of it."""

from __future__ import annotations

import copy
import csv
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from drive_seg.network.augment import view
from drive_seg.network.datasets import load_set
from drive_seg.network.lite import LiteEncoder
from drive_seg.network.losses import BatchTargets, Losses, PanopticLoss
from drive_seg.network.panoptic import SUBPIXELS, Normalise, PanopticNet
from drive_seg.network.paste import cutouts_of, paste
from drive_seg.network.samples import SampleSet
from drive_seg.network.targets import make_targets, possible_classes
from drive_seg.network.train_config import TrainConfig


@dataclass(frozen=True)
class Progress:
    """State after ``step`` of ``steps``: loss terms and speed, averaged since the report before."""

    step: int
    steps: int
    rate: float
    semantic: float
    centers: float
    offsets: float
    images_per_second: float


_MOST_PASTED = 3
REPORT_EVERY = 20
"""Steps between rows of losses.csv and calls of the progress callback."""


def train(config: TrainConfig, progress: Callable[[Progress], None] | None = None) -> Path:
    """Train, or go on where ``config.out_dir/checkpoint.pt`` stopped; return the checkpoint's path.

    The checkpoint has ``network`` (NetworkConfig fields), ``weights``, ``average`` (what is exported),
    ``optimizer``, ``step``, ``training_data`` and ``license``. Losses go to ``losses.csv`` beside it. ``steps`` may
    change between resumes.

    Raises:
        ConfigError: a data set is missing or unknown.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    run = _Run(config)
    step = run.resume()
    config.out_dir.mkdir(parents=True, exist_ok=True)
    report = _Report(config, progress)
    for batch in _batches(config, step):
        losses = run.learn(batch, step)
        step += 1
        report.add(losses, step, run.rate)
        if step % config.save_every == 0 or step == config.steps:
            run.save(step)
    return run.checkpoint


class _Run:
    """Network, averaged copy, optimiser and loss of one run."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.checkpoint = config.out_dir / "checkpoint.pt"
        net = PanopticNet(config.network)
        if isinstance(net.encoder, LiteEncoder):
            if config.imagenet:
                net.encoder.load_imagenet()
            net.encoder.freeze(config.frozen)
        self.net = net.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net)
        self.normalise = Normalise()
        self.loss = PanopticLoss(config.loss)
        self.optimizer = torch.optim.AdamW(_groups(net, config))
        self.rate = 0.0

    def resume(self) -> int:
        """Load the checkpoint if there is one; return the step to go on with."""
        if not self.checkpoint.is_file():
            return 0
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.net.load_state_dict(state["weights"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def save(self, step: int) -> None:
        """Write beside and rename, so that a killed run never leaves half a checkpoint."""
        state: dict[str, Any] = {
            "network": dataclasses.asdict(self.config.network),
            "weights": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": step,
            "training_data": self.config.training_data,
            "license": self.config.license,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.checkpoint)

    def learn(self, batch: list[Tensor], step: int) -> Losses:
        """One optimiser step on (images, codes, heat, known, offsets, member)."""
        images, codes, *rest = batch
        self.rate = _rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["factor"]
        chosen = torch.randperm(SUBPIXELS)[: self.config.loss.subpixels]
        with torch.autocast("cpu", torch.bfloat16):
            maps = self.net(self.normalise(images).contiguous(memory_format=torch.channels_last), chosen)
        losses: Losses = self.loss(maps, BatchTargets(codes[:, chosen].long(), *rest))
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self._blend(min(self.config.average, (1 + step) / (10 + step)))
        return losses

    @torch.no_grad()
    def _blend(self, keep: float) -> None:
        latest = self.net.state_dict()
        for name, mine in self.average.state_dict().items():
            theirs = latest[name]
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - keep)
            else:
                mine.copy_(theirs)


def _groups(net: PanopticNet, config: TrainConfig) -> list[dict[str, Any]]:
    """What learns, by speed and decay: decay is for kernels; on scales and biases it only biases."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            tuned = config.imagenet and name.startswith("encoder.") and isinstance(net.encoder, LiteEncoder)
            key = (config.encoder_rate if tuned else 1.0, config.weight_decay if parameter.ndim > 1 else 0.0)
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "factor": factor, "weight_decay": decay, "lr": 0.0}
        for (factor, decay), members in groups.items()
    ]


def _rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine that ends at zero."""
    warm = min(1.0, (step + 1) / config.warmup)
    return config.rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))


class _Mixture(Dataset[tuple[Any, ...]]):
    """Training view number i, drawn from the sets by their shares; a pure function of (seed, i)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.sets: list[SampleSet] = [
            load_set(name, config.sim_folder if name == "sim" else config.data_root, config.folders)
            for name in config.sets
        ]
        shares = np.array(list(config.sets.values()))
        self.shares = shares / shares.sum()
        self.possible = possible_classes(config.network.classes)
        by_name = dict(zip(config.sets, self.sets, strict=True))
        self.cutouts = cutouts_of(by_name[name] for name in config.paste_from)
        self.pasted = [config.pasted if name in config.paste_into and self.cutouts else 0.0 for name in config.sets]

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        cv2.setNumThreads(0)
        rng = np.random.default_rng((self.config.seed, index))
        number = int(rng.choice(len(self.sets), p=self.shares))
        sample = self.sets[number][int(rng.integers(len(self.sets[number])))]
        if rng.random() < self.pasted[number]:
            sample = paste(sample, self.cutouts, _MOST_PASTED, rng)
        sample = view(sample, self.config.augmentation, rng)
        targets = make_targets(sample, self.config.network.things, self.possible)
        return sample.image, targets.codes, targets.heat, targets.known, targets.offsets, targets.member


def _batches(config: TrainConfig, first_step: int) -> Iterator[list[Tensor]]:
    order = range(first_step * config.batch, config.steps * config.batch)
    loader = DataLoader(
        _Mixture(config),
        config.batch,
        sampler=order,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
    )
    return iter(loader)


class _Report:
    """Averages losses and writes them down every ``REPORT_EVERY`` steps."""

    def __init__(self, config: TrainConfig, progress: Callable[[Progress], None] | None) -> None:
        self.config = config
        self.progress = progress
        self.path = config.out_dir / "losses.csv"
        self.rows: list[tuple[float, float, float]] = []
        self.since = time.monotonic()

    def add(self, losses: Losses, step: int, rate: float) -> None:
        self.rows.append((losses.semantic.item(), losses.centers.item(), losses.offsets.item()))
        if step % REPORT_EVERY and step != self.config.steps:
            return
        semantic, centers, offsets = (float(v) for v in np.mean(self.rows, axis=0))
        speed = len(self.rows) * self.config.batch / (time.monotonic() - self.since)
        state = Progress(step, self.config.steps, rate, semantic, centers, offsets, speed)
        self._write(state)
        if self.progress is not None:
            self.progress(state)
        self.rows, self.since = [], time.monotonic()

    def _write(self, state: Progress) -> None:
        fresh = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow([f.name for f in dataclasses.fields(state)])
            writer.writerow(dataclasses.astuple(state))
