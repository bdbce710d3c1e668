"""Two evaluations compared: intervals that are right and repeatable, limits, exit codes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Done, drive_seg, drive_seg_process, errors, last_object
from evaluations import make_evaluation

from drive_seg.errors import ConfigError, SourceError
from drive_seg.labels import LabelSet
from drive_seg.offline.bootstrap import FrameCounts, draws, intervals, scores
from drive_seg.offline.compare import Comparison, Difference, Limit, compare_files
from drive_seg.offline.evaluation import ClassScore, Evaluation, FrameScore

FRAMES = 24
CLOCK = 1_700_000_000_000_000_000


def frame(name: str, tp: int = 0, fp: int = 0, fn: int = 0, iou_sum: float = 0.0, pixels: tuple[int, int] = (0, 0)):
    return FrameScore(name, 0, {"car": ClassScore(tp, fp, fn, iou_sum, *pixels)}, ((0, 0),), {}, None, 0, 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good/ and bad/ show the same streets, other/ shows different ones."""
    root = tmp_path_factory.mktemp("evaluations")
    make_evaluation(FRAMES, flaws=2).write(root / "good")
    make_evaluation(FRAMES, flaws=9).write(root / "bad")
    make_evaluation(FRAMES + 6, flaws=2, seed=8, name="x{}".format).write(root / "other")
    return root


