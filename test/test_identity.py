"""IDF1, MOTA and identity switches against their definitions, an independent library, and examples done by hand."""

from __future__ import annotations

import math
import pickle
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drive_seg.labels import DRIVING
from drive_seg.offline.label_map import LabelMap
from drive_seg.offline.metrics import MatchCounts, Runs, TrackingCounts, Trajectories, encounter, overlaps
from drive_seg.offline.metrics.identity import SIZES, Encounter, IdentityCounts, Segment, most_in_common
from drive_seg.offline.scoring import Prediction, Scorer, Truth

CAR, WALKER = 3, 4
VOID = 65535
IDENTITY = LabelMap.identity(DRIVING)
THINGS = DRIVING.is_thing[: len(DRIVING)]

Pairs = list[tuple[int | None, int | None]]
"""Of one frame: object and track; None for an object that was missed, a track that is wrong."""


def played(frames: list[Pairs], class_id: int = CAR, area: int = 50 * 50) -> tuple[Trajectories, list[int]]:
    trajectories = Trajectories()
    switches = []
    for pairs in frames:
        thing = {row: Segment(class_id, 1000 * class_id + row, area) for row in range(len(pairs))}
        met = Encounter(
            tuple((thing[r], thing[r]) for r, (a, b) in enumerate(pairs) if a is not None and b is not None),
            tuple(thing[r] for r, (a, b) in enumerate(pairs) if a is not None and b is None),
            tuple(thing[r] for r, (a, b) in enumerate(pairs) if a is None and b is not None),
        )
        objects = {thing[r].value: a for r, (a, _) in enumerate(pairs) if a is not None}
        tracks = {thing[r].value: b for r, (_, b) in enumerate(pairs) if b is not None}
        switches.append(trajectories.add(met, objects, tracks))
    return trajectories, switches


def total(frames: list[Pairs]) -> IdentityCounts:
    return played(frames)[0].counts().total()


def test_a_perfect_tracker_and_one_that_sees_nothing() -> None:
    perfect = total([[(1, 11), (2, 12)]] * 5)
    assert (perfect.idf1, perfect.mota, perfect.id_switches) == (1.0, 1.0, 0)
    assert (perfect.objects, perfect.tracks, perfect.tp) == (2, 2, 10)
    blind = total([[(1, None)]] * 5)
    assert (blind.idf1, blind.mota, blind.idr) == (0.0, 0.0, 0.0) and math.isnan(blind.idp)
    assert math.isnan(total([]).idf1) and math.isnan(total([]).mota)


def test_a_track_that_breaks_costs_identities_and_one_switch() -> None:
    """Six frames under one number, four under another: the assignment keeps six of the ten."""
    broken = total([[(1, 11)]] * 6 + [[(1, 12)]] * 4)
    assert (broken.idtp, broken.idfp, broken.idfn, broken.id_switches) == (6, 4, 4, 1)
    assert broken.idf1 == 0.6 and broken.mota == 0.9 and broken.f1 == 1.0


def test_two_objects_that_swap_their_tracks() -> None:
    swapped, switches = played([[(1, 11), (2, 12)]] * 3 + [[(1, 12), (2, 11)]] * 2)
    counts = swapped.counts().total()
    assert switches == [0, 0, 0, 2, 0] and counts.id_switches == 2
    assert counts.idtp == 6 and counts.mota == 1 - 2 / 10


def test_an_object_that_was_away_is_compared_with_its_last_match() -> None:
    """Bernardin & Stiefelhagen: the last known match counts, however long ago it was."""
    assert total([[(1, 11)], [(1, None)], [], [(1, 11)]]).id_switches == 0
    assert total([[(1, 11)], [(1, None)], [], [(1, 12)]]).id_switches == 1
    assert total([[(1, 11)], [(1, 12)], [(1, 11)]]).id_switches == 2


def test_mota_counts_misses_wrong_ones_and_switches() -> None:
    counts = total([[(1, 11), (2, None), (None, 12)], [(1, 12), (2, 13), (None, 11)]])
    assert (counts.fn, counts.fp, counts.id_switches, counts.tp) == (1, 2, 1, 3)
    assert counts.mota == 1 - 4 / 4


