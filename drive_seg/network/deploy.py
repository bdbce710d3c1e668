"""The network as it is shipped: uint8 image in, decided maps out, every step inside the graph.

Decisions in the graph keep the transfer small (one byte per pixel instead of 24) and make every engine give
the same answer. Only operators that OpenVINO, ONNX Runtime and TensorRT 8.6 to 11 all have are used; 8-bit
tensors occur only at the borders of the graph, directly behind or before a Cast, because TensorRT 8.6 allows
nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from drive_seg.network.panoptic import STRIDE, SUBPIXELS, Normalise, PanopticNet

INPUT_NAME = "image"
OUTPUT_NAMES = ("semantic", "confidence", "centers", "offsets")
DEFAULT_SIZE = (640, 384)
"""Width and height that the sidecar proposes; the graph takes any multiples of 32."""
PEAK_WINDOW, NEAR_WINDOW = 7, 3
"""Cells: a center is the highest of this many by this many cells (28 x 28 pixels), or of the fewer ones, if it votes
for itself: what votes for a place further away is a second peak of a large object."""
ITSELF = 3.0
"""Pixels, down and across, up to which a cell's offset means the cell itself."""


class DeployedNet(nn.Module):
    """PanopticNet plus normalisation, argmax, confidence and center suppression.

    Input ``image``: uint8 (N, H, W, 3) RGB. Outputs in the order of ``OUTPUT_NAMES``: uint8 (N, H, W) class
    ids, uint8 (N, H, W) round(255 * probability of that class), float32 (N, T, H/4, W/4) heat of the peaks
    and 0 elsewhere, float32 (N, 2, H/4, W/4) offsets (dy, dx) in pixels.

    Args:
        half: float16 in between. The network itself is changed: pass a copy if it is needed in float32.
    """

    def __init__(self, net: PanopticNet, half: bool = False) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.net = net
        if half:
            self.half()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        maps = self.net(self.normalise(image))
        semantic, confidence = decide(maps.semantic)
        return semantic, confidence, peaks(torch.sigmoid(maps.centers), maps.offsets).float(), maps.offsets.float()


def decide(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, C * 16, h, w) -> class id and round(255 * its probability), both uint8 (N, 4 h, 4 w).

    A running maximum over the classes instead of ArgMax: element-wise operators stay in the blocked channel
    layout (one class is one block of 16), where OpenVINO's ArgMax would first transpose everything.
    The first of equal classes wins, as in numpy.argmax.
    """
    per_class = torch.split(logits, SUBPIXELS, dim=1)
    best = per_class[0]
    index = best * 0.0
    for number, candidate in enumerate(per_class[1:], start=1):
        index = torch.where(candidate > best, float(number), index)
        best = torch.maximum(best, candidate)
    total = torch.exp(per_class[0] - best)
    for candidate in per_class[1:]:
        total = total + torch.exp(candidate - best)
    return _to_pixels(index), _to_pixels(torch.round(255.0 / total))


def _to_pixels(cells: Tensor) -> Tensor:
    """(N, 16, h, w) float -> uint8 (N, 4 h, 4 w)."""
    return functional.pixel_shuffle(cells, STRIDE).squeeze(1).to(torch.uint8)


def peaks(heat: Tensor, offsets: Tensor) -> Tensor:
    """Heat (N, T, h, w) and offsets (N, 2, h, w) in pixels -> heat where a cell is a center, 0 elsewhere."""
    down, across = torch.split(torch.maximum(offsets, offsets * -1.0), 1, dim=1)
    itself = ITSELF - torch.maximum(down, across) > 0.0  # Sub and Greater, which the graph has anyway
    wide = torch.where(_is_highest(heat, PEAK_WINDOW), heat, 0.0)
    return torch.where(_is_highest(heat, NEAR_WINDOW) & itself, heat, wide)


def _is_highest(heat: Tensor, window: int) -> Tensor:
    """bool (N, T, h, w): cells that are the highest of their window.

    In 16-bit arithmetic neighbouring cells are often equal. Of equal cells only the first in reading order
    stays: a peak must also be higher than everything before it in its window, or one vehicle would become
    two.
    """
    reach = window // 2
    highest = functional.max_pool2d(heat, window, 1, reach)
    # Zeros in front shift the window to what comes before. Made of slices, because Pad drags shape arithmetic along.
    rows = torch.cat((heat[..., :reach, :] * 0.0, heat), dim=2)
    columns = torch.cat((heat[..., :reach] * 0.0, heat), dim=3)
    above = functional.max_pool2d(rows, (reach, window), 1, (0, reach))
    left = functional.max_pool2d(columns, (1, reach), 1)
    first = torch.maximum(above[..., :-1, :], left[..., :-1])
    return (heat >= highest) & (heat > first)
