"""What a program gives as an option, seen to be usable where it is given rather than frames later."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from drive_seg.errors import ConfigError


def check_number(name: str, value: Any, least: float, most: float = math.inf, whole: bool = False) -> None:
    """Let a number of an inclusive range pass.

    Raises:
        ConfigError: it is none, or not whole where it has to be.
    """
    number: Any = value if isinstance(value, Integral if whole else Real) and not isinstance(value, bool) else math.nan
    if least <= number <= most and number != math.inf:  # NaN is in no range
        return
    bounds = f"{least:g} or more" if most == math.inf else f"{least:g}..{most:g}"
    raise ConfigError(f"{name} must be {'a whole' if whole else 'a finite'} number, {bounds}; got {value!r:.80}")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Let an object of a class pass.

    Raises:
        ConfigError: it is of another.
    """
    if not isinstance(value, kind):
        raise ConfigError(f"{name} must be of {kind.__module__}.{kind.__name__}, got {value!r:.80}")
