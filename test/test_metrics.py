"""Every score against its definition written out over single pixels and segments, and against published examples."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drive_seg.frame import StageTimes
from drive_seg.labels import DRIVING, Label, LabelSet, mask_of
from drive_seg.offline.evaluation import ClassScore, FrameScore, TolerantScore
from drive_seg.offline.label_map import LabelMap
from drive_seg.offline.metrics import (
    Confusion,
    MatchCounts,
    OutlineCounts,
    PrecisionCounts,
    Runs,
    StageSamples,
    overlaps,
)
from drive_seg.offline.metrics.dilation import dilate
from drive_seg.offline.metrics.lane_lines import LineScore
from drive_seg.offline.metrics.outlines import busy_rows
from drive_seg.offline.metrics.temporal import Moment, TemporalCounts, compare
from drive_seg.offline.scoring import Prediction, Scorer, Totals, Truth
from drive_seg.places import places

VOID = 65535
IDS = (0, 1, 2, 3001, 3002, 4001, 5001, VOID)
CLASSES = len(DRIVING)
IDENTITY = LabelMap.identity(DRIVING)


def class_of(panoptic_id: int) -> int:
    return panoptic_id // 1000 if panoptic_id >= 1000 else panoptic_id


def blocks(seed: int, side: int = 4, shape: tuple[int, int] = (6, 8), ids: tuple[int, ...] = IDS) -> np.ndarray:
    """A random panoptic map of square blocks."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.choice(ids, shape), np.ones((side, side), int)).astype(np.uint16)


def disturbed(truth: np.ndarray, seed: int, share: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    other = blocks(seed + 1000, 1, truth.shape)
    return np.where(rng.random(truth.shape) < share, other, truth).astype(np.uint16)


def found(truth: np.ndarray, prediction: np.ndarray, label_map: LabelMap = IDENTITY):
    return overlaps(
        Runs.of(truth, prediction), label_map.labels.is_thing, label_map.truth_table, label_map.predicted_table
    )


def matches(truth: np.ndarray, prediction: np.ndarray, crowds: tuple[int, ...] = ()) -> MatchCounts:
    counts = MatchCounts(CLASSES)
    counts.add(found(truth, prediction), crowds)
    return counts


def by_definition(truth: np.ndarray, prediction: np.ndarray, crowds: tuple[int, ...] = ()) -> dict:
    """[TP, FP, FN, sum of IoUs as a fraction] per class: every pair of segments tried, pixel by pixel."""
    void = truth == VOID
    counts = {c: [0, 0, 0, Fraction(0)] for c in range(CLASSES)}
    matched, answered = set(), set()
    for t in set(truth[~void].tolist()) - set(crowds):
        for p in set(prediction[prediction != VOID].tolist()):
            mine, theirs = truth == t, (prediction == p) & ~void
            iou = Fraction(int((mine & theirs).sum()), int((mine | theirs).sum()))
            if class_of(t) == class_of(p) and iou > Fraction(1, 2):
                matched.add(t)
                answered.add(p)
                counts[class_of(t)][0] += 1
                counts[class_of(t)][3] += iou
    for p in set(prediction.tolist() if prediction.ndim == 1 else np.unique(prediction).tolist()) - answered - {VOID}:
        excused = void | np.isin(truth, [c for c in crowds if class_of(c) == class_of(p)])
        if 2 * (excused & (prediction == p)).sum() <= (prediction == p).sum():
            counts[class_of(p)][1] += 1
    for t in set(np.unique(truth).tolist()) - matched - {VOID} - set(crowds):
        counts[class_of(t)][2] += 1
    return counts


def as_table(counts: MatchCounts) -> dict:
    return {c: [int(counts.tp[c]), int(counts.fp[c]), int(counts.fn[c])] for c in range(counts.classes)}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.7, 1.0]), st.booleans())
def test_segment_matches_follow_the_definition_exactly(seed: int, share: float, with_crowds: bool) -> None:
    truth = blocks(seed)
    prediction = disturbed(truth, seed, share)
    crowds = (3002, 4001) if with_crowds else ()
    counts, expected = matches(truth, prediction, crowds), by_definition(truth, prediction, crowds)
    assert as_table(counts) == {c: row[:3] for c, row in expected.items()}
    for c, row in expected.items():
        assert abs(Fraction(counts.iou_units[c], 2**52) - row[3]) <= Fraction(row[0], 2**53)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_the_confusion_counts_every_pixel(seed: int) -> None:
    truth = blocks(seed)
    prediction = disturbed(truth, seed, 0.3)
    confusion = Confusion(CLASSES)
    confusion.add(found(truth, prediction))
    expected = np.zeros((CLASSES, CLASSES + 1), int)
    for t, p in zip(mask_of(truth).ravel().tolist(), mask_of(prediction).ravel().tolist(), strict=True):
        if t != 255:
            expected[t, min(p, CLASSES)] += 1
    assert np.array_equal(confusion.pixels, expected)
    masks = Confusion(CLASSES)
    masks.add_masks(mask_of(truth), mask_of(prediction))
    assert np.array_equal(masks.pixels, expected)


