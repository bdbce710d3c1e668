"""The tensors of a network that was not exported by drive_seg: written from a slot's pixels, read into our maps.

A plain semantic network (torchvision, segmentation_models) takes normalised floats and gives a score per class. The
scores become what post-processing expects: class, confidence, and for things one centre per connected component, as
such a network cannot tell touching objects apart.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import EngineError
from drive_seg.foreign import ONE_CHANNEL, Decoder
from drive_seg.frame import RawOutputs
from drive_seg.labels import UNLABELLED
from drive_seg.model import Model
from drive_seg.postprocess import FusionOptions

_log = logging.getLogger(__name__)

MAX_COMPONENTS = 128
"""Most objects of one frame, the largest first; what is left becomes unlabelled."""
_ROUNDING = 0.03
"""How far off probabilities may be that were computed in bf16."""
_CELL = 4
"""Network pixels along a cell of the centre maps, or more where the network's output is coarser."""


def tensors_of(model: Model, pixels: NDArray[np.uint8]) -> OwnTensors | ForeignTensors:
    """What a slot with these pixels, (N, H, W, 3), is to feed ``model`` and to read from it."""
    if model.decoder is None:
        return OwnTensors(pixels)
    return ForeignTensors(model.decoder, [label.id for label in model.labels.things], pixels)


@dataclass(frozen=True)
class OwnTensors:
    """As ``ForeignTensors``, of a network that drive_seg exported: it takes the pixels as they are, gives our maps."""

    fed: NDArray[np.uint8]

    def write(self, count: int) -> None:
        """They are there."""

    def read(self, *maps: NDArray[Any]) -> RawOutputs:
        """The maps."""
        return RawOutputs(*maps)


