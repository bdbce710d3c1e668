"""Evaluation in chunks: the figures of one pass to the last digit, here or over Ray, whoever dies on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import drive_seg, drive_seg_process, last_object
from recordings import HEIGHT, WIDTH, Recording, picture, stamp_of, write_bag
from tiny_model import paint, write_tiny_model

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("rosbags", reason="rosbags is not installed")

from drive_seg import open_pipeline
from drive_seg.errors import DriveSegError, SourceError
from drive_seg.frame import Frame
from drive_seg.labels import DRIVING
from drive_seg.offline.bags import BagSource
from drive_seg.offline.chunks import Chunk, ChunkResult, Job, Work, evaluate_chunk, evaluate_chunks, plan, read_list
from drive_seg.offline.chunks import one_after_another as serially
from drive_seg.offline.evaluate import EvaluationOptions, Judge, evaluate_source
from drive_seg.offline.evaluation import Evaluation, FrameLog, FrameScore
from drive_seg.offline.sources import open_source, origin_of
from drive_seg.offline.truth import open_truth
from drive_seg.postprocess import FusionOptions
from drive_seg.tracking import TrackingOptions

FRAMES = 23
OPTIONS = EvaluationOptions()
TRACKING = TrackingOptions(max_age_s=0.35)
Figures = tuple[dict[str, Any], list[dict[str, Any]]]
Drives = Callable[[str], tuple[Path, Figures]]


def write_drive(path: Path, seed: int = 0, storage: str = "mcap") -> Path:
    """A bag whose pictures are right, wrong or flickering by chance; some frames have no truth, one is no image, in two
    the truth does not know its object again, and in four it is hidden: too long for the tracker."""
    with Recording(path, storage) as bag:
        for number in range(FRAMES):
            random = np.random.default_rng([seed, number])
            truth = np.ones((HEIGHT, WIDTH), np.uint16)
            truth[80:120, 16 + 8 * number : 64 + 8 * number] = 3001
            truth[:20] = 65535
            shown = picture(number) if not 2 <= number <= 5 else paint(WIDTH, HEIGHT)
            x, y = random.integers(0, WIDTH - 60), random.integers(0, HEIGHT - 40)
            shown[y : y + 40, x : x + 60] = paint(60, 40, ground=int(random.integers(0, 6)))
            at = stamp_of(number)
            header = bag.header(at)
            image = bag.image(header, "rgb8", shown, step=WIDTH * 3 if number != 13 else 1)
            bag.write("/camera/image_raw", image, at + int(random.integers(0, 30_000_000)))
            if number not in (7, 8, 15):
                recorded = at + int(random.integers(0, 60_000_000))
                bag.write("/camera/truth/panoptic", bag.image(header, "16UC1", truth), recorded)
                listing = bag.vehicles(header, "3001/7" if number not in (4, 19) else "3001")
                bag.write("/camera/truth/instances", listing, at + int(random.integers(0, 60_000_000)))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("model"), size=(WIDTH, HEIGHT)))


@pytest.fixture
def job(model: str) -> Job:
    return Job(model, "onnxruntime", "auto", FusionOptions(), OPTIONS, threads=1, worst=4, tracking=TRACKING)


def figures(evaluation: Evaluation) -> Figures:
    """All that does not depend on the time it took, and every frame."""
    document = evaluation.to_dict()
    for varying in ("fps", "latency_ms", "environment", "command"):
        del document[varying]
    return json.loads(json.dumps(document)), [frame.to_dict() for frame in evaluation.frames]


def in_one_pass(bag: Path, model: str) -> Figures:
    with open_pipeline(model, "onnxruntime", tracking=TRACKING) as pipeline:
        truth = open_truth(str(bag), DRIVING)
        return figures(evaluate_source(open_source(str(bag)), truth, pipeline, "tiny", OPTIONS).evaluation)


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory, model: str) -> Drives:
    """By its storage a bag, not to be changed, and its figures in one pass."""

    @cache
    def made(storage: str) -> tuple[Path, Figures]:
        bag = write_drive(tmp_path_factory.mktemp(storage) / "drive", storage=storage)
        return bag, in_one_pass(bag, model)

    return made


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("seconds", [0.05, 0.25, 0.9, 100.0])
def test_chunks_add_up_to_one_pass(drives: Drives, job: Job, storage: str, seconds: float) -> None:
    bag, (document, frames) = drives(storage)
    assert 0 < document["panoptic"]["all"]["pq"] < 1 and document["temporal"]["changed"] > 0
    assert document["frames"] == FRAMES - 4 and document["unmatched"]["predictions"] == 3
    tracking = document["tracking"]
    assert tracking["frames"] == FRAMES - 6 and tracking["objects"] == 1 and 0 < tracking["idf1"] < 1
    assert tracking["id_switches"] > 0 and tracking["id_switches"] == sum(
        frame["temporal"]["id_switches"] for frame in frames
    )
    chunks, images = plan([str(bag)], seconds=seconds)
    assert images == FRAMES and (len(chunks) == 1) == (seconds > 10)
    done: list[int] = []
    warnings: list[str] = []
    judged, gallery = evaluate_chunks(job, chunks, serially, {}, done.append, warnings.append)
    assert judged.error is None
    assert figures(judged.evaluation) == (document, frames)
    assert done[-1] == FRAMES and done == sorted(done)
    assert len(warnings) == 1 and "left out" in warnings[0]
    assert [kept.name for kept in gallery.frames] == [
        frame.frame for frame in sorted(judged.evaluation.frames, key=lambda frame: (frame.pq, frame.frame))[:4]
    ]


def test_the_summary_is_that_of_all_chunks(drives: Drives, job: Job, tmp_path: Path) -> None:
    chunks, _ = plan([str(drives("mcap")[0])], seconds=0.9)
    assert len(chunks) > 2
    untracked = replace(job, options=EvaluationOptions(out=tmp_path), tracking=None)
    judged, _ = evaluate_chunks(untracked, chunks, serially, {})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"] == {"received": FRAMES, "published": FRAMES - 1, "dropped": {"malformed": 1}, "failed": 0}
    assert summary["latency_ms"] == judged.evaluation.latency and summary["fps"] > 0
    assert summary["versions"] == judged.evaluation.environment["versions"]


@pytest.mark.parametrize("images_apart", [1, 2, 3, 2.5, 6, 7])
def test_every_image_is_in_one_chunk(tmp_path: Path, images_apart: float) -> None:
    """Also where chunks begin with an image, and where the last one is that of the last image alone."""
    bag = write_bag(tmp_path / "drive", 7)
    step = stamp_of(1) - stamp_of(0)
    chunks, images = plan([str(bag)], seconds=(images_apart * step + 0.5) / 1e9)
    found = [[entry.stamp_ns for entry in BagSource(bag, window=chunk.window)] for chunk in chunks]
    assert [stamp for part in found for stamp in part] == [stamp_of(number) for number in range(images)]
    assert all(found) and len(chunks) == 1 + int(6 / images_apart)
    assert [(chunk.first, chunk.last) for chunk in chunks] == [
        (chunk is chunks[0], chunk is chunks[-1]) for chunk in chunks
    ]


@pytest.mark.parametrize("number", [0, 1, 9])
def test_a_chunk_that_begins_with_an_image_is_shown_the_one_before_it(drives: Drives, job: Job, number: int) -> None:
    bag, expected = drives("mcap")
    source = BagSource(bag)
    assert source.recorded is not None
    start, end = source.recorded
    edge = origin_of([entry for entry in source if isinstance(entry, Frame)][number]).recorded_ns
    chunks = [Chunk(str(bag), (start, edge), "", True, False), Chunk(str(bag), (edge, end + 1), "", False, True)]
    judged, _ = evaluate_chunks(job, chunks, serially, {})
    assert figures(judged.evaluation) == expected


def test_a_list_of_bags_is_the_sum_of_its_bags(tmp_path: Path, model: str, job: Job) -> None:
    names = ["one", "two"]
    bags = [str(write_drive(tmp_path / name, seed)) for seed, name in enumerate(names)]
    judged, _ = evaluate_chunks(job, plan(bags, seconds=0.9)[0], serially, {})
    alone = [in_one_pass(Path(bag), model) for bag in bags]
    document, frames = figures(judged.evaluation)
    assert document["frames"] == sum(other["frames"] for other, _ in alone)
    summed = np.sum([other["semantic"]["confusion"] for other, _ in alone], axis=0)
    assert document["semantic"]["confusion"] == summed.tolist()
    for count in ("idtp", "idfp", "idfn", "id_switches", "objects", "tracks", "frames"):
        assert document["tracking"][count] == sum(other["tracking"][count] for other, _ in alone)
    for kind in ("predictions", "truths"):
        assert document["unmatched"][kind] == sum(other["unmatched"][kind] for other, _ in alone)
    assert document["temporal"]["pairs"] == sum(other["temporal"]["pairs"] for other, _ in alone)
    expected = [f"{name}/{frame['frame']}" for name, (_, part) in zip(names, alone, strict=True) for frame in part]
    assert [frame["frame"] for frame in frames] == expected


def test_a_damaged_bag_is_one_chunk_and_its_error_comes_with_the_figures(tmp_path: Path, job: Job) -> None:
    whole, broken = write_drive(tmp_path / "whole"), write_drive(tmp_path / "broken")
    file = broken / "broken.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    chunks, _ = plan([str(file), str(whole)], seconds=0.9)
    assert [chunk.window for chunk in chunks if chunk.bag == str(file)] == [None]
    judged, _ = evaluate_chunks(job, chunks, serially, {})
    assert isinstance(judged.error, DriveSegError) and "cut short" in str(judged.error)
    frames = [frame.frame.partition("/")[0] for frame in judged.evaluation.frames]
    assert frames.count("whole") == FRAMES - 4 and 0 < frames.count("broken") < FRAMES - 4


def test_a_bag_in_which_nothing_was_recorded_is_refused_in_parts_as_in_one(tmp_path: Path, job: Job) -> None:
    bag = write_bag(tmp_path / "in", 0, topic="/camera/image_raw", others=("/camera/truth/panoptic",))
    for seconds in (None, 0.9):
        with pytest.raises(SourceError, match="none of 0 frames has a truth"):
            evaluate_chunks(job, plan([str(bag)], seconds=seconds)[0], serially, {})


def write_frames(
    path: Path, size: tuple[int, int], compressed: bool = False, cut: int | None = None, small: int | None = None
) -> Path:
    """A bag of ten pictures, one every 0.1 s, each followed by its truth; MCAP with packed chunks.

    Args:
        compressed: the pictures are PNG.
        cut: of which picture the file lacks its end.
        small: of which picture the truth has half the width.
    """
    width, height = size
    topic = "/camera/image_raw/compressed" if compressed else "/camera/image_raw"
    with Recording(path, packed="storage") as bag:
        for number in range(10):
            header = bag.header(stamp_of(number))
            shown = paint(width, height, [(3, 16 + 8 * (number % 3), 80, 48, 40)])
            if compressed:
                data = cv2.imencode(".png", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))[1].reshape(-1)
                data = data[: len(data) // 2] if number == cut else data
                image = bag.message("sensor_msgs/CompressedImage", header, "png", data)
            else:
                image = bag.image(header, "rgb8", shown)
            bag.write(topic, image, stamp_of(number))
            ids = np.ones((height, width // 2 if number == small else width), np.uint16)
            ids[80:120, 16:64] = 3001
            bag.write("/camera/truth/panoptic", bag.image(header, "16UC1", ids), stamp_of(number) + 1)
    return path


@pytest.mark.parametrize("cut", [4, 7])
def test_a_picture_that_cannot_be_decoded_does_not_cost_the_chunk_behind_it(
    tmp_path: Path, model: str, job: Job, cut: int
) -> None:
    bag = write_frames(tmp_path / "drive", (WIDTH, HEIGHT), compressed=True, cut=cut)
    document, frames = in_one_pass(bag, model)
    assert document["frames"] == 9 and document["temporal"]["pairs"] == 8
    chunks, _ = plan([str(bag)], seconds=0.5)
    assert len(chunks) == 2
    warnings: list[str] = []
    judged, _ = evaluate_chunks(job, chunks, serially, {}, warn=warnings.append)
    assert judged.error is None and len(warnings) == 1 and warnings[0].startswith(f"left out 00000{cut}:")
    assert figures(judged.evaluation) == (document, frames)


def test_of_several_bags_a_warning_names_the_one(tmp_path: Path, job: Job) -> None:
    bags = [write_frames(tmp_path / name, (WIDTH, HEIGHT), compressed=True, cut=7) for name in ("one", "two")]
    warnings: list[str] = []
    evaluate_chunks(job, plan([str(bag) for bag in bags], seconds=0.5)[0], serially, {}, warn=warnings.append)
    assert [line.split(":")[0] for line in warnings] == ["left out one/000007", "left out two/000007"]


def test_a_truth_of_another_size_ends_its_own_chunk_only(tmp_path: Path, job: Job) -> None:
    bag = write_frames(tmp_path / "drive", (WIDTH, HEIGHT), small=6)
    judged, _ = evaluate_chunks(job, plan([str(bag)], seconds=0.4)[0], serially, {})
    assert "frame 000006: the truth has 160x192 pixels" in str(judged.error)
    scored = [(frame.frame, frame.stamp_ns) for frame in judged.evaluation.frames]
    assert scored == [(f"{number:06d}", stamp_of(number)) for number in (0, 1, 2, 3, 4, 5, 8, 9)]


def test_frames_behind_a_chunk_that_cannot_be_done_keep_their_names(tmp_path: Path, job: Job) -> None:
    bag = write_frames(tmp_path / "drive", (WIDTH, HEIGHT))

    def refusing(work: Work, chunks: Sequence[Chunk]) -> Iterator[ChunkResult | DriveSegError]:
        for number, answer in enumerate(serially(work, chunks)):
            yield DriveSegError("its worker died") if number == 1 else answer

    judged, _ = evaluate_chunks(job, plan([str(bag)], seconds=0.4)[0], refusing, {})
    assert "its worker died" in str(judged.error)
    scored = [(frame.frame, frame.stamp_ns) for frame in judged.evaluation.frames]
    assert scored == [(f"{number:06d}", stamp_of(number)) for number in (0, 1, 2, 3, 8, 9)]
    with pytest.raises(DriveSegError, match="its worker died"):
        evaluate_chunks(job, plan([str(bag)])[0], lambda work, chunks: [DriveSegError("its worker died")], {})


def spoil(file: Path, which: int) -> None:
    """Damage one of the chunks of an MCAP file, so that it cannot be unpacked."""
    data, at, chunks = bytearray(file.read_bytes()), 8, []
    while at < len(data) - 8:
        length = int.from_bytes(data[at + 1 : at + 9], "little")
        if data[at] == 6:
            chunks.append((at + 9, length))
        at += 9 + length
    start, length = chunks[which]
    middle = start + length // 2
    data[middle : middle + 40] = bytes(value ^ 0x5A for value in data[middle : middle + 40])
    file.write_bytes(data)


@pytest.mark.parametrize("threads", [False, True])
def test_a_picture_that_is_damaged_costs_no_other(
    tmp_path: Path, model: str, job: Job, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images and truths of a megabyte have a chunk of the file each, so that damage of one leaves the others whole."""
    monkeypatch.setattr("drive_seg.offline.evaluate.cores_to_spare", lambda: threads)
    bag = write_frames(tmp_path / "drive", (1024, 520))
    spoil(bag / "drive.mcap", which=2 * 4)
    scored = [number for number in range(10) if number != 4]
    with open_pipeline(model, "onnxruntime", tracking=TRACKING) as pipeline:
        whole = evaluate_source(open_source(str(bag)), open_truth(str(bag), DRIVING), pipeline, "tiny", OPTIONS)
    in_pieces, _ = evaluate_chunks(job, plan([str(bag)], seconds=0.3)[0], serially, {})
    for found in (whole, in_pieces):
        assert found.error is not None and "is damaged" in str(found.error)
        assert [frame.stamp_ns for frame in found.evaluation.frames] == [stamp_of(number) for number in scored]
    assert figures(whole.evaluation) == figures(in_pieces.evaluation)


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("limit", [1, 3, 10])
def test_the_last_of_so_many_frames_is_scored_too(
    tmp_path: Path, model: str, limit: int, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its truth is behind it in the bag, where nobody reads for the sake of images any more."""
    monkeypatch.setattr("drive_seg.offline.evaluate.cores_to_spare", lambda: threads)
    bag = str(write_frames(tmp_path / "drive", (WIDTH, HEIGHT)))
    with open_pipeline(model, "onnxruntime") as pipeline:
        truth = open_truth(bag, DRIVING)
        found = evaluate_source(open_source(bag), truth, pipeline, "tiny", EvaluationOptions(limit=limit)).evaluation
        truth.close()
    assert [frame.stamp_ns for frame in found.frames] == [stamp_of(number) for number in range(limit)]
    assert found.metrics["unmatched"] == {"predictions": 0, "truths": 10 - limit}


def test_lists_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "drives.txt").write_text("\ufeffa.mcap\n\n# of May\nsub/b.mcap\n", encoding="utf-8")
    assert read_list(tmp_path / "drives.txt") == [str(tmp_path / "a.mcap"), str(tmp_path / "sub/b.mcap")]
    for text, says in (("# none\n", "names no bags"), ("a.mcap\nsub/a.mcap\n", "equal names")):
        (tmp_path / "drives.txt").write_text(text)
        with pytest.raises(SourceError, match=says):
            read_list(tmp_path / "drives.txt")
    (tmp_path / "drives.gz").write_bytes(b"\x1f\x8b\xff")
    for path in (tmp_path, tmp_path / "drives.gz"):
        with pytest.raises(SourceError, match="cannot read the list of bags"):
            read_list(path)
    for path in (tmp_path, tmp_path / "nowhere.mcap", tmp_path / "drives.txt"):
        with pytest.raises(SourceError, match="is no bag"):
            plan([str(path)])


EVALUATE = ("evaluate", "--json", "--backend", "onnxruntime")


def test_the_command_takes_a_list_and_refuses_what_it_cannot_spread(tmp_path: Path, model: str) -> None:
    for seed, name in enumerate(("one", "two")):
        write_drive(tmp_path / name, seed)
    (tmp_path / "drives.txt").write_text("one\ntwo\n")
    document = last_object(drive_seg(*EVALUATE, tmp_path / "drives.txt", "--model", model, "-o", tmp_path / "report"))
    assert document["frames"] == 2 * (FRAMES - 4)
    assert len((tmp_path / "report/frames.jsonl").read_text().splitlines()) == document["frames"]
    assert "one/" in (tmp_path / "report/report.html").read_text()
    assert "whole bags" in drive_seg(*EVALUATE, tmp_path / "drives.txt", "--frames", 3, code=2).stderr


def test_a_request_to_end_while_a_chunk_is_added_leaves_no_half_of_it_in_the_figures(
    drives: Drives, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = FrameLog.append
    done: list[ChunkResult] = []
    told: list[bool] = []

    def spread(work: Work, chunks: Sequence[Chunk]) -> Iterator[ChunkResult | DriveSegError]:
        for chunk in chunks:
            done.append(work(chunk))
            yield done[-1]

    def append_and_be_told(log: FrameLog, score: FrameScore) -> None:
        append(log, score)
        if len(done) == 2 and not told:
            told.append(True)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(FrameLog, "append", append_and_be_told)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it
    try:
        judged, _ = evaluate_chunks(job, plan([str(drives("mcap")[0])], seconds=0.3)[0], spread, {})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert judged.interrupted and len(done) == 2
    frames = sum(len(result.scores) for result in done)
    assert len(judged.evaluation.frames) == judged.evaluation.metrics["frames"] == frames


@pytest.mark.parametrize("bag", [1, 2])
def test_a_request_to_end_in_the_last_frame_of_a_bag_is_kept_for_the_bags_behind_it(
    bag: int, drives: Drives, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of that bag is left to cut short: what was heard there went with it."""
    copies = [str(drives("mcap")[0]) for _ in range(2)]
    hear = Judge.hear
    heard: list[str] = []

    def hear_and_be_told(judge: Judge, *given: Any) -> None:
        hear(judge, *given)
        heard.append(judge.truth.name)
        if len(heard) == bag * (FRAMES - 1):  # one is no image
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Judge, "hear", hear_and_be_told)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it
    try:
        judged, _ = evaluate_chunks(job, plan(copies)[0], serially, {})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(heard) == bag * (FRAMES - 1), "a bag was begun after the request"
    assert judged.interrupted == (bag == 1) and judged.evaluation.metrics["frames"] == bag * (FRAMES - 4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="ray is not installed")
    from drive_seg.offline.cluster import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # The workers unpickle functions of this module.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it
        try:
            with Cluster(workers=2) as connected:
                yield connected
        finally:
            signal.signal(signal.SIGTERM, before)


