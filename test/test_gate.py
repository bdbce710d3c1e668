"""The figures of the accuracy gate against loops over pixels and cells, and what is demanded of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from drive_seg.engines.gate import LIMITS, Agreement, compare, compare_engine
from drive_seg.engines.reference import Reference
from drive_seg.errors import EngineError
from drive_seg.frame import RawOutputs
from drive_seg.model import load_model
from drive_seg.resources import find_model

THINGS = (3, 4, 5)


def maps(random: np.random.Generator) -> RawOutputs:
    semantic = random.integers(0, 6, (1, 16, 24)).astype(np.uint8)
    semantic[0, :8] = 1
    centers = random.random((1, 3, 4, 6)) * (random.random((1, 3, 4, 6)) < 0.3)
    offsets = random.normal(0, 9, (1, 2, 4, 6))
    confidence = random.integers(0, 256, semantic.shape).astype(np.uint8)
    return RawOutputs(semantic, confidence, centers.astype(np.float32), offsets.astype(np.float32))


def highest(heat: np.ndarray, y: int, x: int) -> float:
    return float(heat[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].max())


@pytest.mark.parametrize("seed", range(3))
def test_figures_are_means_over_pixels_peaks_and_things(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = [(maps(random), maps(random)) for _ in range(3)]
    heat, offsets = [], []
    for got, want in pairs:
        for channel, y, x in np.ndindex(3, 4, 6):
            ours, theirs = got.centers[0, channel], want.centers[0, channel]
            if ours[y, x] > 0.1 or theirs[y, x] > 0.1:
                heat.append(abs(highest(ours, y, x) - highest(theirs, y, x)))
        for y, x in np.ndindex(4, 6):
            if np.isin(want.semantic[0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4], THINGS).any():
                offsets.append(np.abs(got.offsets - want.offsets)[0, :, y, x].max())
    frames = [np.full((16, 24, 3), number, np.uint8) for number in range(3)]
    answers = iter([got for got, _ in pairs])
    found = compare(lambda batch: next(answers), Reference(frames, [want for _, want in pairs], ""), THINGS)
    assert found.frames == 3
    assert found.labels_equal == pytest.approx(np.mean([a.semantic == b.semantic for a, b in pairs]))
    differences = [a.confidence.astype(float) - b.confidence for a, b in pairs]
    assert found.confidence == pytest.approx(np.abs(differences).mean())
    assert found.heat == pytest.approx(np.mean(heat), rel=1e-5)
    assert found.offsets == pytest.approx(np.mean(offsets), rel=1e-5)


@pytest.mark.parametrize("precision", LIMITS)
def test_what_just_meets_its_limits_passes_and_what_is_no_number_does_not(precision: str) -> None:
    limits = LIMITS[precision]
    just = Agreement(8, **dataclasses.asdict(limits))
    assert just.misses(limits) == []
    for name in dataclasses.asdict(limits):
        beyond = getattr(limits, name) * (0.99 if name == "labels_equal" else 1.01)
        for value in (beyond, float("nan")):
            (said,) = dataclasses.replace(just, **{name: value}).misses(limits)
            assert name.replace("labels_equal", "equal labels") in said


@pytest.mark.parametrize("name", ["labels_equal", "confidence", "heat", "offsets"])
def test_the_worse_of_two_is_worse_in_every_figure(name: str) -> None:
    good = Agreement(8, 0.99, 0.1, 0.1, 0.1)
    for value in (0.5, float("nan")):
        bad = dataclasses.replace(good, frames=2, **{name: value})
        for worse in (good.or_worse(bad), bad.or_worse(good)):
            np.testing.assert_equal(worse.as_dict() | {"frames": 2}, bad.as_dict())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut short", b"\x93NUMPY\x01\x00"])
def test_what_is_no_reference_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is no reference that drive_seg wrote"):
        Reference.load(path, load_model(find_model("default")))
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(EngineError, match="is no reference that drive_seg wrote"):
        Reference.load(tmp_path / "array.npy", load_model(find_model("default")))


class NumberedSlot:
    """Finds the answer of each image by the number in its pixels; ``wrong`` turns those of full batches about."""

    def __init__(self, answers: list[RawOutputs], batch: int, wrong: bool) -> None:
        self.input = np.zeros((batch, 16, 24, 3), np.uint8)
        self.submitted: list[int] = []
        self._answers, self._wrong = answers, wrong

    def submit(self, count: int) -> None:
        self.submitted.append(count)

    def wait(self) -> RawOutputs:
        count = self.submitted[-1]
        order = self.input[:count, 0, 0, 0].tolist()
        order = order[::-1] if self._wrong and count > 1 else order
        return RawOutputs(*(np.concatenate([getattr(self._answers[n], name)[:1] for n in order]) for name in FIELDS))


FIELDS = ("semantic", "confidence", "centers", "offsets")


@pytest.mark.parametrize(("frames", "batch", "batches"), [(8, 3, 3), (3, 4, 2), (8, 8, 1), (2, 1, 8)])
@pytest.mark.parametrize("wrong", [None, 0, 1])
def test_every_slot_is_judged_with_full_batches_of_as_many_frames(
    frames: int, batch: int, batches: int, wrong: int | None
) -> None:
    random = np.random.default_rng(frames)
    answers = [maps(random) for _ in range(frames)]
    pictures = [np.full((16, 24, 3), number, np.uint8) for number in range(frames)]
    slots = [NumberedSlot(answers, batch, wrong == number) for number in range(2)]
    engine = SimpleNamespace(slots=slots)
    found = compare_engine(engine, Reference(pictures, answers, ""), THINGS)  # type: ignore[arg-type]
    assert slots[0].submitted == [1] * frames + [batch] * batches and slots[1].submitted == [batch] * batches
    assert (found.labels_equal == 1.0 and found.offsets == 0.0) == (wrong is None or batch == 1)
