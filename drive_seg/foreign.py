"""Networks that were not exported by drive_seg: the ``decoder:`` block of a sidecar. ``engines.foreign`` obeys it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from drive_seg.documents import block_of
from drive_seg.errors import ModelError
from drive_seg.labels import UNLABELLED, LabelSet

KINDS = ("semantic_logits", "semantic_probabilities", "semantic_ids")
ONE_CHANNEL = (
    "the score of a single class says nothing of the other: give the graph two channels, "
    "torch.cat([torch.zeros_like(x), x], 1) of a logit, torch.cat([1 - x, x], 1) of a probability"
)


@dataclass(frozen=True)
class Decoder:
    """How a foreign network is fed and read. Pixel p of channel c is fed as ``(p / 255 - mean[c]) / std[c]``.

    Args:
        kind: ``semantic_logits``: float (N, C, h, w) scores before softmax; ``semantic_probabilities``: the same after
            softmax or a sigmoid, 0..1; ``semantic_ids``: integer (N, h, w) or (N, 1, h, w) channel numbers. The
            channels may be last; h, w are the input's size or a whole fraction of it.
        output: name of that tensor.
        layout: ``NCHW`` or ``NHWC``.
        dtype: ``float32`` or ``float16``, or ``uint8`` for pixels as they are.
        color: ``rgb`` or ``bgr``, the order of the input's channels; ``mean`` and ``std`` are in the same order.
        classes: label id of each of the network's channels, 255 for none.

    Raises:
        ModelError: a value that cannot be used.
    """

    kind: str
    output: str
    classes: tuple[int, ...]
    layout: str = "NCHW"
    dtype: str = "float32"
    color: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("kind", self.kind, KINDS),
            ("layout", self.layout, ("NCHW", "NHWC")),
            ("dtype", self.dtype, ("float32", "float16", "uint8")),
            ("color", self.color, ("rgb", "bgr")),
        ):
            if value not in choices:
                raise ModelError(f"decoder: {name} must be one of {', '.join(choices)}, got {value!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or not np.isfinite([*self.mean, *self.std]).all():
            raise ModelError(
                f"decoder: mean and std must have three finite numbers each, got {self.mean} and {self.std}"
            )
        if min(self.std) <= 0:
            raise ModelError(f"decoder: std must be above 0, got {self.std}")
        if max(map(abs, self.mean)) > 1:
            raise ModelError(
                f"decoder: mean must be that of pixels / 255, at most 1, got {self.mean}; divide mean and std of "
                "pixels 0..255 by 255 (std 0.00392157 feeds pixels 0..255)"
            )
        if not 0 < len(self.classes) <= UNLABELLED:
            raise ModelError(f"decoder: classes must name the label of 1..255 channels, got {len(self.classes)}")
        if len(self.classes) == 1 and self.kind != "semantic_ids":
            raise ModelError(f"decoder: classes has one entry; {ONE_CHANNEL}")

    @classmethod
    def from_sidecar(cls, block: Any, size: Mapping[str, Any], labels: LabelSet) -> Decoder:
        """Build from the sidecar's ``decoder:`` and ``input:`` blocks.

        Raises:
            ModelError: unusable, or a class that is no label.
            ValueError: keys are missing or unknown.
        """
        block = block_of(block, "decoder", ("kind", "output"), ("classes",))
        names = {label.name: label.id for label in labels}
        given = block.get("classes", list(names))
        if not isinstance(given, list):
            raise ModelError(f"decoder: classes must be a list of labels, one for each channel, got {given!r:.80}")
        classes = []
        for entry in given:
            if entry is not None and not (isinstance(entry, str) and entry in names):
                raise ModelError(
                    f"decoder: class {entry!r:.80} is no label; there are {', '.join(names)}, null is none"
                )
            classes.append(UNLABELLED if entry is None else names[entry])
        dtype = str(size.get("dtype", "float32"))
        if dtype == "uint8" and ("mean" in size or "std" in size):
            raise ModelError("decoder: an input of uint8 is fed pixels as they are; remove its mean and std")
        return cls(
            kind=str(block["kind"]),
            output=str(block["output"]),
            classes=tuple(classes),
            layout=str(size.get("layout", "NCHW")),
            dtype=dtype,
            color=str(size.get("color", "rgb")),
            mean=_triple(size.get("mean", [0.0] * 3), "mean"),
            std=_triple(size.get("std", [1.0] * 3), "std"),
        )

    def shape(self, batch: Any, height: int, width: int) -> list[Any]:
        """The shape of the network's input."""
        return [batch, 3, height, width] if self.layout == "NCHW" else [batch, height, width, 3]


def _triple(values: Any, what: str) -> tuple[float, float, float]:
    numbers = isinstance(values, list) and [type(value) in (int, float) for value in values] == [True] * 3
    if not numbers:
        raise ModelError(f"decoder: {what} must be three numbers, got {values!r:.80}")
    red, green, blue = map(float, values)
    return red, green, blue