def test_void_pixels_of_the_truth_shrink_unions_and_excuse_predictions() -> None:
    truth = np.full((10, 10), VOID, np.uint16)
    truth[:4] = 3001
    truth[9] = 0
    prediction = np.full((10, 10), VOID, np.uint16)
    prediction[:9] = 3001
    prediction[9] = 4001
    counts = matches(truth, prediction)
    # 40 pixels shared; the 50 others of the prediction lie on void, so the union is 40.
    assert as_table(counts)[3] == [1, 0, 0] and counts.iou_sum(3) == 1.0
    assert as_table(counts)[4] == [0, 1, 0] and as_table(counts)[0] == [0, 0, 1]
    nothing = matches(np.full((10, 10), VOID, np.uint16), prediction)
    assert not nothing.tp.any() and not nothing.fp.any() and not nothing.fn.any()


def test_stuff_is_never_a_crowd() -> None:
    """A data set may number its segments from zero, and a crowd be the first; stuff has no number."""
    truth = np.ones((10, 10), np.uint16)
    counts = matches(truth, truth.copy(), crowds=(0,))
    assert as_table(counts)[1] == [1, 0, 0]


@pytest.mark.parametrize("shapes", [((4, 6), (4, 5)), ((24,), (24,)), ((0, 6), (0, 6))])
def test_maps_that_do_not_fit_have_no_runs(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        Runs.of(*(np.zeros(shape, np.uint16) for shape in shapes))


def test_one_half_is_no_match() -> None:
    truth, prediction = np.zeros((1, 30), np.uint16), np.zeros((1, 30), np.uint16)
    truth[0, :20] = 3001
    prediction[0, 10:20] = 3001
    assert as_table(matches(truth, prediction))[3] == [0, 1, 1]
    prediction[0, 9] = 3001
    assert as_table(matches(truth, prediction))[3] == [1, 0, 0]


def test_the_papers_example() -> None:
    """Fig. 2 of Kirillov et al.: of people two match, one is missed, one is wrong: RQ 2/3, PQ = SQ * RQ."""
    truth, prediction = np.zeros((12, 40), np.uint16), np.zeros((12, 40), np.uint16)
    truth[:, 2:8], truth[:, 10:16], truth[:, 20:26] = 4001, 4002, 4003
    prediction[:, 3:8], prediction[:, 10:15], prediction[:, 30:36] = 4007, 4002, 4001
    counts = matches(truth, prediction)
    pq, sq, rq = counts.qualities(4)
    assert as_table(counts)[4] == [2, 1, 1]
    assert rq == pytest.approx(2 / 3, abs=1e-15) and sq == pytest.approx(5 / 6, abs=1e-15)
    assert pq == pytest.approx(sq * rq, abs=1e-15)


def test_worked_example_of_torchmetrics() -> None:
    """The example in the documentation of torchmetrics' PanopticQuality: things 0 and 1, stuff 6 and 7, PQ 0.5463."""
    prediction = [
        [[6, 0], [0, 0], [6, 0], [6, 0]],
        [[0, 0], [0, 0], [6, 0], [0, 1]],
        [[0, 0], [0, 0], [6, 0], [0, 1]],
        [[0, 0], [7, 0], [6, 0], [1, 0]],
        [[0, 0], [7, 0], [7, 0], [7, 0]],
    ]
    truth = [
        [[6, 0], [0, 1], [6, 0], [0, 1]],
        [[0, 1], [0, 1], [6, 0], [0, 1]],
        [[0, 1], [0, 1], [6, 0], [1, 0]],
        [[0, 1], [7, 0], [1, 0], [1, 0]],
        [[0, 1], [7, 0], [7, 0], [7, 0]],
    ]
    labels = LabelSet(tuple(Label(n, f"c{n}", n < 2, (0, 0, 0)) for n in range(8)))
    # Things of class 0 get the id of a class that is free: a thing's id must reach 1000.
    table = IDENTITY.truth.copy()
    table[:8], table[9] = np.arange(8), 0
    label_map = LabelMap(labels, table, table)

    def ids(pixels: list) -> np.ndarray:
        numbers = {0: 9000, 1: 1000}
        return np.array([[numbers[c] + k + 1 if c < 2 else c for c, k in row] for row in pixels], np.uint16)

    counts = MatchCounts(8)
    counts.add(found(ids(truth), ids(prediction), label_map))
    pq, _, _, n = counts.mean(range(8))
    assert n == 4 and pq == pytest.approx(0.5463, abs=5e-5)


def test_random_maps_agree_with_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection", reason="torchmetrics is not installed")
    ids = tuple(i for i in IDS if i != VOID)
    metric = detection.PanopticQuality(things={3, 4, 5}, stuffs={0, 1, 2}, return_per_class=True, return_sq_and_rq=True)
    counts = MatchCounts(CLASSES)
    for seed in range(30):
        truth = blocks(seed, ids=ids)
        prediction = np.where(np.random.default_rng(seed).random(truth.shape) < 0.2, blocks(seed + 99, ids=ids), truth)
        prediction = prediction.astype(np.uint16)
        counts.add(found(truth, prediction))
        pairs = [np.stack([mask_of(m).astype(int), m.astype(int)], -1)[None] for m in (prediction, truth)]
        metric.update(*(torch.from_numpy(pair) for pair in pairs))
    # torchmetrics orders things first, then stuff.
    theirs = {c: metric.compute()[i].tolist() for i, c in enumerate((3, 4, 5, 0, 1, 2))}
    for mine, name in ((counts.tp, "true_positives"), (counts.fp, "false_positives"), (counts.fn, "false_negatives")):
        assert getattr(metric, name).tolist() == [int(mine[c]) for c in (3, 4, 5, 0, 1, 2)]
    for c in range(CLASSES):
        assert counts.qualities(c) == pytest.approx(theirs[c], abs=1e-6)


def near(pixels: np.ndarray, radius: int) -> np.ndarray:
    """Pixels with one of ``pixels`` within ``radius``, by trying every pair."""
    ys, xs = np.nonzero(pixels)
    grid_y, grid_x = np.indices(pixels.shape)
    hit = np.zeros(pixels.shape, bool)
    for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
        hit |= (grid_y - y) ** 2 + (grid_x - x) ** 2 <= radius * radius
    return hit


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 11])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint64])
def test_dilation_is_by_a_disk(radius: int, kind: type) -> None:
    rng = np.random.default_rng(radius)
    planes = np.where(rng.random((13, 17)) < 0.03, rng.integers(1, 256, (13, 17)), 0).astype(kind)
    grown = dilate(planes, radius)
    assert grown.dtype == kind
    for bit in range(8):
        assert np.array_equal(grown >> kind(bit) & kind(1), near(planes >> kind(bit) & kind(1), radius))


