"""The pool of vehicles, each drawn from its number."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .bodywork import Vehicle
from .cars import car
from .chance import chance, pick
from .lorries import bus, lorry, van

# Bodies come from a pool that all drives share: a process builds each at most once.
CARS, HEAVIES = 1200, 300


def draw_look(rng: np.random.Generator, heavy: float) -> int:
    """The number of a vehicle; `heavy` is the share of vans, lorries and buses."""
    number, kind = int(rng.integers(1 << 30)), float(rng.random())
    return number % CARS if kind > heavy else CARS + number % HEAVIES


@lru_cache(maxsize=CARS + HEAVIES)
def vehicle(look: int) -> Vehicle:
    """The vehicle of this number."""
    rng = chance(look, 301)
    if look < CARS:
        return car(rng)
    kind = pick(rng, ("van", "lorry", "bus"), (0.5, 0.3, 0.2))
    return {"van": van, "lorry": lorry, "bus": bus}[kind](rng)
