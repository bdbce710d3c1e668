"""The network: one encoder, one decoder, three heads (semantic, centers, offsets).

The family is Panoptic-DeepLab (Cheng et al., CVPR 2020, arXiv:1911.10194): instances are found bottom-up,
every thing pixel votes for the middle of its instance, so that one pass gives the panoptic map without boxes.
Changed for a vehicle computer: one shared decoder instead of two, plain 3x3 convolutions with ReLU only (they
fuse and quantise everywhere), sums instead of concatenations, and a semantic head that predicts the 4x4
pixels of a cell as 16 sub-pixels (Shi et al., CVPR 2016, arXiv:1609.05158). The class is therefore decided at
full resolution although no feature map larger than a quarter of the image is ever made after the stem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from drive_seg.errors import ConfigError
from drive_seg.network.lite import LiteEncoder
from drive_seg.network.plain import PlainEncoder, conv

Encoder: TypeAlias = "LiteEncoder | PlainEncoder"

STRIDE = 4
"""Pixels per cell side of the maps that the heads predict."""
SUBPIXELS = STRIDE * STRIDE
OFFSET_UNIT = 32.0
"""Pixels per unit of the raw offset head: keeps its activations near one."""

RGB_MEAN = (127.0, 127.0, 127.0)
RGB_STD = (128.0, 128.0, 128.0)


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network. The defaults are the shipped model.

    encoder: ``lite0`` (see ``lite``) or ``plain``. channels, blocks: of the plain encoder, see there.
    context: features at stride 32 after the context block. decoder: features of the decoder at strides 16 and 8.
    head: features at stride 4, where the heads sit. refine: a depthwise block more there, see ``_Refine``.
    classes: number of semantic classes. things: ids of the thing classes, in the order of the center channels.
    """

    encoder: str = "lite0"
    channels: tuple[int, int, int, int, int] = (32, 64, 96, 160, 256)
    blocks: tuple[int, int, int] = (1, 2, 1)
    context: int = 256
    decoder: int = 128
    head: int = 64
    refine: bool = True
    classes: int = 6
    things: tuple[int, ...] = (3, 4, 5)

    def __post_init__(self) -> None:
        if self.encoder not in _ENCODERS:
            raise ConfigError(f"network.encoder must be one of {', '.join(_ENCODERS)}, got '{self.encoder}'")


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


_FINE = 16
"""Features at stride 2 beside the encoder's, for thin markings: ImageNet has taught those nothing of them."""

_ENCODERS: dict[str, Callable[[NetworkConfig], Encoder]] = {
    "lite0": lambda config: LiteEncoder(),
    "plain": lambda config: PlainEncoder(config.channels, config.blocks),
}


class _Context(nn.Module):
    """Wide context at stride 32: three chained 5x5 max-pools and the mean of the whole image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.reduce = conv(inputs, half, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.merge = conv(4 * half, outputs, 1)
        self.whole = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        near = self.reduce(x)
        mid = self.pool(near)
        far = self.pool(mid)
        merged = self.merge(torch.cat((near, mid, far, self.pool(far)), dim=1))
        # First of each row: the sum over a large image (1920x1088) is more than float16 holds.
        mean = x.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
        return functional.relu(merged + self.whole(mean))


class _Refine(nn.Module):
    """A second look where the detail is: 5x5 depthwise and 1x1 beside an identity, 11 times fewer products than 3x3.

    It starts as the identity, so a network that is trained already may be given one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = conv(channels, channels, 5, groups=channels)
        self.mix = conv(channels, channels, 1, relu=False)
        nn.init.zeros_(self.mix[-1].weight)  # type: ignore[arg-type]

    def forward(self, cells: Tensor) -> Tensor:
        return functional.relu(cells + self.mix(self.around(cells)))


class PanopticNet(nn.Module):
    """Encoder, decoder and heads. Input: float (N, 3, H, W), normalised; H and W multiples of 32."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = cfg = config or NetworkConfig()
        self.encoder = _ENCODERS[cfg.encoder](cfg)
        c2, c4, c8, c16, c32 = self.encoder.channels
        self.context = _Context(c32, cfg.context)
        self.up16 = conv(cfg.context, cfg.decoder, 1, relu=False)
        self.skip16 = conv(c16, cfg.decoder, 1, relu=False)
        self.fuse16 = conv(cfg.decoder, cfg.decoder)
        self.skip8 = conv(c8, cfg.decoder, 1, relu=False)
        self.fuse8 = conv(cfg.decoder, cfg.head)
        self.skip4 = conv(c4, cfg.head, 1, relu=False)
        self.fine = conv(3, _FINE, stride=2)
        self.detail = conv(c2 + _FINE, cfg.head, stride=2, relu=False)
        self.fuse4 = conv(cfg.head, cfg.head)
        self.refine = _Refine(cfg.head) if cfg.refine else nn.Identity()
        self.semantic = nn.Conv2d(cfg.head, cfg.classes * SUBPIXELS, 1)
        self.instance = conv(cfg.head, 32)
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
        cells = self.decode(self.fine(image), self.encoder(image))
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

    def decode(self, fine: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Features at stride 2 and at strides 2 to 32 -> (N, head, H / 4, W / 4), what all three heads read."""
        f2, f4, f8, f16, f32 = features
        d16 = self.fuse16(functional.relu(self.skip16(f16) + _double(self.up16(self.context(f32)))))
        d8 = self.fuse8(functional.relu(self.skip8(f8) + _double(d16)))
        cells: Tensor = self.fuse4(
            functional.relu(self.skip4(f4) + self.detail(torch.cat((f2, fine), dim=1)) + _double(d8))
        )
        refined: Tensor = self.refine(cells)
        return refined


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Normalise(nn.Module):
    """uint8 (N, H, W, 3) RGB -> (N, 3, H, W) of its buffers' type, -1..1, as the ImageNet weights expect it."""

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(RGB_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image.to(self.mean.dtype).permute(0, 3, 1, 2) - self.mean) * self.scale
