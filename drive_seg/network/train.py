"""The training loop. ``train(config)`` returns the checkpoint; ``export.export_onnx`` makes a model of it."""

from __future__ import annotations

import copy
import csv
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from drive_seg.errors import ConfigError
from drive_seg.network.checkpoint import how_to_have, network_of, read_state
from drive_seg.network.held_out import check, score
from drive_seg.network.lite import LiteEncoder
from drive_seg.network.losses import BatchTargets, Losses, PanopticLoss
from drive_seg.network.mixture import Mixture
from drive_seg.network.panoptic import SUBPIXELS, Normalise, PanopticNet
from drive_seg.network.start import SETTLING, settle, start_from
from drive_seg.network.terms import Terms
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


REPORT_EVERY = 20
"""Steps between rows of losses.csv and calls of the progress callback."""


def train(config: TrainConfig, progress: Callable[[Progress], None] | None = None) -> Path:
    """Train, or go on where ``config.out_dir/checkpoint.pt`` stopped; return the checkpoint's path.

    Without that file it begins anew, and what else an earlier run left there is removed. On a CPU, a run that was
    stopped and went on gives the weights of one that was not.

    The checkpoint has ``network`` (NetworkConfig fields), ``weights``, ``average`` (what is exported),
    ``optimizer``, ``step``, ``training_data``, ``license`` and ``start`` (these two of what the run began with, which
    it needs no more when it goes on). Losses go to ``losses.csv`` beside it. ``steps`` may change between resumes. With
    ``held_out``, scores go to ``scores.csv`` and the best weights to ``best.pt``, whose path is then returned.

    Raises:
        ConfigError: a data set is missing or unknown, the checkpoint is of another network or of other parts of it, or
            what is learnt runs away, so that it would be lost.
        SourceError: there is nothing in ``held_out.folder``.
    """
    check(config.held_out, config.data_root)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    run = _Run(config)
    step = run.resume()
    if not step and run.folded:
        run.settle(islice(_batches(config, 0, run.device), SETTLING))
    batches = _batches(config, step, run.device)
    config.out_dir.mkdir(parents=True, exist_ok=True)
    if step:
        rewind(run.losses, step)
    else:
        run.forget()
    report = _Report(config, run.losses, progress)
    for batch in batches:
        losses = run.learn(batch, step)
        step += 1
        report.add(losses, step, run.rate)
        last = step == config.steps
        # Before the checkpoint of this step: a run that is killed in between validates again.
        if config.held_out.every and (step % config.held_out.every == 0 or last):
            run.validate(step)
        if step % config.save_every == 0 or last:
            run.save(run.checkpoint, step)
    return run.best if run.best.is_file() else run.checkpoint


