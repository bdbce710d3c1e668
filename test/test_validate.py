"""The scores of the sidecar against definitions written out; torch is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from drive_seg.network.sidecar import write_metrics, write_sidecar
from drive_seg.network.validate import Confusion, PanopticCounts, count_segments

IDS = (0, 1, 3001, 3002, 4001, 65535)


def blocks(seed: int) -> np.ndarray:
    """A random panoptic map of 4x4-pixel blocks, (24, 32)."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.choice(IDS, (6, 8)), np.ones((4, 4), int)).astype(np.uint16)


def by_definition(truth: np.ndarray, prediction: np.ndarray) -> dict[int, tuple[int, int, int]]:
    """TP, FP, FN per class: every pair of segments tried, void pixels of the truth left out of unions."""
    void = truth == 65535
    hits: dict[int, list[int]] = {c: [0, 0, 0] for c in (0, 1, 3, 4)}
    matched, found = set(), set()
    for t in np.unique(truth[~void]):
        for p in np.unique(prediction[prediction != 65535]):
            class_t, class_p = (int(i) // 1000 if i >= 1000 else int(i) for i in (t, p))
            mine, theirs = truth == t, (prediction == p) & ~void
            if class_t == class_p and (mine & theirs).sum() > 0.5 * (mine | theirs).sum():
                matched.add(int(t))
                found.add(int(p))
                hits[class_t][0] += 1
    for p in set(np.unique(prediction).tolist()) - found - {65535}:
        if void[prediction == p].mean() <= 0.5:
            hits[p // 1000 if p >= 1000 else p][1] += 1
    for t in set(np.unique(truth).tolist()) - matched - {65535}:
        hits[t // 1000 if t >= 1000 else t][2] += 1
    return {c: (v[0], v[1], v[2]) for c, v in hits.items()}


@pytest.mark.parametrize("seed", range(20))
def test_segment_matches_follow_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = blocks(seed)
    prediction = np.where(rng.random(truth.shape) < 0.25, blocks(seed + 1000), truth).astype(np.uint16)
    counts = {c: PanopticCounts() for c in (0, 1, 3, 4)}
    count_segments(truth, prediction, counts)
    got = {c: (v.true_positive, v.false_positive, v.false_negative) for c, v in counts.items()}
    assert got == by_definition(truth, prediction)


def test_a_perfect_answer_scores_one() -> None:
    truth = blocks(3)
    counts = {c: PanopticCounts() for c in (0, 1, 3, 4)}
    count_segments(truth, truth, counts)
    assert all(c.quality == 1.0 for c in counts.values())
    assert np.isnan(PanopticCounts().quality)


def test_iou_counts_unlabelled_predictions_as_missed_and_skips_unlabelled_truth() -> None:
    truth = np.array([[1, 1, 1, 1, 2, 2, 255, 0]], np.uint8)
    answer = np.array([[1, 1, 2, 255, 2, 0, 1, 0]], np.uint8)
    confusion = Confusion(3)
    confusion.add(truth, answer)
    assert confusion.iou((1,)) == pytest.approx(2 / 4)
    assert confusion.iou((2,)) == pytest.approx(1 / 3)
    assert confusion.iou((1, 2)) == pytest.approx(4 / 6)
    assert np.isnan(Confusion(3).iou((1,)))


def test_metrics_replace_only_themselves(tmp_path: Path) -> None:
    sidecar = tmp_path / "m.yaml"
    write_sidecar(sidecar, {"name": "m", "metrics": {"old": 1}, "license": "x"})
    write_metrics(sidecar, {"iou": {"road": 0.123456}, "frames": 3})
    document = yaml.safe_load(sidecar.read_text())
    assert document == {"name": "m", "metrics": {"iou": {"road": 0.1235}, "frames": 3}, "license": "x"}
    assert list(document) == ["name", "metrics", "license"]
