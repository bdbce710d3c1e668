"""The targets of ``tools/fuzz`` fit the readers that they throw damaged input at."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

for needed in ("rosbags", "lz4"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")

FOLDER = Path(__file__).resolve().parents[1] / "tools" / "fuzz"
NAMES = ["image", "compressed", "bag", "document", "chunk", "lanes", "list", "label_map", "label_image"]


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    import fuzz
    import targets

    return fuzz, targets


@pytest.mark.parametrize("name", NAMES)
def test_a_target_takes_its_seeds_and_what_chance_makes_of_them(tools: tuple[Any, Any], name: str) -> None:
    fuzz, targets = tools
    assert sorted(targets.TARGETS) == sorted(NAMES)
    chance = random.Random(name)
    for seed in targets.seeds(name):
        targets.TARGETS[name](seed)
        for _ in range(10):
            targets.TARGETS[name](fuzz.damaged(chance, seed))


def test_too_few_seconds_to_try_anything_are_refused(
    tools: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz.py", "--seconds", str(len(NAMES) - 1), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        tools[0].main()