def test_segments_without_an_identity_are_never_the_same_again() -> None:
    segment = Segment(CAR, 3001, 100)
    trajectories = Trajectories()
    for _ in range(4):
        assert trajectories.add(Encounter(((segment, segment),)), {3001: 7}, {}) in (0, 1)
    counts = trajectories.counts().total()
    assert counts.tracks == 4 and counts.idtp == 1 and counts.id_switches == 3


def test_no_two_segments_without_an_identity_are_one_whatever_their_values() -> None:
    trajectories, rng = Trajectories(), np.random.default_rng(0)
    for _ in range(30):
        wrong = tuple(Segment(CAR, value, 100) for value in rng.choice(65535, 500, replace=False).tolist())
        trajectories.add(Encounter(missed=(Segment(CAR, 1, 100),), wrong=wrong), {1: 7}, {})
    counts = trajectories.counts().total()
    assert (counts.objects, counts.tracks) == (1, 30 * 500)


def test_classes_and_sizes_are_counted_apart() -> None:
    trajectories = Trajectories()
    small, large = Segment(CAR, 3001, 1023), Segment(CAR, 3002, 96 * 96)
    walker = Segment(WALKER, 4001, 1024)
    met = Encounter(((small, small), (walker, walker)), (large,), (Segment(CAR, 3003, 9215),))
    trajectories.add(met, {3001: 1, 3002: 2, 4001: 1}, {3001: 5, 4001: 5, 3003: 6})
    counts = trajectories.counts()
    by_size = [counts.total(size=number) for number in range(len(SIZES))]
    assert [(c.tp, c.fp, c.fn) for c in by_size] == [(1, 0, 0), (1, 1, 0), (0, 0, 1)]
    assert (counts.total([CAR]).tp, counts.total([WALKER]).tp, counts.total().tp) == (1, 1, 2)
    assert counts.total([WALKER]).idf1 == 1.0
    figures = counts.figures({CAR: "vehicle", WALKER: "pedestrian"})
    assert figures["per_class"]["pedestrian"]["idf1"] == 1.0 and list(figures["by_size"]) == list(SIZES)
    assert figures["by_size"]["small"]["tp"] == 1 and figures["frames"] == 1


def test_nothing_tracked_is_no_figure() -> None:
    for frames in ([], [[(1, None)]]):
        figures = played(frames)[0].counts().figures({CAR: "vehicle"})
        assert figures["idf1"] is None and figures["id_switches"] is None and figures["frames"] == 0
        assert figures["per_class"]["vehicle"]["mota"] is None


some_pairs = st.lists(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=4, unique_by=(lambda p: p[0], lambda p: p[1])),
    min_size=1,
    max_size=12,
)


def broken_up(frames: Any, seed: int) -> list[Pairs]:
    """Some of the matches become a missed object and a wrong track."""
    rng = np.random.default_rng(seed)
    result: list[Pairs] = []
    for pairs in frames:
        row: Pairs = []
        for thing, track in pairs:
            row += [(thing, track)] if rng.random() < 0.7 else [(thing, None), (None, track)]
        result.append(row)
    return result


