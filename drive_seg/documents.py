"""YAML from outside: plain data only, of bounded size and depth, without aliases.

Aliases are refused because a few hundred bytes of them stand for gigabytes once somebody prints the tree (the "billion
laughs"); nothing that drive_seg reads needs them, and ROS' own parameter files do not allow them either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from drive_seg.errors import ConfigError, DriveSegError, one_line

MAX_BYTES = 1 << 18
"""Largest document, 256 KiB: the longest that is shipped has 5."""
MAX_DEPTH = 50
MAX_DIGITS = 64
"""Longest number, in characters: YAML 1.1 also has base 60 (``1:30:00``), whose cost grows with the square."""

MAX_TAG = 256
"""Longest tag, in characters."""


class _PlainLoader(yaml.SafeLoader):
    """Safe, and without the two things that make a short document expensive."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"line {event.start_mark.line + 1}" if event.start_mark else "the end"
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"{where}: aliases are refused, write it out")
        # A directive may stand for a tag of any length, and every node keeps its own.
        if len(getattr(event, "tag", None) or "") > MAX_TAG:
            raise yaml.YAMLError(f"{where}: a tag has more than {MAX_TAG} characters")
        if self._depth >= MAX_DEPTH:
            raise yaml.YAMLError(f"{where}: it is nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_scalar(self, node: Any) -> Any:
        if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: a number has more than {MAX_DIGITS} characters")
        return super().construct_scalar(node)


def block_of(value: Any, what: str, needed: Collection[str], optional: Collection[str]) -> Mapping[str, Any]:
    """``value``, seen to be a mapping with these keys: a name that is misspelt would else be a default.

    Raises:
        ValueError: it is none, or a key is missing or unknown.
    """
    expected = ", ".join([*needed, *optional])
    if not isinstance(value, Mapping):
        raise ValueError(f"`{what}` must be a mapping of {expected}, got {value!r:.80}")
    unknown = sorted(str(key) for key in value if key not in needed and key not in optional)
    if unknown:
        raise ValueError(f"`{what}` has the unknown keys {', '.join(unknown)!r:.80}; expected {expected}")
    missing = [key for key in needed if key not in value]
    if missing:
        raise ValueError(f"`{what}` lacks {', '.join(missing)}")
    return value


def whole_number(value: Any, what: str) -> int:
    """``value``, seen to be an integer: neither 1.5 nor "1" nor true.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{what} must be a whole number, got {value!r:.80}")
    return value


def read_yaml(path: Path, what: str, refuse: type[DriveSegError] = ConfigError) -> Any:
    """The document in a file, None where it is empty.

    Args:
        what: what the file is, for messages: ``label map``.
        refuse: the exception.

    Raises:
        DriveSegError: of the class ``refuse``: unreadable, too long, no YAML, aliases, or a value that cannot be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise refuse(f"cannot read {what} {path}: expected at most {MAX_BYTES} bytes of YAML, it is longer")
        return yaml.load(data.decode("utf-8"), _PlainLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(f"cannot read {what} {path}: {error}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # All but the first are values that cannot be: most dates and numbers are a ValueError, "!!int" with nothing
        # behind it is an IndexError, "!!bool perhaps" a KeyError, "!!timestamp soon" an AttributeError.
        raise refuse(f"cannot read {what} {path}: it is not valid YAML: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """In one line: YAML's own errors have up to six, which show the place."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return one_line(error)
    mark, said = error.problem_mark, ", ".join(filter(None, (error.context, error.problem)))
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}"
