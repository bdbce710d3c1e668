"""The three losses of Panoptic-DeepLab, changed for partial labels and for a small processor.

Semantic: cross-entropy on a few of the 16 sub-pixels per cell, drawn anew every step (neighbours agree
anyway; all of them would cost as much as the network). Where a set of classes is right, the probability of
the set is asked for. Where asked for, the Lovász extension of 1 - IoU beside it (Berman et al., CVPR 2018,
arXiv:1705.08790), which weighs a pixel by what it does to the IoU of its class. Centers: the focal loss of
CenterNet (Zhou et al., 2019, arXiv:1904.07850), which needs no tuning to the rarity of centers as the
original's squared error does. Offsets: L1 on cells of known instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from drive_seg.network.panoptic import SUBPIXELS, RawMaps
from drive_seg.network.targets import possible_classes
from drive_seg.ranges import check_number


@dataclass(frozen=True)
class LossConfig:
    """Weights. ``classes``: per class id, rare and thin classes count more. ``subpixels``: drawn per step, of
    16. ``hard``: share of the pixels, the worst, that makes half of the semantic loss. ``small``: the cells of an
    object with fewer visible pixels, and those around it, count more, by the root of the ratio and up to four times; 0
    counts all alike. ``offset_area``: the same for the offsets of objects below this area, up to 16 times: their error
    counts by the object's size. 0 takes ``small``.
    ``lovasz``: of the Lovász loss, which is part of the semantic one.

    Raises:
        ConfigError: a value is out of range.
    """

    semantic: float = 1.0
    centers: float = 0.2
    offsets: float = 0.01
    classes: tuple[float, ...] = (1.0, 1.0, 2.0, 1.3, 3.0, 3.0)
    subpixels: int = 3
    hard: float = 0.2
    small: float = 0.0
    offset_area: float = 0.0
    lovasz: float = 0.0

    def __post_init__(self) -> None:
        for name in ("semantic", "centers", "offsets", "small", "offset_area", "lovasz"):
            check_number(f"loss.{name}", getattr(self, name), 0)
        for weight in self.classes:
            check_number("loss.classes", weight, 0)
        check_number("loss.subpixels", self.subpixels, 1, SUBPIXELS, whole=True)
        check_number("loss.hard", self.hard, 0, 1)


@dataclass(frozen=True)
class BatchTargets:
    """``Targets`` of a batch, as tensors with a leading N; ``codes`` is (N, S, h, w) int64."""

    codes: Tensor
    heat: Tensor
    known: Tensor
    offsets: Tensor
    pixels: Tensor


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
        weight = small_weight(targets.pixels, cfg.small)
        own = small_weight(targets.pixels, cfg.offset_area, _MOST_OF_OFFSETS) if cfg.offset_area else weight
        return Losses(
            cfg.semantic * self.semantic(maps.semantic, targets.codes, spread(weight)),
            cfg.centers * focal(maps.centers.float(), targets.heat, targets.known),
            cfg.offsets * offset_error(maps.offsets.float(), targets.offsets, own * (targets.pixels > 0)),
        )

    def semantic(self, logits: Tensor, codes: Tensor, weight: Tensor) -> Tensor:
        """logits (N, C * S, h, w), codes (N, S, h, w), weight (N, h, w) of the cells -> scalar."""
        per_class = logits.reshape(logits.shape[0], -1, codes.shape[1], *logits.shape[2:]).float()
        log_p = functional.log_softmax(per_class, dim=1).movedim(1, -1)
        allowed = self.possible[codes]
        # log of the set's probability; a single class is the set of one, where this is plain cross-entropy.
        loss = -torch.logsumexp(log_p.masked_fill(allowed == 0, -1e4), dim=-1)
        loss = loss * self.weight[codes] * weight[:, None]
        valid = (self.weight[codes] > 0).sum().clamp(min=1)
        flat = loss.flatten()
        worst = flat.topk(max(1, int(self.config.hard * flat.numel())), sorted=False).values.mean()
        cross_entropy = 0.5 * flat.sum() / valid + 0.5 * worst
        if not self.config.lovasz:
            return cross_entropy
        # Of the sub-pixels that were drawn one is enough: it sorts all pixels for every class.
        single = codes[:, 0] < log_p.shape[-1]
        return cross_entropy + self.config.lovasz * lovasz_softmax(log_p[:, 0][single].exp(), codes[:, 0][single])


def lovasz_softmax(probability: Tensor, classes: Tensor) -> Tensor:
    """Mean over the classes that occur of the Lovász extension of 1 - IoU; probability (P, C), classes (P,) -> scalar.

    With a probability of 0 or 1 everywhere it is exactly the mean of 1 - IoU.
    """
    terms = []
    for number in classes.unique():
        right = (classes == number).float()
        error, order = (right - probability[:, number]).abs().sort(descending=True)
        right = right[order]
        # 1 - IoU when the worst k are wrong and the others right, for k = 1, 2, ...
        union = right.sum() + (1 - right).cumsum(0)
        jaccard = 1 - (right.sum() - right.cumsum(0)) / union
        terms.append(error @ jaccard.diff(prepend=jaccard.new_zeros(1)))
    return torch.stack(terms).mean() if terms else probability.sum() * 0.0


def focal(logits: Tensor, heat: Tensor, known: Tensor) -> Tensor:
    """Focal loss of logits (N, T, h, w) against Gaussian heat, per center; unknown cells do not count."""
    probability = torch.sigmoid(logits)
    peak = heat == 1
    at_peak = functional.logsigmoid(logits) * (1 - probability) ** 2
    elsewhere = functional.logsigmoid(-logits) * probability**2 * (1 - heat) ** 4
    return -(torch.where(peak, at_peak, elsewhere) * known).sum() / peak.sum().clamp(min=1)


_MOST, _MOST_OF_OFFSETS = 4.0, 16.0
"""Times that the cells of a small object count."""


def small_weight(pixels: Tensor, small: float, most: float = _MOST) -> Tensor:
    """(N, h, w): what each cell counts; ``pixels`` are those of its object, 0 in cells without one."""
    if not small:
        return torch.ones_like(pixels, dtype=torch.float32)
    return torch.where(pixels > 0, (small / pixels.clamp(min=1)).sqrt().clamp(1.0, most), 1.0)


_AROUND = 2
"""Cells around a small object that count as much as it does."""


def spread(weight: Tensor) -> Tensor:
    """(N, h, w): the highest weight near each cell. If the cells of an object alone counted more than what it stands
    before, it would grow."""
    return functional.max_pool2d(weight[:, None], 2 * _AROUND + 1, 1, _AROUND)[:, 0]


def offset_error(offsets: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean |error| in pixels over the cells of known instances, which have a weight above 0."""
    error = (offsets - wanted).abs().sum(1) * weight
    return error.sum() / weight.sum().clamp(min=1)