@settings(max_examples=80, deadline=None)
@given(some_pairs, st.integers(0, 1000))
def test_the_assignment_is_the_best_of_all(frames: Any, seed: int) -> None:
    """Every one-to-one assignment tried, and the cost of Ristani's equation 2 to 4 counted frame by frame."""
    pairs = broken_up(frames, seed)
    things = sorted({a for row in pairs for a, _ in row if a is not None})
    tracks = sorted({b for row in pairs for _, b in row if b is not None})
    best = None
    for order in permutations([*tracks, *[None] * len(things)], len(things)):
        chosen = dict(zip(things, order, strict=True))
        owner = {track: thing for thing, track in chosen.items() if track is not None}
        idtp = sum(a is not None and b is not None and chosen[a] == b for row in pairs for a, b in row)
        idfn = sum(a is not None and not (b is not None and chosen[a] == b) for row in pairs for a, b in row)
        idfp = sum(b is not None and not (a is not None and owner.get(b) == a) for row in pairs for a, b in row)
        best = min(best or (idfn + idfp, idtp, idfp, idfn), (idfn + idfp, idtp, idfp, idfn))
    counts = total(pairs)
    assert best is not None and counts.idfn + counts.idfp == best[0]
    assert (counts.idtp, counts.idfp, counts.idfn) == best[1:]
    true, answers = (sum(pair[side] is not None for row in pairs for pair in row) for side in (0, 1))
    both = sum(None not in pair for row in pairs for pair in row)
    if true and answers:
        ratios = counts.idtp / answers, counts.idtp / true, 2 * counts.idtp / (answers + true)
        assert (counts.idp, counts.idr, counts.idf1) == pytest.approx(ratios)
        assert counts.f1 == pytest.approx(2 * both / (answers + true)) and counts.f1 >= counts.idf1
        assert counts.mota == pytest.approx((both - (answers - both) - counts.id_switches) / true)


@settings(max_examples=60, deadline=None)
@given(some_pairs, st.integers(0, 1000))
def test_py_motmetrics_finds_the_same(frames: Any, seed: int) -> None:
    motmetrics = pytest.importorskip("motmetrics", reason="motmetrics is not installed")
    pairs = broken_up(frames, seed)
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for row in pairs:
        things, tracks = [a for a, _ in row if a is not None], [b for _, b in row if b is not None]
        far = np.full((len(things), len(tracks)), np.nan)
        for a, b in row:
            if a is not None and b is not None:
                far[things.index(a), tracks.index(b)] = 0.1
        accumulator.update(things, tracks, far)
    names = ["idf1", "idtp", "idfp", "idfn", "mota", "num_switches", "num_false_positives", "num_misses"]
    theirs = motmetrics.metrics.create().compute(accumulator, metrics=names, name="all").loc["all"]
    ours = total(pairs)
    mine = (ours.idtp, ours.idfp, ours.idfn, ours.id_switches, ours.fp, ours.fn)
    assert mine == tuple(int(theirs[name]) for name in (*names[1:4], *names[5:]))
    if ours.tp + ours.fn:
        assert ours.mota == pytest.approx(theirs["mota"]) and ours.idf1 == pytest.approx(theirs["idf1"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 4)), st.integers(1, 9), max_size=12))
def test_most_in_common_is_the_heaviest_assignment(common: dict[tuple[int, int], int]) -> None:
    best = max(
        sum(common.get((row, column), 0) for row, column in enumerate(order)) for order in permutations(range(5))
    )
    assert most_in_common(common) == best


def test_many_short_trajectories_are_quick_to_assign() -> None:
    common = {(thing, thing + side): 5 - side for thing in range(0, 30_000, 3) for side in range(2)}
    assert most_in_common(common) == 5 * 10_000


def test_recordings_add_up_in_any_order_and_survive_pickling() -> None:
    parts = [played([[(1, 11), (2, None), (None, 5)]] * n + [[(1, 12)]], WALKER)[0].counts() for n in (1, 4, 2)]
    sums = []
    for order in permutations(range(3)):
        whole = TrackingCounts()
        for number in order:
            whole += pickle.loads(pickle.dumps(parts[number]))
        sums.append(whole)
    assert all(one == sums[0] for one in sums)
    assert sums[0].total().tp == 1 + 4 + 2 + 3 and sums[0].total().objects == 6
    assert sums[0].total([WALKER]) == sums[0].total() and sums[0].total([CAR]) == IdentityCounts()


