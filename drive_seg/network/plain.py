"""The plain encoder: 3x3 convolutions and residual blocks, nothing that a processor or TensorRT could not fuse."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def conv(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True, groups: int = 1
) -> nn.Sequential:
    """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride): convolution, batch norm and, if wanted, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside an identity (He et al., CVPR 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = conv(channels, channels, relu=False)
        for module in self.second:
            if isinstance(module, nn.BatchNorm2d):
                nn.init.zeros_(module.weight)  # starts as the identity: early training is calmer

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class PlainEncoder(nn.Module):
    """(N, 3, H, W) -> features at strides 2, 4, 8, 16, 32.

    Args:
        channels: of the five features.
        blocks: residual blocks at strides 8, 16, 32.
    """

    def __init__(self, channels: tuple[int, int, int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = channels
        b8, b16, b32 = blocks
        self.channels = channels
        self.stem = conv(3, c2, stride=2)
        self.stage4 = conv(c2, c4, stride=2)
        self.stage8 = nn.Sequential(conv(c4, c8, stride=2), *(_Residual(c8) for _ in range(b8)))
        self.stage16 = nn.Sequential(conv(c8, c16, stride=2), *(_Residual(c16) for _ in range(b16)))
        self.stage32 = nn.Sequential(conv(c16, c32, stride=2), *(_Residual(c32) for _ in range(b32)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features at strides 2, 4, 8, 16, 32."""
        features = []
        for stage in (self.stem, self.stage4, self.stage8, self.stage16, self.stage32):
            x = stage(x)
            features.append(x)
        return features