class ForeignTensors:
    """One slot's input of a foreign network, and the way from its output to our maps.

    Attributes:
        fed: (max_batch, ...) what the network reads, in its layout and type; overwritten by ``write``.
    """

    def __init__(self, decoder: Decoder, things: Sequence[int], pixels: NDArray[np.uint8]) -> None:
        batch, height, width, _ = pixels.shape
        self.fed: NDArray[Any] = np.zeros(decoder.shape(batch, height, width), decoder.dtype)
        self._decoder = decoder
        self._pixels = pixels
        self._things = things
        self._classes = np.full(256, UNLABELLED, np.uint8)
        self._classes[: len(decoder.classes)] = decoder.classes
        mean, std = (np.array(values) for values in (decoder.mean, decoder.std))
        values = (np.arange(256)[:, None] / 255.0 - mean) / std
        self._table = None if decoder.dtype == "uint8" else values.astype(decoder.dtype)
        self._seen = False

    def write(self, count: int) -> None:
        """Bring the first ``count`` images of the slot's pixels into ``fed``."""
        for channel in range(3):
            source = self._pixels[:count, ..., channel if self._decoder.color == "rgb" else 2 - channel]
            planes = self.fed[:count, channel] if self._decoder.layout == "NCHW" else self.fed[:count, ..., channel]
            if self._table is None:
                np.copyto(planes, source)
            else:
                np.take(self._table[:, channel], source, out=planes, mode="clip")

    def read(self, output: NDArray[Any]) -> RawOutputs:
        """Our maps of the network's output.

        Raises:
            EngineError: its shape is not what ``decoder:`` says.
        """
        semantic, confidence = self._semantic(np.asarray(output))
        count, height, width = semantic.shape
        stride = self._stride(height, width)
        if not stride:
            _, net_height, net_width, _ = self._pixels.shape
            raise EngineError(
                f"decoder: output {self._decoder.output} is {width}x{height}, expected {net_width}x{net_height} "
                "or a whole fraction of it"
            )
        cell = max(1, _CELL // stride)
        cells = (count, len(self._things), height // cell, width // cell)
        centers, offsets = np.zeros(cells, np.float32), np.zeros((count, 2, *cells[2:]), np.float32)
        for image in range(count):
            self._centers(semantic[image], confidence[image], cell, stride * cell, centers[image], offsets[image])
        return RawOutputs(semantic, confidence, centers, offsets)

    def _stride(self, height: int, width: int) -> int:
        """Network pixels along a cell of maps of this size; 0 where it is no whole fraction of the network's."""
        _, net_height, net_width, _ = self._pixels.shape
        stride = net_height // height if height else 0
        return stride if (height * stride, width * stride) == (net_height, net_width) else 0

    def _semantic(self, output: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """uint8 (N, h, w) label ids and confidences."""
        decoder = self._decoder
        if decoder.kind == "semantic_ids":
            ids = output
            if ids.ndim == 4 and 1 in (ids.shape[1], ids.shape[3]):
                ids = ids[:, 0] if ids.shape[1] == 1 else ids[..., 0]
            if ids.ndim != 3 or ids.dtype.kind not in "iu":
                raise EngineError(f"decoder: expected integer ids (N, h, w), got {output.dtype} {output.shape}")
            semantic = np.where((ids < 0) | (ids > UNLABELLED), UNLABELLED, ids).astype(np.uint8)
            if ((semantic >= len(decoder.classes)) & (semantic != UNLABELLED)).any():
                _warn(f"decoder: {decoder.output} has ids beyond the {len(decoder.classes)} `classes`; unlabelled")
            return self._classes[semantic], np.full(semantic.shape, 255, np.uint8)
        scores = self._scores(output)
        best = scores.argmax(axis=1)
        highest = np.take_along_axis(scores, best[:, None], axis=1)
        if decoder.kind == "semantic_logits":
            probability = 1.0 / np.exp(scores - highest).sum(axis=1)
        else:
            probability = np.clip(highest[:, 0], 0.0, 1.0)
        return self._classes[best], np.rint(255.0 * probability).astype(np.uint8)

    def _scores(self, output: NDArray[Any]) -> NDArray[np.float32]:
        """float32 (N, C, h, w); the first of a slot, which is of no camera, are looked at closely."""
        decoder, channels = self._decoder, len(self._decoder.classes)
        four = output.ndim == 4 and output.dtype.kind == "f"
        last = four and output.shape[3] == channels
        if last and output.shape[1] == channels:  # it may be that there are as many rows
            last = not self._stride(*output.shape[2:]) and self._stride(*output.shape[1:3]) > 0
        if last:
            output = np.moveaxis(output, 3, 1)
        if not four or output.shape[1] != channels:
            hint = f"; {ONE_CHANNEL}" if four and output.shape[1] == 1 else ""
            raise EngineError(
                f"decoder: expected float {decoder.kind.partition('_')[2]} (N, {channels}, h, w), one channel for each "
                f"entry of 'classes', got {output.dtype} {output.shape}{hint}"
            )
        scores: NDArray[np.float32] = output.astype(np.float32, copy=False)
        if not self._seen and scores.size:
            low, high, total = scores.min(), scores.max(), scores.sum(axis=1)
            if np.isnan(low):
                raise EngineError(f"decoder: output {decoder.output} is not a number (NaN) for a black image")
            found = f"decoder: output {decoder.output} has values from {low:.4g} to {high:.4g}"
            within = low > -_ROUNDING and high < 1 + _ROUNDING
            if decoder.kind == "semantic_probabilities" and not within:
                raise EngineError(f"{found}, expected probabilities, 0 to 1; correct `kind: semantic_logits`")
            if decoder.kind == "semantic_logits" and within and bool((abs(total - 1) < _ROUNDING).all()):
                raise EngineError(
                    f"{found} that add up to 1, expected scores before softmax; correct `kind: semantic_probabilities`"
                )
        self._seen = True
        return scores

    def _centers(
        self,
        semantic: NDArray[np.uint8],
        confidence: NDArray[np.uint8],
        cell: int,
        stride: int,
        centers: NDArray[np.float32],
        offsets: NDArray[np.float32],
    ) -> None:
        """Give every connected component of a thing a centre on one of its own cells, and its cells the way there.

        Args:
            cell: pixels of ``semantic`` along a cell's side; ``stride``: network pixels along it.
            centers, offsets: (T, h, w) and (2, h, w), zero; written.
        """
        found = []
        for channel, thing in enumerate(self._things):
            mask = semantic == thing
            if not mask.any():
                continue
            rows, columns = offsets.shape[1:]
            occupied = mask.reshape(rows, cell, columns, cell).any(axis=(1, 3)).view(np.uint8)
            count, components, stats, middles = cv2.connectedComponentsWithStats(occupied, connectivity=8)
            found += [(int(stats[k, cv2.CC_STAT_AREA]), channel, k, components, middles[k]) for k in range(1, count)]
        found.sort(key=lambda entry: -entry[0])
        owner = np.full(centers.shape, _NOBODY, np.int32)
        places: list[tuple[int, int, int]] = []
        for rank, (_, channel, number, components, middle) in enumerate(found):
            own = components == number
            inside = own.repeat(cell, axis=0).repeat(cell, axis=1) & (semantic == self._things[channel])
            if rank >= MAX_COMPONENTS:
                semantic[inside] = UNLABELLED
                continue
            y, x = np.nonzero(own)
            nearest = np.argmin((x - middle[0]) ** 2 + (y - middle[1]) ** 2)
            # Post-processing scores (heat * confidence) ** 0.75: with this heat that is the confidence.
            certainty = float(confidence[inside].mean()) / 255.0
            centers[channel, y[nearest], x[nearest]] = max(FusionOptions.center_threshold, certainty ** (1 / 3))
            offsets[0, y, x] = (y[nearest] - y) * stride
            offsets[1, y, x] = (x[nearest] - x) * stride
            owner[channel, y, x] = rank
            places.append((channel, int(y[nearest]), int(x[nearest])))
        _share(owner, np.array(places).reshape(-1, 3), stride, offsets)


_NOBODY = -1


@lru_cache(maxsize=16)
def _warn(what: str) -> None:
    """Once, not with every frame."""
    _log.warning(what)


def _share(owner: NDArray[np.int32], places: NDArray[np.intp], stride: int, offsets: NDArray[np.float32]) -> None:
    """Where objects of several classes lie in one cell, vote for a centre that leaves each of them its pixels.

    A pixel joins the nearest centre of its class, and behind that of the object in front another one may be nearer.

    Args:
        owner: (T, h, w) number of the object of each class in a cell.
        places: (K, 3) channel, row and column of the objects' centres, larger objects first.
        stride: network pixels along a cell's side.
        offsets: (2, h, w), those of the smallest object of each cell; changed where another one's are better.
    """
    y, x = np.nonzero((owner != _NOBODY).sum(axis=0) > 1)
    if not y.size:
        return
    away = ((places[:, None, 1:] - places[None, :, 1:]) ** 2).sum(axis=2)
    groups, which = np.unique(owner[:, y, x], axis=1, return_inverse=True)
    for number, group in enumerate(groups.T):
        members = np.sort(group[group != _NOBODY])[::-1]
        for chosen in members:
            rivals = (np.flatnonzero((places[:, 0] == places[k, 0]) & (np.arange(len(places)) != k)) for k in members)
            if all((away[chosen, k] < away[chosen, r]).all() for k, r in zip(members, rivals, strict=True)):
                here = which.reshape(-1) == number
                offsets[0, y[here], x[here]] = (places[chosen, 1] - y[here]) * stride
                offsets[1, y[here], x[here]] = (places[chosen, 2] - x[here]) * stride
                break