def blocks(seed: int, ids: tuple[int, ...] = (0, 1, 3001, 3002, 4001, 5001, VOID)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.choice(ids, (6, 8)), np.ones((4, 4), int)).astype(np.uint16)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**20), st.booleans())
def test_segments_match_as_in_panoptic_quality(seed: int, crowded: bool) -> None:
    truth = blocks(seed)
    prediction = np.where(np.random.default_rng(seed).random((24, 32)) < 0.3, blocks(seed + 1), truth)
    prediction[prediction == 3001] = 3009  # by another number, and after the other one
    crowds = (3002,) if crowded else ()
    found = overlaps(
        Runs.of(truth, prediction.astype(np.uint16)), DRIVING.is_thing, IDENTITY.truth_table, IDENTITY.predicted_table
    )
    met = encounter(found, THINGS, crowds)
    counts = MatchCounts(len(DRIVING))
    counts.add(found, crowds)
    counts.keep(THINGS)
    assert [sum(t.class_id == c for t, _ in met.pairs) for c in range(len(DRIVING))] == counts.tp.tolist()
    assert [sum(s.class_id == c for s in met.wrong) for c in range(len(DRIVING))] == counts.fp.tolist()
    assert [sum(s.class_id == c for s in met.missed) for c in range(len(DRIVING))] == counts.fn.tolist()
    for mine, theirs in met.pairs:
        both, either = (truth == mine.value) & (prediction == theirs.value), (truth == mine.value)
        either = either | ((prediction == theirs.value) & (truth != VOID))
        assert 2 * both.sum() > either.sum() and mine.area == (truth == mine.value).sum()
        assert theirs.area == (prediction == theirs.value).sum()


@pytest.mark.parametrize(("on_void", "wrong"), [(49, 1), (50, 1), (51, 0)])
def test_a_track_is_excused_by_more_than_half_of_it_on_void(on_void: int, wrong: int) -> None:
    truth, prediction = np.ones((1, 200), np.uint16), np.ones((1, 200), np.uint16)
    truth[0, :on_void], prediction[0, :100] = VOID, 3001
    found = overlaps(Runs.of(truth, prediction), DRIVING.is_thing, IDENTITY.truth_table, IDENTITY.predicted_table)
    counts = MatchCounts(len(DRIVING))
    counts.add(found)
    assert (len(encounter(found, THINGS).wrong), counts.fp[CAR]) == (wrong, wrong)


def scored(frames: list[tuple[Truth, Prediction]]) -> tuple[dict[str, Any], list[int]]:
    scorer = Scorer(IDENTITY)
    records = [scorer.score(f"{n:06d}", n * 33_000_000, *pair) for n, pair in enumerate(frames)]
    scorer.totals.tracking += scorer.trajectories.counts()
    return scorer.totals.figures(), [record.id_switches for record in records]


def drive(switch_at: int, known: bool = True, tracked: bool = True) -> list[tuple[Truth, Prediction]]:
    """A car whose panoptic id changes from frame to frame, as the truth's does; and its track once."""
    frames = []
    for number in range(8):
        truth, prediction = np.ones((24, 32), np.uint16), np.ones((24, 32), np.uint16)
        mine, theirs = 3001 + number % 3, 3001 + number % 2
        truth[4:12, 4 + number : 14 + number] = mine
        prediction[4:12, 5 + number : 14 + number] = theirs
        frames.append(
            (
                Truth(truth, tracks={mine: 77} if known else None),
                Prediction(prediction, {theirs: 0.9}, tracks={theirs: 1 + (number >= switch_at)} if tracked else None),
            )
        )
    return frames


def test_a_scorer_follows_objects_whatever_their_panoptic_ids() -> None:
    figures, switches = scored(drive(switch_at=6))
    assert switches == [0, 0, 0, 0, 0, 0, 1, 0]
    tracking = figures["tracking"]
    assert (tracking["idf1"], tracking["mota"], tracking["id_switches"]) == (0.75, 1 - 1 / 8, 1)
    assert (tracking["objects"], tracking["tracks"], tracking["frames"]) == (1, 2, 8)
    assert figures["temporal"]["id_switches"] == 1
    assert tracking["per_class"]["vehicle"]["idf1"] == 0.75 and tracking["per_class"]["cyclist"]["idf1"] is None


@pytest.mark.parametrize(("known", "tracked"), [(False, True), (True, False)])
def test_without_identities_on_both_sides_there_are_no_figures(known: bool, tracked: bool) -> None:
    figures, switches = scored(drive(3, known, tracked))
    assert figures["tracking"]["idf1"] is None and figures["temporal"]["id_switches"] is None
    assert switches == [0] * 8