def edited(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of an evaluation with some keys of metrics.json changed."""
    target.mkdir()
    document = json.loads((source / "metrics.json").read_text())
    (target / "metrics.json").write_text(json.dumps({**document, **changes}))
    (target / "frames.jsonl").write_bytes((source / "frames.jsonl").read_bytes())
    return target


class TestScores:
    def test_ratios_are_of_sums_not_means_of_ratios(self) -> None:
        """One frame with 1 of 1 found and one with 1 of 9: PQ (0.9 + 0.6) / (1 + 5), not the mean of 0.9 and 0.12."""
        frames = [
            frame("a", tp=1, iou_sum=0.9, pixels=(90, 100)),
            frame("b", tp=1, fn=8, iou_sum=0.6, pixels=(10, 900)),
        ]
        found = scores(FrameCounts.of(frames, ["car"]), np.ones((1, 2)), ["car"], [True])
        assert found["panoptic.per_class.car.pq"][0] == pytest.approx(1.5 / 6)
        assert found["panoptic.per_class.car.sq"][0] == pytest.approx(1.5 / 2)
        assert found["panoptic.per_class.car.rq"][0] == pytest.approx(2 / 6)
        assert found["semantic.per_class.car"][0] == pytest.approx(100 / 1000)

    def test_a_class_that_is_never_found_has_quality_0_and_one_that_never_occurs_none(self) -> None:
        frames = [frame("a", fn=2, pixels=(0, 90)), frame("b")]
        weights = np.array([[1.0, 1.0], [0.0, 2.0]])
        found = scores(FrameCounts.of(frames, ["car"]), weights, ["car"], [True])
        for key in ("pq", "sq", "rq"):
            np.testing.assert_array_equal(found[f"panoptic.per_class.car.{key}"], [0.0, np.nan])

    def test_weights_repeat_frames(self) -> None:
        evaluation = make_evaluation(6)
        names = [label["name"] for label in evaluation.metrics["labels"]]
        things = [label["thing"] for label in evaluation.metrics["labels"]]
        records = list(evaluation.frames)
        weighted = scores(FrameCounts.of(records, names), np.array([[0.0, 2, 1, 0, 0, 3]]), names, things)
        repeated = FrameCounts.of([records[n] for n in (1, 1, 2, 5, 5, 5)], names)
        listed = scores(repeated, np.ones((1, 6)), names, things)
        assert weighted.keys() == listed.keys()
        for name, values in weighted.items():
            assert values == pytest.approx(listed[name], abs=1e-12, nan_ok=True), name

    def test_all_frames_once_are_the_figures_of_metrics_json(self) -> None:
        evaluation = make_evaluation(8, flaws=6)
        labels = evaluation.metrics["labels"]
        names, things = [label["name"] for label in labels], [label["thing"] for label in labels]
        found = scores(FrameCounts.of(evaluation.frames, names), np.ones((1, 8)), names, things)
        assert len(found) > 40
        for path, values in found.items():
            stated: Any = evaluation.metrics
            for key in path.split("."):
                stated = stated[key]
            assert (np.nan if stated is None else stated) == pytest.approx(values[0], abs=1e-12, nan_ok=True), path


class TestIntervals:
    def test_they_cover_a_known_difference_as_often_as_they_say(self) -> None:
        """Frames whose expected IoU is known; 95 % intervals of 300 experiments, all with fixed seeds."""
        random = np.random.default_rng(5)
        frames, pixels, before, after = 80, 500, 0.60, 0.63
        covered = 0
        for experiment in range(300):
            samples = []
            for rate in (before, after):
                hits = random.binomial(pixels, np.clip(random.normal(rate, 0.1, frames), 0, 1))
                counts = FrameCounts.of([frame("", pixels=(int(hit), pixels)) for hit in hits], ["car"])
                stream = np.random.default_rng([experiment, len(samples)])
                drawn = [scores(counts, weights, ["car"], [True]) for weights in draws(frames, 400, 1, stream)]
                samples.append(np.concatenate([part["semantic.miou"] for part in drawn]))
            found = intervals({"miou": samples[1] - samples[0]}, 0.95)["miou"]
            assert found is not None
            covered += found[0] <= after - before <= found[1]
        # 285 of 300 are expected; a right method is outside these bounds less than once in 1000 experiments.
        assert 270 <= covered <= 297

    def test_pairing_tells_small_changes_from_chance(self, folders: Path, tmp_path: Path) -> None:
        """The same frames under other names are no longer paired, and the interval of the same change is wider."""
        renamed = edited(folders / "bad", tmp_path / "renamed")
        lines = (renamed / "frames.jsonl").read_text().splitlines()
        rows = [{**json.loads(line), "frame": f"r{number}"} for number, line in enumerate(lines)]
        (renamed / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        paired = compare_files(folders / "good", folders / "bad")
        unpaired = compare_files(folders / "good", renamed)
        assert paired.paired and not unpaired.paired
        widths = [found.difference("pq").interval for found in (paired, unpaired)]
        assert all(widths)
        narrow, wide = (high - low for low, high in widths)
        assert narrow < wide
        assert paired.difference("pq").change == unpaired.difference("pq").change

    def test_frames_in_another_order_are_still_paired(self, folders: Path, tmp_path: Path) -> None:
        shuffled = edited(folders / "bad", tmp_path / "shuffled")
        lines = (shuffled / "frames.jsonl").read_text().splitlines(keepends=True)
        (shuffled / "frames.jsonl").write_text("".join(reversed(lines)))
        straight = compare_files(folders / "good", folders / "bad")
        other = compare_files(folders / "good", shuffled)
        assert other.paired
        for mine, theirs in zip(straight.differences.values(), other.differences.values(), strict=True):
            assert mine.interval == (theirs.interval and pytest.approx(theirs.interval, abs=1e-12)), mine.metric

    def test_equal_seeds_give_equal_intervals(self, folders: Path) -> None:
        for other in ("bad", "other"):
            first = compare_files(folders / "good", folders / other, seed=3)
            assert first == compare_files(folders / "good", folders / other, seed=3)
            assert first.differences != compare_files(folders / "good", folders / other, seed=4).differences

    def test_a_big_loss_is_called_worse_and_no_change_the_same(self, folders: Path) -> None:
        worse = compare_files(folders / "good", folders / "bad").difference("miou")
        assert worse.interval is not None and worse.change is not None
        assert worse.interval[0] < worse.change < worse.interval[1] < 0
        assert worse.verdict == "worse"
        assert compare_files(folders / "bad", folders / "good").difference("miou").verdict == "better"
        same = compare_files(folders / "good", folders / "good")
        assert {row.verdict for row in same.differences.values() if row.interval} == {"same"}

    def test_less_flicker_is_better(self, folders: Path, tmp_path: Path) -> None:
        found = compare_files(folders / "good", folders / "bad").difference("flicker")
        assert found.change is not None and found.change > 0
        assert found.verdict == "worse" and found.loss == found.change

    @pytest.mark.parametrize("metric", ["tracking.id_switches", "latency_ms.end_to_end.p99", "temporal.flicker"])
    def test_of_some_metrics_less_is_better(self, metric: str) -> None:
        assert Difference(metric, 8.0, 5.0, (-4.0, -1.0)).verdict == "better"
        assert Difference(metric, 5.0, 8.0, (1.0, 4.0)).verdict == "worse"
        assert Difference(metric, 5.0, 8.0, None).loss == 3.0

    @pytest.mark.parametrize("interval", [(0.0, 0.2), (-0.1, 0.0), (-0.1, 0.1)])
    def test_an_interval_that_touches_zero_tells_nothing(self, interval: tuple[float, float]) -> None:
        assert Difference("semantic.miou", 0.5, 0.6, interval).verdict == "unclear"

    def test_blocks_keep_neighbours_together(self) -> None:
        (weights,) = draws(60, 200, 20, np.random.default_rng(0))
        assert weights.shape == (200, 60)
        assert (weights.sum(axis=1) == 60).all()
        # Three stretches of 20 in a circle: at most six places where a frame's neighbour is drawn less or more often.
        steps = (np.diff(weights, axis=1, append=weights[:, :1]) != 0).sum(axis=1)
        assert steps.max() <= 6 and steps.min() >= 0
        (uneven,) = draws(50, 200, 20, np.random.default_rng(0))
        assert (uneven.sum(axis=1) == 50).all()
        (single,) = draws(60, 200, 1, np.random.default_rng(0))
        assert (np.diff(single, axis=1) != 0).sum(axis=1).min() > 6

    def test_a_class_missing_from_many_draws_has_no_interval(self) -> None:
        rare = np.full(1000, 0.5)
        rare[:100] = np.nan
        found = intervals({"rare": rare, "often": np.linspace(0, 1, 1000)}, 0.95)
        assert found["rare"] is None
        assert found["often"] == pytest.approx((0.025, 0.975), abs=1e-3)

    def test_a_handful_of_frames_promises_nothing(self, tmp_path: Path) -> None:
        for name, flaws in (("a", 1), ("b", 5)):
            make_evaluation(9, flaws=flaws).write(tmp_path / name)
        found = compare_files(tmp_path / "a", tmp_path / "b")
        assert {row.interval for row in found.differences.values()} == {None}
        assert found.difference("pq").change is not None

    def test_so_do_a_handful_of_blocks_and_of_frames_in_one_of_the_two(self, folders: Path, tmp_path: Path) -> None:
        few, many = folders / "good", folders / "other"
        for block, known in ((1, True), (2, True), (3, False)):  # 24 and 30 frames
            found = compare_files(few, many, block=block)
            assert {
                row.interval is not None for row in found.differences.values() if row.metric == "panoptic.all.pq"
            } == {known}


class TestLimits:
    @pytest.mark.parametrize("text", ["miou", "miou:", ":0.1", "miou:-0.1", "miou:nan", "miou:inf", "miou:a"])
    def test_not_a_limit(self, text: str) -> None:
        with pytest.raises(ConfigError, match="METRIC:MARGIN"):
            Limit.parse(text)

    def test_no_loss_at_all_is_a_limit_and_a_loss_of_the_margin_keeps_it(self, folders: Path) -> None:
        compared = compare_files(folders / "good", folders / "good")
        lost = dataclasses.replace(
            compared, differences={"semantic.miou": Difference("semantic.miou", 0.75, 0.5, None)}
        )
        assert compared.regressions([Limit.parse("miou:0")]) == lost.regressions([Limit.parse("miou:0.25")]) == []
        assert len(lost.regressions([Limit.parse("miou:0.2499")])) == 1

    def test_names_of_metrics(self, folders: Path) -> None:
        found = compare_files(folders / "good", folders / "bad")
        assert found.difference("miou").metric == found.difference("semantic.miou").metric == "semantic.miou"
        assert found.difference("vehicle.pq").metric == "panoptic.per_class.vehicle.pq"
        assert found.difference("semantic.road").metric == "semantic.per_class.road"
        with pytest.raises(ConfigError, match=r"may be boundary\.f1, lane\.f1"):
            found.difference("f1")
        with pytest.raises(ConfigError, match=r"no metric 'semantic.mio'.*semantic\.miou"):
            found.difference("semantic.mio")

    def test_a_class_that_is_called_as_a_group_does_not_take_its_place(self) -> None:
        path = "panoptic.per_class.all.pq"
        values = {
            "panoptic.all.pq": Difference("panoptic.all.pq", 0.9, 0.5, None),
            path: Difference(path, 0.2, 0.2, None),
        }
        found = Comparison("a", "b", True, (1, 1), values, 1, 0, 1)
        assert found.difference("pq").metric == found.difference("panoptic.all.pq").metric == "panoptic.all.pq"
        assert found.difference(path).metric == path
        assert len(found.regressions([Limit("pq", 0.1)])) == 1

    def test_a_limit_is_broken_beyond_its_margin_only(self, folders: Path) -> None:
        found = compare_files(folders / "good", folders / "bad")
        loss = found.difference("miou").loss
        assert loss is not None and loss > 0
        assert found.regressions([Limit("miou", loss * 1.001)]) == []
        (line,) = found.regressions([Limit("miou", loss * 0.999)])
        assert line.startswith("semantic.miou is worse by")
        assert compare_files(folders / "bad", folders / "good").regressions([Limit("miou", 0)]) == []

    def test_latency_may_grow_by_milliseconds(self, folders: Path, tmp_path: Path) -> None:
        document = json.loads((folders / "good/metrics.json").read_text())
        slower = {stage: {key: ms + 3 for key, ms in row.items()} for stage, row in document["latency_ms"].items()}
        after = edited(folders / "good", tmp_path / "slower", latency_ms=slower, fps=document["fps"] - 5)
        found = compare_files(folders / "good", after)
        assert found.regressions([Limit("latency_ms.processing.p99", 3.5), Limit("fps", 5.5)]) == []
        assert len(found.regressions([Limit("processing.p99", 2.5), Limit("fps", 4.5)])) == 2

    def test_what_cannot_be_judged_does_not_pass(self, folders: Path, tmp_path: Path) -> None:
        after = edited(folders / "good", tmp_path / "files", fps=None, latency_ms={})
        (fps, latency) = compare_files(folders / "good", after).regressions(
            [Limit("fps", 99), Limit("latency_ms.inference.p50", 99)]
        )
        assert fps == "fps cannot be judged: 42 before, n/a after"
        assert "cannot be judged" in latency


class TestRefusals:
    def test_missing(self, folders: Path, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="nowhere"):
            compare_files(folders / "good", tmp_path / "nowhere")

    def test_no_frames_beside_it(self, folders: Path, tmp_path: Path) -> None:
        lonely = edited(folders / "good", tmp_path / "lonely")
        (lonely / "frames.jsonl").unlink()
        with pytest.raises(SourceError, match=r"no frames beside .*frames\.jsonl"):
            compare_files(folders / "good", lonely)

    def test_frames_of_another_evaluation(self, folders: Path, tmp_path: Path) -> None:
        mixed = edited(folders / "good", tmp_path / "mixed")
        (mixed / "frames.jsonl").write_bytes((folders / "bad/frames.jsonl").read_bytes())
        with pytest.raises(SourceError, match="of another evaluation"):
            compare_files(folders / "good", mixed)

    @pytest.mark.parametrize(
        "changes",
        [{"labels": [{"name": "car"}]}, {"fps": "fast"}, {"lane": "none"}, {"latency_ms": 5}, {"semantic": [1]}],
    )
    def test_figures_of_another_form(self, folders: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
        with pytest.raises(SourceError, match="damaged"):
            compare_files(folders / "good", edited(folders / "good", tmp_path / "broken", **changes))

    @pytest.mark.parametrize("damage", ["{}\n", "no json\n", '{"frame": 1, "stamp_ns": 0}\n', "[]\n"])
    def test_damaged_frames(self, folders: Path, tmp_path: Path, damage: str) -> None:
        broken = edited(folders / "good", tmp_path / "broken")
        with (broken / "frames.jsonl").open("a") as file:
            file.write(damage)
        with pytest.raises(SourceError, match="damaged"):
            compare_files(folders / "good", broken)

    def test_other_classes(self, folders: Path, tmp_path: Path) -> None:
        from drive_seg.labels import DRIVING

        labels = LabelSet(tuple(dataclasses.replace(label, name=label.name.upper()) for label in DRIVING))
        make_evaluation(FRAMES, labels=labels).write(tmp_path / "loud")
        with pytest.raises(SourceError, match=r"different classes.*same label map"):
            compare_files(folders / "good", tmp_path / "loud")

    def test_other_tolerance(self, folders: Path, tmp_path: Path) -> None:
        lane = json.loads((folders / "good/metrics.json").read_text())["lane"]
        after = edited(folders / "good", tmp_path / "loose", lane={**lane, "tolerance_px": 9})
        with pytest.raises(SourceError, match=r"lane\.tolerance_px is 3 in one and 9"):
            compare_files(folders / "good", after)

    def test_frames_of_another_recording_that_have_the_same_names(self, folders: Path, tmp_path: Path) -> None:
        make_evaluation(FRAMES, flaws=2, seed=8).write(tmp_path / "elsewhere")
        with pytest.raises(
            SourceError, match=rf"not score the same thing: {FRAMES} of {FRAMES} .* is 000000; evaluate"
        ):
            compare_files(folders / "good", tmp_path / "elsewhere")

    def test_one_frame_with_another_truth(self, folders: Path, tmp_path: Path) -> None:
        after = edited(folders / "bad", tmp_path / "relabelled")
        rows = [json.loads(line) for line in (after / "frames.jsonl").read_text().splitlines()]
        rows[5]["confusion"][1][1] += 1
        (after / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(SourceError, match=rf"same thing: 1 of {FRAMES} frames .*the first is 000005"):
            compare_files(folders / "good", after)

    @pytest.mark.parametrize(
        "begins",
        [(0, 0), (CLOCK, CLOCK), (0, CLOCK), (CLOCK, 0)],
        ids=["counted", "of a clock", "of the second", "of the first"],
    )
    def test_stamps_of_a_clock_must_agree(self, folders: Path, tmp_path: Path, begins: tuple[int, int]) -> None:
        """A truth may look the same in two recordings. Stamps that count from zero depend on who counted."""
        made = []
        for name, begin, shift in (("good", begins[0], 0), ("bad", begins[1], 40_000_000)):
            made.append(edited(folders / name, tmp_path / name))
            rows = [json.loads(line) for line in (made[-1] / "frames.jsonl").read_text().splitlines()]
            rows = [{**row, "stamp_ns": begin + shift + row["stamp_ns"]} for row in rows]
            (made[-1] / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if all(begins):
            with pytest.raises(SourceError, match="not score the same thing"):
                compare_files(*made)
        else:
            assert compare_files(*made).paired

    def test_true_lane_boundaries_must_agree(self, folders: Path, tmp_path: Path) -> None:
        made = []
        for name, points in (("good", 40), ("bad", 41)):
            made.append(edited(folders / name, tmp_path / name))
            rows = [json.loads(line) for line in (made[-1] / "frames.jsonl").read_text().splitlines()]
            rows[3]["lines"] = {"frames": 1, "found": 0, "predicted": 2, "true": 2, "right": 0, "points": points}
            (made[-1] / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(SourceError, match=r"same thing: 1 of .*the first is 000003"):
            compare_files(*made)

    @pytest.mark.parametrize(("before", "after"), [(None, (1, 1)), ((0, 0), (1, 0)), ((1, 1), None)])
    def test_lane_boundaries_may_be_in_one_of_the_two_only(
        self, folders: Path, tmp_path: Path, before: tuple[int, int] | None, after: tuple[int, int] | None
    ) -> None:
        """Each frame has so many boundaries predicted and found, or was not looked at for any."""
        made = []
        for name, counts in (("good", before), ("bad", after)):
            lane = json.loads((folders / name / "metrics.json").read_text())["lane"]
            line = total = None
            if counts is not None:
                predicted, found = counts
                line = {"frames": 1, "found": found, "predicted": predicted, "true": found, "right": 0, "points": 9}
                total = {"f1": float(found) if predicted else None, "accuracy": None}
            made.append(edited(folders / name, tmp_path / name, lane={**lane, "lines": total}))
            rows = [json.loads(text) for text in (made[-1] / "frames.jsonl").read_text().splitlines()]
            text = "".join(json.dumps({**row, "lines": line}) + "\n" for row in rows)
            (made[-1] / "frames.jsonl").write_text(text)
        compared = compare_files(*made)
        assert compared.difference("lines_f1").change is None and compared.difference("lines_f1").interval is None
        assert compared.difference("miou").verdict == "worse"

    def test_classes_in_another_order_are_the_same_classes(self, folders: Path, tmp_path: Path) -> None:
        labels = json.loads((folders / "bad/metrics.json").read_text())["labels"]
        after = edited(folders / "bad", tmp_path / "turned", labels=labels[::-1])
        rows = [json.loads(line) for line in (after / "frames.jsonl").read_text().splitlines()]
        turned = [{**row, "confusion": row["confusion"][::-1]} for row in rows]
        (after / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in turned))
        found, straight = compare_files(folders / "good", after), compare_files(folders / "good", folders / "bad")
        assert found.paired and found.differences == straight.differences

    def test_truth_without_instances_compares_what_there_is(self, tmp_path: Path) -> None:
        for name, flaws in (("a", 1), ("b", 5)):
            make_evaluation(FRAMES, flaws=flaws, instances=False).write(tmp_path / name)
        found = compare_files(tmp_path / "a", tmp_path / "b")
        assert found.difference("things.pq").change is None and found.difference("things.pq").interval is None
        assert found.difference("miou").verdict == "worse"


def compare(*arguments: object, code: int) -> Done:
    done = drive_seg("evaluate", "--compare", *arguments, code=code)
    assert "Traceback" not in done.stderr
    return done


class TestCommandLine:
    def test_a_table_for_people(self, folders: Path) -> None:
        text = compare(folders / "good", folders / "bad/metrics.json", code=0).stdout
        assert "semantic.miou" in text and "panoptic.vehicle.pq" in text and "worse" in text
        assert f"the same {FRAMES} frames, paired" in text and "1000 bootstrap draws" in text

    def test_the_table_counts_switches_and_fits_80_columns(self, folders: Path, tmp_path: Path) -> None:
        tracking = {"idf1": 0.5, "mota": 0.25, "id_switches": 3, "objects": 9}
        slow = {"postprocess": {"p50": 1103.18, "p95": 1632.0, "p99": 1806.73, "max": 1806.73}}
        pair = [
            edited(folders / "good", tmp_path / name, tracking=tracking | {"id_switches": switches}, latency_ms=slow)
            for name, switches in (("before", 3), ("after", 14))
        ]
        lines = compare(*pair, code=0).stdout.splitlines()
        (row,) = (line.split() for line in lines if "tracking.id_switches" in line)
        assert [float(value) for value in row[1:4]] == [3.0, 14.0, 11.0]
        assert max(len(line.rstrip()) for line in lines[:-1]) <= 80, "the last line is a sentence"

    def test_json_is_the_last_line_and_whole(self, folders: Path) -> None:
        done = compare(folders / "good", folders / "other", "--json", "--seed", 5, code=0)
        found = last_object(done)
        assert found["paired"] is False and found["frames"] == [FRAMES, FRAMES + 6]
        assert found["bootstrap"] == {"confidence": 0.95, "resamples": 1000, "seed": 5, "block": 1}
        expected = compare_files(folders / "good", folders / "other", seed=5)
        assert found["differences"] == [row.as_dict() for row in expected.differences.values()]

    def test_a_regression_exits_1_and_says_which(self, folders: Path) -> None:
        limits = ("--fail-if", "miou:0.001", "--fail-if", "fps:1")
        compared = ("evaluate", "--compare", folders / "good", folders / "bad")
        done = drive_seg_process(*compared, *limits, "--json", code=1)
        (line,) = errors(done)
        assert "semantic.miou is worse by" in line and "fps" not in line
        assert len(last_object(done)["regressions"]) == 1
        assert "Traceback" not in done.stderr
        drive_seg(*compared, "--fail-if", "miou:0.99")

    def test_a_file_that_will_not_do_exits_1(self, folders: Path, tmp_path: Path) -> None:
        done = compare(folders / "good", tmp_path / "nowhere", code=1)
        assert len(errors(done)) == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("--compare", "GOOD"),
            ("sim", "--compare", "GOOD", "GOOD"),
            ("sim", "--fail-if", "miou:0.1"),
            ("--compare", "GOOD", "GOOD", "--fail-if", "miou"),
            ("--compare", "GOOD", "GOOD", "--fail-if", "altitude:0.1"),
            ("--compare", "GOOD", "GOOD", "--block", "0"),
        ],
    )
    def test_bad_usage_exits_2(self, folders: Path, arguments: tuple[str, ...]) -> None:
        given = (folders / "good" if one == "GOOD" else one for one in arguments)
        assert "Traceback" not in drive_seg("evaluate", *given, code=2).stderr


def test_a_comparison_reads_what_was_written(folders: Path) -> None:
    found: Comparison = compare_files(folders / "good", folders / "bad/metrics.json")
    before, after = Evaluation.read(folders / "good"), Evaluation.read(folders / "bad")
    assert found.difference("miou").before == before.metrics["semantic"]["miou"]
    assert found.difference("pq").after == after.metrics["panoptic"]["all"]["pq"]
