"""The three losses of Panoptic-DeepLab, changed for partial labels and for a small processor.

Semantic: cross-entropy on a few of the 16 sub-pixels per cell, drawn anew every step (neighbours agree
anyway; all of them would cost as much as the network). Where a set of classes is right, the probability of
the set is asked for. Centers: the focal loss of CenterNet (Zhou et al., 2019, arXiv:1904.07850), which needs
no tuning to the rarity of centers as the original's squared error does. Offsets: L1 on cells of known
instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from drive_seg.network.panoptic import RawMaps
from drive_seg.network.targets import possible_classes


@dataclass(frozen=True)
class LossConfig:
    """Weights. ``classes``: per class id, rare and thin classes count more. ``subpixels``: drawn per step, of
    16. ``hard``: share of the pixels, the worst, that makes half of the semantic loss."""

    semantic: float = 1.0
    centers: float = 0.2
    offsets: float = 0.01
    classes: tuple[float, ...] = (1.0, 1.0, 2.0, 1.3, 3.0, 3.0)
    subpixels: int = 3
    hard: float = 0.2


@dataclass(frozen=True)
class BatchTargets:
    """``Targets`` of a batch, as tensors with a leading N; ``codes`` is (N, S, h, w) int64."""

    codes: Tensor
    heat: Tensor
    known: Tensor
    offsets: Tensor
    member: Tensor


@dataclass(frozen=True)
class Losses:
    """Scalars, each already multiplied by its weight."""

    semantic: Tensor
    centers: Tensor
    offsets: Tensor

    @property
    def total(self) -> Tensor:
        return self.semantic + self.centers + self.offsets


class PanopticLoss(nn.Module):
    """Sum of the three, with the label codes of ``datasets`` turned into sets of classes."""

    possible: Tensor
    weight: Tensor

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config
        possible = torch.from_numpy(possible_classes(len(config.classes))).float()
        weight = (possible * torch.tensor(config.classes)).sum(1) / possible.sum(1).clamp(min=1)
        weight[possible.all(1)] = 0.0  # void
        self.register_buffer("possible", possible)
        self.register_buffer("weight", weight)

    def forward(self, maps: RawMaps, targets: BatchTargets) -> Losses:
        cfg = self.config
        return Losses(
            cfg.semantic * self.semantic(maps.semantic, targets.codes),
            cfg.centers * focal(maps.centers.float(), targets.heat, targets.known),
            cfg.offsets * offset_error(maps.offsets.float(), targets.offsets, targets.member),
        )

    def semantic(self, logits: Tensor, codes: Tensor) -> Tensor:
        """logits (N, C * S, h, w), codes (N, S, h, w) -> scalar."""
        per_class = logits.reshape(logits.shape[0], -1, codes.shape[1], *logits.shape[2:]).float()
        log_p = functional.log_softmax(per_class, dim=1).movedim(1, -1)
        allowed = self.possible[codes]
        # log of the set's probability; a single class is the set of one, where this is plain cross-entropy.
        loss = -torch.logsumexp(log_p.masked_fill(allowed == 0, -1e4), dim=-1) * self.weight[codes]
        valid = (self.weight[codes] > 0).sum().clamp(min=1)
        flat = loss.flatten()
        worst = flat.topk(max(1, int(self.config.hard * flat.numel())), sorted=False).values.mean()
        return 0.5 * flat.sum() / valid + 0.5 * worst


def focal(logits: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    """Focal loss of logits (N, T, h, w) against Gaussian heat, per center; unknown cells do not count."""
    probability = torch.sigmoid(logits)
    peak = heat == 1
    at_peak = functional.logsigmoid(logits) * (1 - probability) ** 2
    elsewhere = functional.logsigmoid(-logits) * probability**2 * (1 - heat) ** 4
    return -(torch.where(peak, at_peak, elsewhere) * known).sum() / peak.sum().clamp(min=1)


def offset_error(offsets: Tensor, wanted: Tensor, member: Tensor) -> Tensor:
    """Mean |error| in pixels over the cells of known instances."""
    error = (offsets - wanted).abs().sum(1) * member
    return error.sum() / member.sum().clamp(min=1)