def test_ray_gives_the_figures_of_one_pass(cluster: Any, drives: Drives, job: Job) -> None:
    bag, expected = drives("mcap")
    judged, _ = evaluate_chunks(job, plan([str(bag)], seconds=0.3)[0], cluster.spread, {})
    assert judged.error is None
    assert figures(judged.evaluation) == expected


def test_a_request_to_end_leaves_the_figures_so_far(cluster: Any, drives: Drives, job: Job) -> None:
    def end(done: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    chunks, _ = plan([str(drives("mcap")[0])], seconds=0.3)
    judged, _ = evaluate_chunks(job, chunks, cluster.spread, {}, end)
    assert judged.interrupted and 0 < judged.evaluation.metrics["frames"] < FRAMES - 4


@dataclass(frozen=True)
class Deadly:
    """Work that kills its process: after the work is done, in the chunk that begins at ``window``; once or always."""

    job: Job
    window: tuple[int, int] | None
    mark: Path
    always: bool = False

    def __call__(self, chunk: Chunk) -> ChunkResult:
        result = evaluate_chunk(self.job, chunk)
        if chunk.window == self.window and (self.always or not self.mark.exists()):
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def test_the_chunk_of_a_killed_worker_is_done_again_and_counted_once(
    cluster: Any, drives: Drives, tmp_path: Path, job: Job
) -> None:
    bag, expected = drives("mcap")
    chunks, _ = plan([str(bag)], seconds=0.3)
    deadly = Deadly(job, chunks[2].window, tmp_path / "killed")
    judged, _ = evaluate_chunks(job, chunks, lambda work, given: cluster.spread(deadly, given), {})
    assert (tmp_path / "killed").exists()
    assert judged.error is None
    assert figures(judged.evaluation) == expected


def test_a_chunk_that_always_kills_its_worker_is_given_up_and_named(cluster: Any, tmp_path: Path, job: Job) -> None:
    bags = [str(write_drive(tmp_path / name)) for name in ("good", "deadly")]
    chunks, _ = plan(bags)
    chunks = [Chunk(chunk.bag, (0, 1), chunk.prefix, True) if "deadly" in chunk.bag else chunk for chunk in chunks]
    deadly = Deadly(job, (0, 1), tmp_path / "killed", always=True)
    judged, _ = evaluate_chunks(job, chunks, lambda work, given: cluster.spread(deadly, given), {})
    assert isinstance(judged.error, DriveSegError)
    assert "deadly" in str(judged.error) and "given up after 3 retries" in str(judged.error)
    assert judged.evaluation.metrics["frames"] == FRAMES - 4


def test_the_command_spreads_over_ray(tmp_path: Path, model: str) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    bag = write_drive(tmp_path / "drive")
    serial = last_object(drive_seg(*EVALUATE, bag, "--model", model))
    over_ray = ("--engine", "ray", "--workers", 2, "--chunk-seconds", 0.5)
    spread = last_object(drive_seg_process(*EVALUATE, bag, "--model", model, *over_ray))
    assert spread["environment"]["workers"] == 2
    for key in ("frames", "panoptic", "semantic", "boundary", "lane", "instance", "temporal", "tracking", "unmatched"):
        assert spread[key] == serial[key], key
    said = drive_seg_process(*EVALUATE, bag, "--engine", "ray", "--address", "127.0.0.1:1", code=1).stderr
    assert said.count("error:") == 1 and "cannot reach Ray at 127.0.0.1:1" in said


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from drive_seg.offline.cluster import Cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DriveSegError, match=r"-m pip install .* 'ray>=2.9'"):
        Cluster()
