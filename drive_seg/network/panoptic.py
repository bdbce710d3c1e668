"""The network: one encoder, one decoder, three heads (semantic, centers, offsets).

The family is Panoptic-DeepLab (Cheng et al., CVPR 2020, arXiv:1911.10194): instances are found bottom-up,
every thing pixel votes for the middle of its instance, so that one pass gives the panoptic map without boxes.
Changed for a vehicle computer: one shared decoder instead of two, plain 3x3 convolutions with ReLU only (they
fuse and quantise everywhere), sums instead of concatenations, and a semantic head that predicts the 4x4
pixels of a cell as 16 sub-pixels (Shi et al., CVPR 2016, arXiv:1609.05158). The class is therefore decided at
full resolution although no feature map larger than a quarter of the image is ever made after the stem.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 4
"""Pixels per cell side of the maps that the heads predict."""
SUBPIXELS = STRIDE * STRIDE
OFFSET_UNIT = 32.0
"""Pixels per unit of the raw offset head: keeps its activations near one."""

RGB_MEAN = (123.675, 116.28, 103.53)
RGB_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class NetworkConfig:
    """Width of the network. The defaults are the shipped model.

    channels: features at strides 2, 4, 8, 16, 32. blocks: residual blocks at strides 8, 16, 32.
    decoder: features of the decoder at strides 16 and 8. head: features at stride 4, where the heads sit.
    classes: number of semantic classes. things: ids of the thing classes, in the order of the center
    channels.
    """

    channels: tuple[int, int, int, int, int] = (32, 64, 96, 160, 256)
    blocks: tuple[int, int, int] = (1, 2, 1)
    decoder: int = 96
    head: int = 64
    classes: int = 6
    things: tuple[int, ...] = (3, 4, 5)


@dataclass(frozen=True)
class RawMaps:
    """What the heads say, before any decision. All float, h = H / 4, w = W / 4.

    semantic: (N, C * S, h, w) logits, class by class, S = 16 or the number asked for; sub-pixel s of cell (i, j)
    is pixel (4 i + s // 4, 4 j + s % 4).
    centers:  (N, T, h, w) logits of "the middle of an instance of this thing class is in this cell".
    offsets:  (N, 2, h, w) pixels (dy, dx) from the middle of the cell to the middle of its instance.
    """

    semantic: Tensor
    centers: Tensor
    offsets: Tensor


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside an identity (He et al., CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels, relu=False)
        for module in self.second:
            if isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.weight)  # starts as the identity: early training is calmer

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class _Context(nn.Module):
    """Wide context at stride 32: three chained 5x5 max-pools and the mean of the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = _conv(channels, half, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.merge = _conv(4 * half, channels, 1)
        self.whole = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.reduce(x)
        mid = self.pool(near)
        far = self.pool(mid)
        merged = self.merge(torch.cat((near, mid, far, self.pool(far)), dim=1))
        return functional.relu(merged + self.whole(x.mean(dim=(2, 3), keepdim=True)))


class PanopticNet(nn.Module):
    """Encoder, decoder and heads. Input: float (N, 3, H, W), normalised; H and W multiples of 32."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = cfg = config or NetworkConfig()
        c2, c4, c8, c16, c32 = cfg.channels
        b8, b16, b32 = cfg.blocks
        self.stem = _conv(3, c2, stride=2)
        self.stage4 = _conv(c2, c4, stride=2)
        self.stage8 = nn.Sequential(_conv(c4, c8, stride=2), *(_Residual(c8) for _ in range(b8)))
        self.stage16 = nn.Sequential(_conv(c8, c16, stride=2), *(_Residual(c16) for _ in range(b16)))
        self.stage32 = nn.Sequential(_conv(c16, c32, stride=2), *(_Residual(c32) for _ in range(b32)), _Context(c32))
        self.up16 = _conv(c32, cfg.decoder, 1, relu=False)
        self.skip16 = _conv(c16, cfg.decoder, 1, relu=False)
        self.fuse16 = _conv(cfg.decoder, cfg.decoder)
        self.skip8 = _conv(c8, cfg.decoder, 1, relu=False)
        self.fuse8 = _conv(cfg.decoder, cfg.head)
        self.skip4 = _conv(c4, cfg.head, 1, relu=False)
        self.fuse4 = _conv(cfg.head, cfg.head)
        self.semantic = nn.Conv2d(cfg.head, cfg.classes * SUBPIXELS, 1)
        self.instance = _conv(cfg.head, 32)
        self.centers = nn.Conv2d(32, len(cfg.things), 1)
        self.offsets = nn.Conv2d(32, 2, 1)
        self._start_heads()

    def _start_heads(self) -> None:
        """Sub-pixels of one class start equal (no checkerboard); centers start rare (p = 0.02), offsets at
        zero.
        """
        nn.init.normal_(self.semantic.weight, std=0.01)
        with torch.no_grad():
            per_class = self.semantic.weight.view(self.config.classes, SUBPIXELS, -1)
            per_class.copy_(per_class[:, :1].expand_as(per_class).clone())
        nn.init.normal_(self.centers.weight, std=0.01)
        nn.init.normal_(self.offsets.weight, std=0.01)
        for head, start in ((self.semantic, 0.0), (self.centers, -3.9), (self.offsets, 0.0)):
            if head.bias is not None:
                nn.init.constant_(head.bias, start)

    def forward(self, image: Tensor, subpixels: Tensor | None = None) -> RawMaps:
        """All maps of ``image``; with ``subpixels`` (indices 0..15) only those of the semantic map, in that order."""
        cells = self.decode(*self.encode(image))
        instance = self.instance(cells)
        return RawMaps(
            semantic=self.semantic(cells) if subpixels is None else self._some_subpixels(cells, subpixels),
            centers=self.centers(instance),
            offsets=self.offsets(instance) * OFFSET_UNIT,
        )

    def _some_subpixels(self, cells: Tensor, subpixels: Tensor) -> Tensor:
        """Training needs a few of the 16 per step; the others are not even computed."""
        weight = self.semantic.weight.unflatten(0, (self.config.classes, SUBPIXELS))[:, subpixels]
        assert self.semantic.bias is not None
        bias = self.semantic.bias.view(self.config.classes, SUBPIXELS)[:, subpixels]
        return functional.conv2d(cells, weight.flatten(0, 1), bias.flatten())

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(N, 3, H, W) -> features at strides 4, 8, 16, 32."""
        f4 = self.stage4(self.stem(image))
        f8 = self.stage8(f4)
        f16 = self.stage16(f8)
        return f4, f8, f16, self.stage32(f16)

    def decode(self, f4: Tensor, f8: Tensor, f16: Tensor, f32: Tensor) -> Tensor:
        """Features of the encoder -> (N, head, H / 4, W / 4), what all three heads read."""
        d16 = self.fuse16(functional.relu(self.skip16(f16) + _double(self.up16(f32))))
        d8 = self.fuse8(functional.relu(self.skip8(f8) + _double(d16)))
        cells: Tensor = self.fuse4(functional.relu(self.skip4(f4) + _double(d8)))
        return cells


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Normalise(nn.Module):
    """uint8 (N, H, W, 3) RGB -> float32 (N, 3, H, W), about zero mean and unit variance on photographs."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(RGB_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image.float().permute(0, 3, 1, 2) - self.mean) * self.scale
