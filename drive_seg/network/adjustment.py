"""Logits put on top of a finished network's: how readily it says a class or an object, without learning again.

Logit adjustment (Menon et al., ICLR 2021, arXiv:2007.07314): what a class weighed in the loss, and how often it occurs
where the network learnt, lie in its logits as a constant, and where it is used another one may be right.
``drive_seg.network.adjust`` measures which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from drive_seg.errors import ConfigError
from drive_seg.labels import DRIVING
from drive_seg.network.panoptic import SUBPIXELS, PanopticNet


@dataclass(frozen=True)
class LogitAdjustment:
    """Logits to add, by the name of the class. 0.4 makes its odds against any other 1.5 times what they were.

    Attributes:
        classes: of the semantic head.
        centers: of the centers of instances of things, and so of the scores of instances.

    Raises:
        ConfigError: a name is none of our classes, or has no centers.
    """

    classes: Mapping[str, float] = field(default_factory=dict)
    centers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for given, known in ((self.classes, DRIVING), (self.centers, DRIVING.things)):
            names = [label.name for label in known]
            unknown = sorted(set(given) - set(names))
            if unknown:
                raise ConfigError(f"logits can be added to {', '.join(names)}, got {', '.join(unknown)}")

    def logits(self) -> tuple[Tensor, Tensor]:
        """float32 (C * S,) for the channels of the semantic head, and (T,) for those of the centers."""
        classes = torch.tensor([self.classes.get(label.name, 0.0) for label in DRIVING])
        centers = torch.tensor([self.centers.get(label.name, 0.0) for label in DRIVING.things])
        return classes.repeat_interleave(SUBPIXELS), centers

    def add_to(self, net: PanopticNet) -> None:
        """Change the biases of the network's heads."""
        with torch.no_grad():
            for layer, added in zip((net.semantic, net.centers), self.logits(), strict=True):
                assert layer.bias is not None
                layer.bias += added.to(layer.bias)

    def document(self) -> dict[str, dict[str, float]]:
        """What a sidecar says of it: nothing of nothing."""
        parts = {"classes": dict(self.classes), "centers": dict(self.centers)}
        return {name: logits for name, logits in parts.items() if logits}