def edges(classes: np.ndarray, number: int, void: int = -1) -> np.ndarray:
    """Pixels of a class with one of the four neighbours of another class, which ``void`` is not."""
    edge = np.zeros(classes.shape, bool)
    for y, x in np.argwhere(classes == number).tolist():
        for y2, x2 in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= y2 < classes.shape[0] and 0 <= x2 < classes.shape[1]
            edge[y, x] |= inside and classes[y2, x2] not in (number, void)
    return edge


@pytest.mark.parametrize("tolerance", [0, 1, 3])
@pytest.mark.parametrize(
    "classes", [6, 7, 8, 20, 32, 63, 64, 65, 70]
)  # as bits, with the markings: 8 .. 64, and two blocks
def test_outlines_and_markings_follow_the_definition(tolerance: int, classes: int) -> None:
    rng = np.random.default_rng(classes + tolerance)
    shape = (6, 8)
    truth = np.kron(rng.choice([0, 2, classes - 1, 255], shape, p=[0.4, 0.3, 0.25, 0.05]), np.ones((6, 6), int))
    truth = truth.astype(np.uint8)
    truth[:8] = 2  # rows of markings that no outline crosses
    prediction = np.roll(truth, 2, axis=1)
    prediction[rng.random(truth.shape) < 0.05] = 2
    counts = OutlineCounts(classes, 2, tolerance)
    counts.add(truth, prediction)
    known = ~near(truth == 255, tolerance)
    kinds = [(edges(truth, number, 255), edges(prediction, number)) for number in range(classes)]
    for number, (true, answer) in enumerate([*kinds, (truth == 2, prediction == 2)]):
        expected = [
            (answer & known & near(true, tolerance)).sum(),
            (answer & known).sum(),
            (true & known & near(answer, tolerance)).sum(),
            (true & known).sum(),
        ]
        assert counts.pixels[number].tolist() == expected, number


