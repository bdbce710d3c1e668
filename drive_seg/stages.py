"""What lies before and after the network, where the CPU does it. A GPU engine brings stages of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.protocol import Engine, Slot
from drive_seg.frame import CameraImage, Frame, GpuTimes, PanopticResult, RawOutputs
from drive_seg.labels import LabelSet
from drive_seg.letterbox import Geometry
from drive_seg.postprocess import FusionOptions, PostProcessor
from drive_seg.preprocess import Preprocessor

Allocator = Callable[[Frame, str, tuple[int, int], Any], NDArray[Any]]
"""``allocate(frame, "mask" | "panoptic" | "confidence", shape, dtype)``: the array a result is written into."""

AnySlot = TypeVar("AnySlot", bound=Slot, contravariant=True)
Outputs = TypeVar("Outputs")


class Stages(Protocol[AnySlot, Outputs]):
    """Camera pixels into a slot, a slot's answer to a result; between the two, the slot's batch is started and awaited.

    Attributes:
        options: thresholds and output size of the frames loaded from now on.
    """

    options: FusionOptions

    def load(self, image: CameraImage, slot: AnySlot, index: int) -> Geometry:
        """Put an image into place ``index`` of the slot's batch; returns the way back to its pixels."""
        ...

    def start(self, slot: AnySlot, count: int) -> None:
        """Start on the first ``count`` images; returns without waiting where the engine can."""
        ...

    def collect(self, slot: AnySlot) -> Outputs:
        """Block until the batch is done."""
        ...

    def finish(
        self, frame: Frame, outputs: Outputs, index: int, geometry: Geometry, options: FusionOptions
    ) -> PanopticResult:
        """The result of image ``index``, in arrays of the allocator; with the options that it was loaded with."""
        ...

    def gpu_times(self, outputs: Outputs) -> GpuTimes | None:
        """What a GPU spent on the batch; None where there is none."""
        ...


class HostStages:
    """Letterbox and fusion on the CPU, around any engine."""

    def __init__(self, labels: LabelSet, network: tuple[int, int], options: FusionOptions, allocate: Allocator) -> None:
        self.options = options
        self._preprocess = Preprocessor(network)
        self._postprocess = PostProcessor(labels, network, options, allocate)

    def load(self, image: CameraImage, slot: Slot, index: int) -> Geometry:
        """Letterbox into the slot's input."""
        return self._preprocess(image, slot.input[index])

    def start(self, slot: Slot, count: int) -> None:
        """Submit."""
        slot.submit(count)

    def collect(self, slot: Slot) -> RawOutputs:
        """Wait for the network's maps."""
        return slot.wait()

    def finish(
        self, frame: Frame, outputs: RawOutputs, index: int, geometry: Geometry, options: FusionOptions
    ) -> PanopticResult:
        """Fuse."""
        self._postprocess.options = options
        return self._postprocess(frame, outputs, index, geometry)

    def gpu_times(self, outputs: RawOutputs) -> GpuTimes | None:
        """None."""
        return None


def stages_of(
    engine: Engine, labels: LabelSet, network: tuple[int, int], options: FusionOptions, allocate: Allocator
) -> Stages[Any, Any]:
    """The engine's own stages where it has some, else the CPU's."""
    bring = getattr(engine, "stages", None)
    if bring is None:
        return HostStages(labels, network, options, allocate)
    stages: Stages[Any, Any] = bring(labels, options, allocate)
    return stages


def fresh(frame: Frame, name: str, shape: tuple[int, int], dtype: Any) -> NDArray[Any]:
    """An allocator that makes a new array every time."""
    return np.empty(shape, dtype)