class _Run:
    """Network, averaged copy, optimiser and loss of one run."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.checkpoint = config.out_dir / "checkpoint.pt"
        self.best = config.out_dir / "best.pt"
        self.scores = config.out_dir / "scores.csv"
        self.losses = config.out_dir / "losses.csv"
        self.device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        # Kernels are chosen by timing, so on a GPU two runs are alike, but not equal.
        torch.backends.cudnn.benchmark = True
        self._found = read_state(self.checkpoint) if self.checkpoint.is_file() else None
        net = PanopticNet(config.network)
        self.start: Terms | None = None
        self.folded = False
        if self._found is not None:
            self.start = Terms(**self._found["start"]) if self._found["start"] else None
        elif config.start:
            start = start_from(net, config.start)
            self.start, self.folded = start.terms, start.folded
        own = Terms(config.training_data, config.license)
        self.terms = own if self.start is None else self.start.then(own, config.states_start)
        if isinstance(net.encoder, LiteEncoder):
            if config.imagenet and not config.start and self._found is None:
                net.encoder.load_imagenet()
            net.encoder.freeze(config.frozen)
        self.net = net.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net)
        self.normalise = Normalise().to(self.device)
        self.loss = PanopticLoss(config.loss).to(self.device)
        self.optimizer = torch.optim.AdamW(_groups(net, config))
        self.rate = 0.0

    def resume(self) -> int:
        """Load the checkpoint if there is one; return the step to go on with."""
        state, self._found = self._found, None
        if state is None:
            return 0
        if network_of(state) != self.config.network:
            raise ConfigError(
                f"{self.checkpoint} is of another network and cannot go on; delete it to begin anew, or "
                f"{how_to_have(network_of(state), self.config.network)}"
            )
        self.net.load_state_dict(state["weights"])
        self.average.load_state_dict(state["average"])
        wanted = [{name: group[name] for name in ("factor", "weight_decay")} for group in self.optimizer.param_groups]
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise ConfigError(
                f"{self.checkpoint} is of a run in which other parts of the network learnt; set frozen, imagenet, "
                "encoder_rate and weight_decay as they were, or delete it to begin anew"
            ) from error
        for group, own in zip(self.optimizer.param_groups, wanted, strict=True):
            group.update(own)  # as the configuration has them now, which may have changed
        return int(state["step"])

    def forget(self) -> None:
        """Remove what an earlier run left: its best weights would be taken for this one's."""
        if self.config.start and Path(self.config.start).resolve() == self.best.resolve():
            raise ConfigError(f"start: a run that begins anew replaces {self.best}; move it to another folder")
        for path in (self.best, self.scores, self.losses):
            path.unlink(missing_ok=True)

    def settle(self, batches: Iterable[list[Tensor]]) -> None:
        """See ``start``: weights of a model get the norms that they were exported without."""
        settle(self.net, (self.normalise(images.to(self.device)) for images, *_ in batches))
        self.average.load_state_dict(self.net.state_dict())

    def validate(self, step: int) -> None:
        """Score the averaged weights, keep them if none were better before, and write the figures down.

        In this order: a score that is written down has its weights.
        """
        figures = score(self.average, self.config.held_out, self.config.data_root)
        if figures["score"] > _best_score(self.scores):
            self.save(self.best, step)
        append_row(self.scores, {"step": step, **figures})

    def save(self, path: Path, step: int) -> None:
        """Write beside and rename, so that a killed run never leaves half a checkpoint."""
        state: dict[str, Any] = {
            "network": dataclasses.asdict(self.config.network),
            "weights": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": step,
            "training_data": self.terms.training_data,
            "license": self.terms.license,
            "start": None if self.start is None else dataclasses.asdict(self.start),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def learn(self, batch: list[Tensor], step: int) -> Losses:
        """One optimiser step on (images, codes, heat, known, offsets, pixels)."""
        images, codes, *rest = (part.to(self.device, non_blocking=True) for part in batch)
        self.rate = _rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["factor"]
        # By seed and step alone, so that a run that was stopped draws on as if it had not been.
        drawn = np.random.default_rng((self.config.seed, step)).permutation(SUBPIXELS)
        chosen = torch.from_numpy(drawn[: self.config.loss.subpixels])
        with torch.autocast(self.device.type, torch.bfloat16):
            maps = self.net(self.normalise(images).contiguous(memory_format=torch.channels_last), chosen)
        losses: Losses = self.loss(maps, BatchTargets(codes[:, chosen].long(), *rest))
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        if not nn.utils.clip_grad_norm_(self.net.parameters(), 5.0).isfinite():  # one such step spoils all weights
            raise ConfigError(
                f"the gradients of step {step + 1} are not finite: set a lower rate than {self.config.rate:g} or a "
                "longer warmup; a run that is started again goes on from its last checkpoint"
            )
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


def _batches(config: TrainConfig, first_step: int, device: torch.device) -> Iterator[list[Tensor]]:
    order = range(first_step * config.batch, config.steps * config.batch)
    loader = DataLoader(
        _Told(Mixture(config)),
        config.batch,
        sampler=order,
        num_workers=config.workers,
        collate_fn=_together,
        prefetch_factor=4 if config.workers else None,
        pin_memory=device.type == "cuda",
    )
    return map(_whole, iter(loader))


class _Told(Dataset[Any]):
    """Views, or what is wrong with one: of an error that a loader process raises, torch makes its whole traceback."""

    def __init__(self, views: Mixture) -> None:
        self._views = views

    def __getitem__(self, index: int) -> Any:
        try:
            return self._views[index]
        except ConfigError as error:
            return error


def _together(items: list[Any]) -> Any:
    """A batch, or the first error among its items."""
    return next((item for item in items if isinstance(item, ConfigError)), None) or default_collate(items)


def _whole(batch: Any) -> list[Tensor]:
    if isinstance(batch, ConfigError):
        raise batch
    return cast("list[Tensor]", batch)


class _Report:
    """Averages losses and writes them down every ``REPORT_EVERY`` steps."""

    def __init__(self, config: TrainConfig, path: Path, progress: Callable[[Progress], None] | None) -> None:
        self.config = config
        self.progress = progress
        self.path = path
        self.rows: list[tuple[float, float, float]] = []
        self.since = time.monotonic()

    def add(self, losses: Losses, step: int, rate: float) -> None:
        self.rows.append((losses.semantic.item(), losses.centers.item(), losses.offsets.item()))
        if step % REPORT_EVERY and step != self.config.steps:
            return
        semantic, centers, offsets = (float(v) for v in np.mean(self.rows, axis=0))
        speed = len(self.rows) * self.config.batch / (time.monotonic() - self.since)
        state = Progress(step, self.config.steps, rate, semantic, centers, offsets, speed)
        append_row(self.path, dataclasses.asdict(state))
        if self.progress is not None:
            self.progress(state)
        self.rows, self.since = [], time.monotonic()


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a CSV file, with the names first where it is new."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def rewind(path: Path, step: int) -> None:
    """Leave out the rows behind a step of a CSV file: a run that was killed between two checkpoints goes through them
    again."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    for row in rows:
        append_row(part, row)
    part.replace(path) if rows else path.unlink()


def _best_score(path: Path) -> float:
    if not path.exists():
        return -math.inf
    with path.open(newline="", encoding="utf-8") as file:
        return max((float(row["score"]) for row in csv.DictReader(file)), default=-math.inf)
