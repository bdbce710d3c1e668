"""An engine made of a Python callable: for tests, and for trying post-processing on maps from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.protocol import EngineInfo
from drive_seg.errors import EngineError
from drive_seg.frame import RawOutputs
from drive_seg.ranges import check_number

NetworkFunction = Callable[[NDArray[np.uint8]], RawOutputs]


class FunctionSlot:
    """Runs the function inside ``wait``."""

    def __init__(self, function: NetworkFunction, shape: tuple[int, int, int, int]) -> None:
        self.input = np.zeros(shape, np.uint8)
        self._function = function
        self._count = 0

    def submit(self, count: int) -> None:
        """Remember the batch."""
        self._count = count

    def wait(self) -> RawOutputs:
        """Call the function; what it raises reaches the caller as EngineError, and so does what is no answer."""
        try:
            maps = self._function(self.input[: self._count])
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"the network function failed: {type(error).__name__}: {error}") from error
        if not isinstance(maps, RawOutputs):
            raise EngineError(f"the network function must return RawOutputs, got {type(maps).__name__}")
        if len(maps.semantic) < self._count:
            raise EngineError(f"the network function returned maps of {len(maps.semantic)} images of {self._count}")
        return maps


class FunctionEngine:
    """``function``: uint8 (N, H, W, 3) RGB -> RawOutputs; H x W is ``size`` = (width, height).

    Raises:
        ConfigError: a size or number is not positive.
    """

    def __init__(
        self,
        function: NetworkFunction,
        size: tuple[int, int] = (640, 384),
        max_batch: int = 1,
        slots: int = 2,
    ) -> None:
        for name, value in (("width", size[0]), ("height", size[1]), ("max_batch", max_batch), ("slots", slots)):
            check_number(name, value, 1, whole=True)
        self.info = EngineInfo("function", "fp32", "python", "1")
        self.slots: Sequence[FunctionSlot] = [
            FunctionSlot(function, (max_batch, size[1], size[0], 3)) for _ in range(slots)
        ]

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> FunctionEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