def test_an_outline_beside_void_is_right_where_it_is_further_from_void_than_the_truth_s() -> None:
    """Void above row 10, the true outline in rows 12 and 13: the lower side is counted, the upper one is not."""
    truth = np.ones((60, 80), np.uint8)
    truth[:13] = 0
    truth[:10] = 255
    prediction = np.ones((60, 80), np.uint8)
    prediction[:14] = 0
    counts = OutlineCounts(2, None, 3)
    counts.add(truth, prediction)
    assert counts.pixels[0].tolist() == [80, 80, 0, 0] and counts.pixels[1].tolist() == [80, 80, 80, 80]


def test_the_edge_of_void_is_no_outline_that_a_prediction_could_hit() -> None:
    truth = np.ones((60, 80), np.uint8)
    truth[:10] = 255
    prediction = np.ones((60, 80), np.uint8)
    prediction[:13] = 0
    counts = OutlineCounts(2, None, 3)
    counts.add(truth, prediction)
    assert counts.pixels[1].tolist() == [0, 80, 0, 0]


def test_a_marking_is_right_because_of_one_too_near_to_void_to_be_counted() -> None:
    truth, prediction = np.ones((60, 80), np.uint8), np.ones((60, 80), np.uint8)
    truth[:10], truth[11:13] = 255, 2
    prediction[13:15] = 2
    counts = OutlineCounts(CLASSES, 2, 3)
    counts.add(truth, prediction)
    assert counts.pixels[-1].tolist() == [160, 160, 0, 0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_the_smallest_images_have_markings(shape: tuple[int, int]) -> None:
    counts = OutlineCounts(CLASSES, 2, 3)
    counts.add(np.full(shape, 2, np.uint8), np.full(shape, 2, np.uint8))
    assert counts.pixels[-1].tolist() == [shape[0] * shape[1]] * 4


def test_markings_that_fill_an_image_have_no_outline() -> None:
    counts = OutlineCounts(CLASSES, 2, 3)
    counts.add(np.full((9, 9), 2, np.uint8), np.ones((9, 9), np.uint8))
    counts.add(np.full((9, 9), 255, np.uint8), np.full((9, 9), 2, np.uint8))
    assert counts.pixels[:-1].sum() == 0 and counts.pixels[-1].tolist() == [0, 0, 0, 81]


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.05, 0.7]),
    st.sampled_from([(), (0,), (5,), (0, 5), (2,)]),
    st.sampled_from(["truth", "prediction", ""]),
)
def test_rows_left_out_have_no_outline_and_no_marking(
    seed: int, share: float, bands: tuple[int, ...], bare: str
) -> None:
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.choice([0, 1, 2, 3001, 65535], (6, 4)), np.ones((5, 5), int)).astype(np.uint16)
    for band in set(range(6)) - set(bands):
        truth[5 * band : 5 * band + 5] = rng.choice([0, 1, 2, 65535], p=[0.6, 0.1, 0.1, 0.2])
    prediction = np.where(rng.random(truth.shape) < share, 1, np.roll(truth, 1, axis=0)).astype(np.uint16)
    if bare:  # all that there is to see is in the other
        {"truth": truth, "prediction": prediction}[bare][:] = 0
    runs = Runs.of(truth, prediction)
    some, every = OutlineCounts(CLASSES, 2, 3), OutlineCounts(CLASSES, 2, 3)
    some.add(mask_of(truth), mask_of(prediction), busy_rows(runs, mask_of(runs.truth), mask_of(runs.prediction), 2))
    every.add(mask_of(truth), mask_of(prediction))
    assert np.array_equal(some.pixels, every.pixels)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 90), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.integers(0, 10**6))
