"""Roads drawn for tests, pixel by pixel from their own formula, without the code under test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 360
BACKGROUND, ROAD, PAINT, CAR = 0, 1, 2, 3


@dataclass(frozen=True)
class FlatRoad:
    """Boundary i is at column ``vanish + sides[i] * u + curve / u``, u rows below the horizon, in a map of 640x360."""

    sides: tuple[float, ...]
    horizon: float = 140.0
    vanish: float = 320.0
    curve: float = 0.0
    dashed: tuple[bool, ...] = ()
    width: float = 0.1

    def column(self, side: float, row: float) -> float:
        """Where a boundary is in a row."""
        u = row - self.horizon
        return self.vanish + side * u + self.curve / u

    def painted(self, number: int, row: float, phase: float = 0.0) -> bool:
        """Whether a row is in no gap of a boundary."""
        away = 500 * 1.4 / (row - self.horizon)
        return not (self.dashed and self.dashed[number]) or (away + phase) % 9 <= 3

    def nearest_paint(self, number: int, phase: float = 0.0) -> int:
        """The lowest row in which a boundary is painted and in the image."""
        rows = (row for row in range(int(self.horizon) + 4, HEIGHT) if self.painted(number, row, phase))
        return max(row for row in rows if 0 <= self.column(self.sides[number], row) < WIDTH)

    def draw(self, phase: float = 0.0) -> NDArray[np.uint8]:
        """uint8 (360, 640): a road two lanes wider than its lines; dashes of 3 m and gaps of 6 m."""
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for row in range(int(self.horizon) + 4, HEIGHT):
            u = row - self.horizon
            fill(mask, row, self.column(min(self.sides) - 2, row), self.column(max(self.sides) + 2, row), ROAD)
            for number, side in enumerate(self.sides):
                if not self.painted(number, row, phase):
                    continue
                middle, half = self.column(side, row), max(0.5, self.width * u / 2)
                fill(mask, row, middle - half, middle + half, PAINT)
        return mask


def fill(mask: NDArray[np.uint8], row: int, first: float, last: float, value: int) -> None:
    """Pixels of a row whose middles lie from ``first`` to ``last``."""
    begin, end = max(0, int(np.ceil(first))), min(mask.shape[1], int(np.floor(last)) + 1)
    mask[row, begin : max(begin, end)] = value


def worst(found: NDArray[np.float32], road: FlatRoad, side: float, scale: float, above: float = 14.0) -> float:
    """Most columns of the map between a found boundary (N, 2) in pixels ``scale`` times the map's and the true one,
    not counting the last ``above`` rows below the horizon (beyond 50 m): a cell there is many metres."""
    places = (found.astype(float) + 0.5) / scale - 0.5
    return max(abs(x - road.column(side, y)) for x, y in places if y > road.horizon + above)


def orders_of(sides: Sequence[float]) -> list[int]:
    """The order of each boundary, from left to right."""
    left = sum(side < 0 for side in sides)
    return [*range(-left, 0), *range(1, len(sides) - left + 1)]