def test_places_are_those_of_what_is_set(size: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flags = rng.random(size) < share
    assert places(flags).tolist() == [n for n, flag in enumerate(flags.tolist()) if flag]
    values = np.where(flags, rng.integers(1, 256, size), 0).astype(np.uint8)
    assert places(values).tolist() == places(flags).tolist()


def average_by_definition(frames: list, level: int, c: int = 3, crowds: tuple[int, ...] = ()) -> float:
    """COCO's AP at IoU .50 + .05 * level, from the definition, with exact IoUs; scores must differ."""
    threshold = Fraction(50 + 5 * level, 100)
    rows, truths = [], 0
    for truth, prediction, scores in frames:
        own = [t for t in np.unique(truth).tolist() if class_of(t) == c and t not in crowds]
        truths += len(own)
        ignored = (truth == VOID) | np.isin(truth, [t for t in crowds if class_of(t) == c])
        free = set(own)
        for p in sorted((p for p in np.unique(prediction).tolist() if class_of(p) == c), key=lambda p: -scores[p]):
            ious = {
                t: Fraction(
                    int(((truth == t) & (prediction == p)).sum()),
                    int(((truth == t) | (prediction == p) & (truth != VOID)).sum()),
                )
                for t in free
            }
            best = max(ious, key=lambda t: ious[t], default=None)
            hit = best is not None and ious[best] >= threshold
            if hit:
                free.remove(best)
            elif Fraction(int(((prediction == p) & ignored).sum()), int((prediction == p).sum())) >= threshold:
                continue
            rows.append((scores[p], hit))
    rows.sort(key=lambda row: -row[0])
    precision, recall, hits = [], [], 0
    for number, (_, hit) in enumerate(rows, start=1):
        hits += hit
        precision.append(hits / number)
        recall.append(hits / truths)
    points = [
        max((p for p, r in zip(precision, recall, strict=True) if r >= at), default=0.0)
        for at in np.linspace(0, 1, 101)
    ]
    return math.fsum(points) / 101


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_follows_cocos_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = iter(rng.permutation(1000).tolist())
    ids = (0, 3001, 3002, 3003, 3004, 3009, 4009, VOID)
    crowds = (3009, 4009)
    counts, frames = PrecisionCounts(CLASSES), []
    for frame in range(6):
        truth = blocks(seed * 50 + frame, 5, (4, 5), ids)
        noise = blocks(seed * 50 + frame + 7, 1, truth.shape, (0, 3001, 3005))
        prediction = np.where(rng.random(truth.shape) < 0.03 * frame + 0.02, noise, truth).astype(np.uint16)
        # One object in two parts: neither may take it from the other without half of it.
        prediction[(truth == 3001) & (rng.random(truth.shape) < rng.uniform(0.3, 0.7))] = 3005
        scores = {p: next(numbers) / 1000 for p in np.unique(prediction).tolist()}
        frames.append((truth, prediction, scores))
        counts.add(found(truth, prediction), scores, IDENTITY.countable & DRIVING.is_thing[:CLASSES], crowds)
    average = counts.average(3)
    for level in range(10):
        expected = average_by_definition(frames, level, crowds=crowds)
        assert average[level] == pytest.approx(expected, abs=1e-12), level
    assert np.isnan(counts.average(0)).all()


def test_crowds_and_void_excuse_instances_that_match_nothing() -> None:
    truth, prediction = np.zeros((4, 40), np.uint16), np.zeros((4, 40), np.uint16)
    truth[:, :10], truth[:, 10:20], truth[:, 30:] = 3001, 3002, VOID
    prediction[:, 10:15], prediction[:, 15:20], prediction[:, 30:] = 3001, 4001, 3002
    counts = PrecisionCounts(CLASSES)
    counts.add(found(truth, prediction), {}, IDENTITY.countable & DRIVING.is_thing[:CLASSES], crowds=(3002,))
    assert counts.truths.tolist() == [0, 0, 0, 1, 0, 0]
    assert counts.hits.sum() == 0 and counts.misses[3].sum() == 0 and counts.misses[4, :, 1000].tolist() == [1] * 10


def test_an_instance_half_on_void_is_excused() -> None:
    truth, prediction = np.zeros((4, 8), np.uint16), np.zeros((4, 8), np.uint16)
    truth[:, 4:] = VOID
    prediction[:2, 2:6], prediction[3, 1:6] = 3001, 3002  # half of the first, two fifths of the second
    counts = PrecisionCounts(CLASSES)
    counts.add(found(truth, prediction), {3001: 0.9, 3002: 0.8}, IDENTITY.countable & DRIVING.is_thing[:CLASSES])
    assert counts.misses[3, 0].nonzero()[0].tolist() == [800]


def test_an_instance_on_a_crowd_is_excused_up_to_the_threshold_that_its_share_reaches() -> None:
    truth, prediction = np.zeros((1, 20), np.uint16), np.zeros((1, 20), np.uint16)
    truth[:, :13], prediction[:] = 3001, 3001  # 65 % of it
    counts = PrecisionCounts(CLASSES)
    counts.add(found(truth, prediction), {}, IDENTITY.countable & DRIVING.is_thing[:CLASSES], crowds=(3001,))
    assert counts.misses[3, :, 1000].tolist() == [0] * 4 + [1] * 6, "below .70 it is on the crowd"


def test_of_two_halves_of_an_object_the_surer_one_is_right() -> None:
    things = IDENTITY.countable & DRIVING.is_thing[:CLASSES]
    whole, halves = np.full((2, 8), 3001, np.uint16), np.full((2, 8), 3001, np.uint16)
    halves[:, 4:] = 3002
    for scores in ({3001: 0.3, 3002: 0.9}, {3001: 0.9, 3002: 0.3}):
        counts = PrecisionCounts(CLASSES)
        counts.add(found(whole, halves), scores, things)
        assert counts.hits[3, 0].nonzero()[0].tolist() == [900] and counts.misses[3, 0].nonzero()[0].tolist() == [300]
        assert not counts.hits[3, 1:].any()
    counts = PrecisionCounts(CLASSES)
    counts.add(found(halves, whole), {}, things)
    assert counts.hits[3, 0, 1000] == 1 and counts.truths[3] == 2, "and one cannot be both halves"


def test_static_pixels_are_those_where_neither_image_nor_truth_changed() -> None:
    truth = np.array([[1, 1, 1, 1, 255]], np.uint8)
    grey = np.array([[10, 10, 10, 10, 10]], np.uint8)
    before = Moment(truth, np.array([[1, 1, 1, 1, 1]], np.uint8), grey)
    moved = Moment(np.array([[1, 1, 1, 0, 255]], np.uint8), np.array([[1, 0, 0, 0, 0]], np.uint8), grey.copy())
    moved.grey[0, 2] += 7
    counts = compare(before, moved)
    assert (counts.changed, counts.static, counts.pairs) == (1, 2, 1)
    without = compare(Moment(truth, before.prediction, None), moved)
    assert (without.changed, without.static) == (2, 3)


def test_frames_of_two_sizes_are_no_pair() -> None:
    moments = [Moment(np.ones(shape, np.uint8), np.ones(shape, np.uint8), None) for shape in ((4, 6), (8, 6))]
    assert compare(*moments) == TemporalCounts()


@pytest.mark.parametrize(("gap_ns", "pairs"), [(0, 1), (250_000_000, 1), (250_000_001, 0), (-1, 0)])
def test_only_neighbours_in_time_are_compared(gap_ns: int, pairs: int) -> None:
    road = np.ones((8, 8), np.uint16)
    scorer = Scorer(IDENTITY)
    for stamp in (10**9, 10**9 + gap_ns):
        scorer.score("a", stamp, Truth(road), Prediction(road), np.zeros((4, 4, 3), np.uint8))
    assert (scorer.totals.temporal.pairs, scorer.totals.temporal.static) == (pairs, 64 * pairs)


@pytest.mark.parametrize(("channel", "static"), [(0, 0), (1, 0), (2, 64)])
def test_what_moves_is_seen_by_its_brightness(channel: int, static: int) -> None:
    """30 levels of red are 9 of grey, of green 18, of blue 3."""
    road, image = np.ones((8, 8), np.uint16), np.full((8, 8, 3), 100, np.uint8)
    scorer = Scorer(IDENTITY)
    scorer.score("a", 0, Truth(road), Prediction(road), image)
    image = image.copy()
    image[..., channel] += 30
    scorer.score("b", 1, Truth(road), Prediction(road), image)
    assert scorer.totals.temporal.static == static


def test_ap75_is_that_of_an_overlap_of_three_quarters() -> None:
    for columns, ap75 in ((72, 0.0), (75, 1.0)):
        truth, prediction = np.full((1, 100), 3001, np.uint16), np.full((1, 100), VOID, np.uint16)
        prediction[:, :columns] = 3001
        scorer = Scorer(IDENTITY)
        scorer.score("a", 0, Truth(truth), Prediction(prediction))
        found_ = scorer.totals.figures()["instance"]["per_class"]["vehicle"]
        assert (found_["ap50"], found_["ap75"]) == (pytest.approx(1.0), pytest.approx(ap75))


def frames_of(count: int) -> list[tuple[str, int, Truth, Prediction, np.ndarray]]:
    made = []
    for number in range(count):
        truth = blocks(number // 2, 5, (6, 8))
        prediction = disturbed(truth, number, 0.8 if number % 4 == 1 else 0.1)  # some of it wrong, some missed
        scores = {p: (p * 7919 + number) % 1000 / 1000 for p in np.unique(prediction).tolist()}
        image = np.full((*truth.shape, 3), 80 + number % 5, np.uint8)
        made.append(
            (f"{number:06d}", number * 33_333_333, Truth(truth, (3002,)), Prediction(prediction, scores), image)
        )
    return made


@pytest.mark.parametrize("cuts", [(0, 7), (0, 1, 2, 19, 24), (0, 12, 13)])
def test_chunks_in_any_order_add_up_to_the_whole_to_the_last_bit(cuts: tuple[int, ...]) -> None:
    frames = frames_of(25)
    whole = Scorer(IDENTITY)
    for frame in frames:
        whole.score(*frame)
    parts = []
    for first, last in zip(cuts, (*cuts[1:], len(frames)), strict=True):
        scorer = Scorer(IDENTITY)
        if first:
            scorer.prime(*frames[first - 1][1:])
        for frame in frames[first:last]:
            scorer.score(*frame)
        parts.append(pickle.loads(pickle.dumps(scorer.totals)))
    parts.reverse()
    total: Totals = copy.deepcopy(parts[0])
    for part in parts[1:]:
        total += part
    assert total.figures() == whole.totals.figures()
    assert total.matches.iou_units == whole.totals.matches.iou_units and total.temporal.pairs == 24
    assert total.matches.tp.all() and total.matches.fp.any() and total.matches.fn.any()


def test_records_of_frames_add_up_to_the_figures() -> None:
    scorer = Scorer(IDENTITY)
    records = [scorer.score(*frame) for frame in frames_of(12)]
    figures = scorer.totals.figures()
    for name, row in figures["panoptic"]["per_class"].items():
        mine = [record.per_class[name] for record in records]
        assert [sum(getattr(m, key) for m in mine) for key in ("tp", "fp", "fn")] == [
            row[k] for k in ("tp", "fp", "fn")
        ]
        assert math.fsum(m.iou_sum for m in mine) == pytest.approx(row["iou_sum"], rel=1e-15)
        ratio = sum(m.intersection for m in mine) / sum(m.union for m in mine)
        assert ratio == figures["semantic"]["per_class"][name]
    assert np.array_equal(np.sum([record.confusion for record in records], axis=0), figures["semantic"]["confusion"])
    assert sum(record.changed for record in records) == figures["temporal"]["changed"]
    assert records[3].from_dict(records[3].to_dict()) == records[3]


def test_a_perfect_prediction_scores_one_everywhere() -> None:
    scorer = Scorer(IDENTITY)
    for seed in range(5):
        truth = blocks(seed)
        record = scorer.score(str(seed), seed * 10**8, Truth(truth), Prediction(truth.copy()))
        assert record.pq == record.miou == 1.0
    figures = scorer.totals.figures()
    for kind in ("all", "things", "stuff"):
        assert [figures["panoptic"][kind][key] for key in ("pq", "sq", "rq")] == [1.0, 1.0, 1.0]
    assert figures["semantic"]["miou"] == figures["boundary"]["f1"] == figures["lane"]["f1"] == 1.0
    assert figures["lane"]["iou"] == figures["instance"]["ap"] == 1.0


def test_what_is_never_matched_has_no_quality_at_all() -> None:
    truth, prediction = np.zeros((4, 8), np.uint16), np.zeros((4, 8), np.uint16)
    truth[0], prediction[3] = 3001, 4001
    counts = MatchCounts(CLASSES)
    counts.add(found(truth, prediction))
    assert [counts.qualities(number) for number in (3, 4)] == [(0.0, 0.0, 0.0)] * 2


def test_what_nobody_has_is_undefined_not_zero() -> None:
    scorer = Scorer(IDENTITY)
    road = np.ones((8, 8), np.uint16)
    scorer.score("a", 0, Truth(road), Prediction(road))
    figures = scorer.totals.figures()
    assert figures["panoptic"]["per_class"]["cyclist"]["pq"] is None
    assert figures["panoptic"]["things"] == {"pq": None, "sq": None, "rq": None, "n": 0}
    assert figures["panoptic"]["all"]["n"] == 1 and figures["semantic"]["miou"] == 1.0
    assert figures["lane"]["f1"] is None and figures["lane"]["lines"] is None and figures["instance"]["ap"] is None


def test_masks_without_instances_score_stuff_and_pixels_only() -> None:
    truth = blocks(4, ids=(0, 1, 2, 3001))
    scorer = Scorer(LabelMap.identity(DRIVING, instances=False))
    scorer.score("a", 0, Truth(mask_of(truth)), Prediction(truth))
    figures = scorer.totals.figures()
    assert figures["panoptic"]["things"]["n"] == 0 and figures["panoptic"]["stuff"]["pq"] == 1.0
    row = figures["panoptic"]["per_class"]["vehicle"]
    assert [row[key] for key in ("tp", "fp", "fn", "iou_sum")] == [0, 0, 0, 0]
    assert figures["semantic"]["per_class"]["vehicle"] == 1.0 and figures["instance"]["per_class"] == {}


def test_latencies_merge_and_stay_bounded() -> None:
    whole, left, right = StageSamples(), StageSamples(), StageSamples()
    for number in range(1, 101):
        for one in (whole, left if number <= 40 else right):
            one.add(StageTimes(inference=float(number), decode=None))
    left += right
    assert left.percentiles() == whole.percentiles()
    found_ = whole.percentiles()["inference"]
    assert (found_.p50, found_.p95, found_.p99, found_.max) == (50.0, 95.0, 99.0, 100.0)
    for number in range(600_000):
        whole.add(StageTimes(inference=number % 10.0))
    assert len(whole.keys["inference"]) < 300_000, "as many are kept"
    assert len(whole.samples["inference"]) <= 2**18 and whole.highest["inference"] == 100.0


@pytest.fixture(scope="module")
def slow_at_the_end() -> list[StageSamples]:
    """Eight pieces of 50 000 frames; the last two, a quarter, took twice as long."""
    pieces = []
    for number in range(8):
        piece = StageSamples()
        for _ in range(50_000):
            piece.add(StageTimes(inference=10.0 if number < 6 else 20.0))
        pieces.append(piece)
    return pieces


def test_a_long_recording_s_latencies_are_not_those_of_its_end(slow_at_the_end: list[StageSamples]) -> None:
    whole = StageSamples()
    for piece in slow_at_the_end:
        whole += copy.deepcopy(piece)
    share = np.mean(np.array(whole.samples["inference"]) > 15)
    assert share == pytest.approx(0.25, abs=0.01)  # a fair draw deviates by 0.0005
    assert len(whole.samples["inference"]) == 2**18


def test_latencies_of_pieces_are_the_same_in_whatever_order_they_merge(slow_at_the_end: list[StageSamples]) -> None:
    one_by_one, in_pairs, backwards = StageSamples(), StageSamples(), StageSamples()
    for piece in slow_at_the_end:
        one_by_one += pickle.loads(pickle.dumps(piece))
    for first in range(0, 8, 2):
        pair = copy.deepcopy(slow_at_the_end[first])
        pair += slow_at_the_end[first + 1]
        in_pairs += pair
    for piece in reversed(slow_at_the_end):
        backwards += piece
    expected = sorted(one_by_one.samples["inference"])
    for other in (in_pairs, backwards):
        assert sorted(other.samples["inference"]) == expected
        assert other.percentiles() == one_by_one.percentiles()


@pytest.mark.parametrize(
    ("counts", "f1"),
    [
        ((3, 4, 1, 2), 0.6),  # precision 3/4, recall 1/2
        ((0, 4, 0, 2), 0.0),
        ((0, 4, 0, 0), 0.0),
        ((0, 0, 0, 2), 0.0),
        ((0, 0, 0, 0), math.nan),
    ],
)
def test_f1_is_the_harmonic_mean_and_0_where_only_one_of_the_two_is_there(
    counts: tuple[int, int, int, int], f1: float
) -> None:
    assert TolerantScore(*counts).f1 == pytest.approx(f1, nan_ok=True)


def test_a_frame_s_record_is_read_as_it_was_written() -> None:
    score = FrameScore(
        "000007",
        9,
        {"car": ClassScore(1, 2, 3, 0.9, 5, 6)},
        ((1, 2), (3, 4)),
        {"car": TolerantScore(1, 2, 3, 4)},
        TolerantScore(5, 6, 7, 8),
        10,
        11,
        12,
        LineScore(1, 2, 3, 4, 5, 6),
    )
    assert FrameScore.from_dict(json.loads(json.dumps(score.to_dict()))) == score
    bare = replace(score, lane=None, lines=None)
    assert FrameScore.from_dict(json.loads(json.dumps(bare.to_dict()))) == bare
