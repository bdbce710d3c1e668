"""The Python API as a program builds on it: what it is given wrongly, how it is used, how long its answers last."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg import CameraImage, Frame, FusionOptions, Pipeline, TrackingOptions, open_pipeline
from drive_seg.engines import EngineOptions, FunctionEngine
from drive_seg.errors import ConfigError, DriveSegError, EngineError, MalformedImage, MissingDependency, ModelError
from drive_seg.frame import CompressedImage, RawOutputs
from drive_seg.labels import DRIVING, Label, LabelSet
from drive_seg.offline.evaluate import EvaluationOptions, evaluate_source
from drive_seg.offline.simulated import TruthfulSim
from drive_seg.offline.sources import open_source
from drive_seg.overlay import draw_overlay
from drive_seg.sim import Simulator

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
SIZE = (64, 32)


def classes_by_brightness(batch: NDArray[np.uint8]) -> RawOutputs:
    """A network that takes the red of a pixel for its class."""
    count, height, width = batch.shape[:3]
    cells = (count, 2, height // 4, width // 4)
    return RawOutputs(
        np.ascontiguousarray(batch[..., 0]),
        np.full((count, height, width), 255, np.uint8),
        np.zeros((count, 3, *cells[2:]), np.float32),
        np.zeros(cells, np.float32),
    )


def open_function(function: Callable[[NDArray[np.uint8]], RawOutputs] = classes_by_brightness) -> Pipeline:
    return Pipeline(FunctionEngine(function, SIZE), DRIVING)


def plain(value: int) -> Frame:
    return Frame(CameraImage.from_rgb(np.full((SIZE[1], SIZE[0], 3), value, np.uint8)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CameraImage("rgb8", 4, 4, 12, np.zeros(96, np.uint8)[::2]), "contiguous"),
        (lambda: CameraImage("rgb8", 4, 4, 12, np.zeros(48, np.uint8)[::-1]), "contiguous"),
        (lambda: CameraImage("rgb8", 4, 4, 12, np.zeros(48, np.float32)), r"uint8 array, got float32 \(48,\)"),
        (lambda: CameraImage("rgb8", 4, 4, 12, bytes(48)), "got bytes; numpy.frombuffer"),
        (lambda: CameraImage("rgb8", 4.0, 4, 12, np.zeros(48, np.uint8)), "width must be a whole number, got 4.0"),
        (lambda: CameraImage("rgb8", 4, "4", 12, np.zeros(48, np.uint8)), "height must be a whole number, got '4'"),
        (lambda: CameraImage(None, 4, 4, 12, np.zeros(48, np.uint8)), "encoding must be one of rgb8.*NoneType"),
        (lambda: CompressedImage(b"\xff\xd8"), "got bytes; numpy.frombuffer"),
        (lambda: Frame(IMAGE), "got ndarray; CameraImage.from_rgb"),
    ],
)
def test_what_is_no_image_is_refused_when_it_is_made(make: Callable[[], Any], message: str):
    with pytest.raises(MalformedImage, match=message):
        make()


def test_a_batch_is_waited_for_once():
    """A second wait gave its slot back a second time: two batches were then in one slot."""
    with open_function() as pipeline:
        first, second = pipeline.submit([plain(0)]), pipeline.submit([plain(1)])
        assert second.wait()[0].mask.max() == 1 and first.wait()[0].mask.max() == 0
        with pytest.raises(EngineError, match="waited for already"):
            first.wait()
        pending = [pipeline.submit([plain(value)]) for value in (1, 2)]
        with pytest.raises(EngineError, match="every slot is in flight"):
            pipeline.submit([plain(0)])
        assert [one.wait()[0].mask.min() for one in pending] == [1, 2]


def test_a_closed_pipeline_says_so():
    with open_function() as pipeline:
        pending = pipeline.submit([plain(1)])
        kept = pipeline(plain(2).image.data.reshape(SIZE[1], SIZE[0], 3))
    pipeline.close()
    for use in (lambda: pipeline(IMAGE), lambda: pipeline.submit([plain(0)]), pending.wait, pending.collect):
        with pytest.raises(EngineError, match="the pipeline is closed: open another"):
            use()
    assert (kept.mask == 2).all()


def test_threads_that_share_a_pipeline_take_turns():
    inside: list[int] = []
    busy = threading.Semaphore(0)

    def slow(batch: NDArray[np.uint8]) -> RawOutputs:
        inside.append(busy._value)
        busy.release()
        time.sleep(0.002)
        busy.acquire(blocking=False)
        return classes_by_brightness(batch)

    with open_function(slow) as pipeline, ThreadPoolExecutor(6) as pool:
        values = [number % 3 for number in range(36)]
        results = list(pool.map(pipeline, map(plain, values)))
        assert [int(result.mask.max()) for result in results] == values
    assert not any(inside), "two threads were in the engine at once"


def test_closing_waits_for_the_call_that_another_thread_is_in():
    inside, leave = threading.Event(), threading.Event()

    def slow(batch: NDArray[np.uint8]) -> RawOutputs:
        inside.set()
        assert leave.wait(60)
        return classes_by_brightness(batch)

    pipeline = open_function(slow)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(pipeline, plain(1))
        assert inside.wait(60)
        closing = pool.submit(pipeline.close)
        early = wait([closing], timeout=0.1).done
        leave.set()
        assert not early and call.result(60).mask.min() == 1 and closing.result(60) is None


FORK = """
import os, sys
import test_python_api
from drive_seg.errors import EngineError

pipeline = test_python_api.open_function()
pipeline(test_python_api.IMAGE)
pipeline.engine.close = lambda: print("closed", flush=True)  # what both share on a GPU, say, is the parent's
child = os.fork()
if not child:
    try:
        pipeline(test_python_api.IMAGE)
    except EngineError as error:
        print(error, flush=True)
    pipeline.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
pipeline(test_python_api.IMAGE)
print("the parent goes on")
"""


def test_a_forked_process_is_told_to_open_its_own_pipeline():
    """An engine's threads stay behind in the parent: it waited for them for ever."""
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    refused, parent = done.stdout.splitlines()
    assert "open one in each process" in refused and parent == "the parent goes on"


def maps(height: int = 32, width: int = 64, things: int = 3, cells: tuple[int, int] = (8, 16)) -> RawOutputs:
    grey = np.full((1, height, width), 5, np.uint8)
    return RawOutputs(grey, grey, np.zeros((1, things, *cells), np.float32), np.zeros((1, 2, *cells), np.float32))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "must return RawOutputs, got NoneType"),
        (maps(16, 64), "64x32 or a whole fraction of it, got 64x16"),
        (maps(64, 128), "64x32 or a whole fraction of it, got 128x64"),
        (maps(things=2), r"\(N, 3, h, w\), a map per thing class, got \(1, 2, 8, 16\)"),
        (maps(cells=(0, 0)), r"got \(1, 3, 0, 0\)"),
    ],
)
def test_maps_from_elsewhere_that_do_not_fit_are_named(answer: Any, message: str):
    with open_function(lambda batch: answer) as pipeline:
        for _ in range(2 * pipeline.slots):
            with pytest.raises(EngineError, match=message):
                pipeline(IMAGE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FusionOptions(output_resolution="nativ"), "native or network, got 'nativ'"),
        (lambda: FusionOptions(score_threshold=30), "score_threshold must be a finite number, 0..1; got 30"),
        (lambda: FusionOptions(center_threshold=float("nan")), "center_threshold must be .* got nan"),
        (lambda: FusionOptions(min_instance_area=1.5), "a whole number, 0 or more; got 1.5"),
        (lambda: FusionOptions(max_centers=-1), "max_centers must be .* got -1"),
        (lambda: FusionOptions(max_centers=True), "max_centers must be .* got True"),
        (lambda: TrackingOptions(float("inf")), "max_age_s must be a finite number, 0 or more; got inf"),
        (lambda: TrackingOptions("2"), "max_age_s .* got '2'"),
        (lambda: EngineOptions(slots=0), "slots must be a whole number, 1 or more; got 0"),
        (lambda: EngineOptions(threads=2.5), "threads .* got 2.5"),
        (lambda: EngineOptions(cache_dir="cache"), "cache_dir must be of pathlib.Path, got 'cache'"),
        (lambda: FunctionEngine(classes_by_brightness, slots=0), "slots must be .* got 0"),
        (lambda: EvaluationOptions(tolerance=-1), "tolerance .* got -1"),
        (lambda: EvaluationOptions(limit=0), "limit must be a whole number, 1 or more; got 0"),
        (lambda: EvaluationOptions(out="report"), "out must be of pathlib.Path, got 'report'"),
        (lambda: open_pipeline(max_batch=0), "max_batch must be .* got 0"),
        (lambda: open_pipeline(camera=(1280.0, 720.0)), "camera width must be a whole number, 1 or more; got 1280.0"),
        (lambda: open_pipeline(camera=(1280, 0)), "camera height .* got 0"),
        (lambda: open_pipeline(camera=IMAGE.shape), r"camera must be \(width, height\) in pixels, got \(48, 64, 3\)"),
        (lambda: open_pipeline(engine_options={"slots": 2}), "engine_options must be of .*EngineOptions"),
    ],
)
def test_options_that_cannot_be_are_refused_where_they_are_given(make: Callable[[], Any], message: str):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("things", "message"), [((0,), "label 0, 'c0', is a thing"), ((3, 65), "label 65, .* 16 bits")]
)
def test_things_whose_objects_no_panoptic_id_can_have_are_refused(things: tuple[int, ...], message: str):
    labels = LabelSet(tuple(Label(number, f"c{number}", number in things, (0, 0, 0)) for number in range(70)))
    with pytest.raises(ModelError, match=message):
        Pipeline(FunctionEngine(classes_by_brightness, SIZE), labels)


def test_options_of_another_kind_are_refused_and_those_that_were_there_stay():
    with open_function() as pipeline:
        for name, value in (("options", {"lanes": True}), ("options", None), ("tracking", True)):
            with pytest.raises(ConfigError, match=f"{name} must be of drive_seg"):
                setattr(pipeline, name, value)
            with pytest.raises(ConfigError, match=f"{name} must be of drive_seg"):
                Pipeline(FunctionEngine(classes_by_brightness, SIZE), DRIVING, **{name: value})
        assert (pipeline.options, pipeline.tracking) == (FusionOptions(), None)


def test_numbers_of_numpy_are_numbers_and_limits_are_within():
    assert FusionOptions(score_threshold=1, center_threshold=0).score_threshold == 1
    assert FusionOptions(score_threshold=np.float32(0.5), min_instance_area=np.int64(3)).min_instance_area == 3
    with open_pipeline(camera=tuple(np.array([96, 72]))) as pipeline:
        assert pipeline.network_size == (640, 480)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_errors_and_results_travel_between_processes(again: Callable[[Any], Any]):
    """A worker's error that cannot be unpickled ends in a pool that waits for ever."""
    missing = again(MissingDependency("rosbags", "reading a bag", "pip install rosbags"))
    assert isinstance(missing, DriveSegError) and missing.install == "pip install rosbags"
    assert str(missing) == "reading a bag needs the package 'rosbags', which is not installed; install it with: " + (
        "pip install rosbags"
    )
    with open_function() as pipeline:
        result = pipeline(plain(2))
    other = again(result)
    assert (other.mask == result.mask).all() and other.instances == result.instances and other.times == result.times


def test_what_holds_arrays_can_be_compared_and_looked_up():
    with open_function() as pipeline:
        frames = [plain(value) for value in (1, 1, 2)]
        results = [pipeline(frame) for frame in frames]
    for things in (
        frames,
        results,
        [frame.image for frame in frames],
        [Simulator(0, 64, 64).frame(0) for _ in range(2)],
    ):
        assert things[1] in things and things.index(things[1]) == 1 and things[0] != things[1]
        assert len(set(things)) == len(things) and {things[1]: "found"}[things[1]] == "found"


def test_an_evaluation_leaves_the_pipeline_as_it_was():
    options, tracking = FusionOptions(score_threshold=0.1, lanes=True), TrackingOptions(1.0)
    truth = TruthfulSim(2, size=(96, 64))
    truth.tracks = truth.lanes = False
    with Pipeline(FunctionEngine(classes_by_brightness, SIZE), DRIVING, options, tracking=tracking) as pipeline:
        assert evaluate_source(truth, truth, pipeline, "function").evaluation.metrics["frames"] == 2
        assert (pipeline.options, pipeline.tracking) == (options, tracking)


def test_an_evaluation_can_be_written_to_any_folder_and_lets_go_of_its_files(tmp_path: Path):
    """Without ``out`` the frames are in a temporary file: ``write`` took that for the report's own."""
    with open_function() as pipeline, warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for out in (None, tmp_path / "first"):
            truth = TruthfulSim(2, size=(96, 64))
            judged = evaluate_source(truth, truth, pipeline, "function", EvaluationOptions(out=out))
            for folder in (tmp_path / "first", tmp_path / f"copy of {out is None}"):
                judged.evaluation.write(folder)
                lines = (folder / "frames.jsonl").read_text().splitlines()
                assert len(lines) == len(judged.evaluation.frames) == 2
            del judged
            gc.collect()


def test_a_source_may_be_a_path(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "one.png"), IMAGE)
    (frame,) = open_source(tmp_path)
    assert isinstance(frame, Frame)


def test_the_simulator_takes_whole_numbers_of_any_kind_and_nothing_else():
    drive = Simulator(np.int64(3), np.int32(64), 64)
    assert (drive.frame(np.uint8(200)).image == Simulator(3, 64, 64).frame(200).image).all()
    for make, message in (
        (lambda: Simulator(1.5), "seed: expected a whole number, got 1.5"),
        (lambda: Simulator(0, 640.0), "width: expected a whole number, got 640.0"),
        (lambda: Simulator(0, fps="30"), "fps: expected a rate .* got 30"),
        (lambda: Simulator(0, 64, 64).frame(1.5), "index: expected a whole number, got 1.5"),
        (lambda: Simulator(0, 64, 64).frame(-1), "index: expected 0 or more"),
        (lambda: Simulator(0, weather="snow"), "weather: expected one of clear"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.parametrize("frames", [plain(0), [IMAGE], None, IMAGE, (plain(0) for _ in range(1))])
def test_a_batch_that_is_no_sequence_of_frames_is_refused(frames: Any):
    with open_function() as pipeline:
        for _ in range(2 * pipeline.slots):
            with pytest.raises(MalformedImage, match="expected a sequence of Frames, got"):
                pipeline.submit(frames)


def test_an_overlay_goes_into_a_part_of_a_larger_image_and_not_into_a_mirrored_one():
    with open_function() as pipeline:
        result = pipeline(IMAGE)
    expected = draw_overlay(IMAGE, result, DRIVING)
    wall = np.zeros((100, 200, 3), np.uint8)
    draw_overlay(IMAGE, result, DRIVING, out=wall[20:68, 30:94])
    assert (wall[20:68, 30:94] == expected).all() and wall.sum() == expected.sum()
    for out in (np.zeros_like(IMAGE)[:, ::-1], np.zeros_like(IMAGE)[::-1], np.asfortranarray(IMAGE)):
        with pytest.raises(ValueError, match="contiguous rows"):
            draw_overlay(IMAGE, result, DRIVING, out=out)


def test_a_result_stays_as_it_was_whatever_comes_after():
    with Pipeline(FunctionEngine(classes_by_brightness, SIZE), DRIVING, FusionOptions(confidence=True)) as pipeline:
        image = np.full((SIZE[1], SIZE[0], 3), 2, np.uint8)
        kept = [pipeline(image)]
        image[:] = 1
        kept += [pipeline(image)]
        kept[1].mask[:], kept[1].panoptic[:], kept[1].confidence[:] = 77, 77, 77
        pending = pipeline.submit([Frame(CameraImage.from_rgb(image))])
        image[:] = 0
        assert (pending.wait()[0].mask == 1).all()
        kept += [pipeline(image) for _ in range(20)]
    assert (kept[0].mask == 2).all() and (kept[0].panoptic == 2).all() and (kept[0].confidence == 255).all()
    assert all((result.mask == 0).all() and (result.confidence == 255).all() for result in kept[2:])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_batch_that_nobody_waited_for_is_in_nobodys_way(backend: str):
    """As Ctrl-C leaves it: the next call was told 'Infer Request is busy'."""
    pytest.importorskip(backend)
    with open_pipeline(backend=backend) as pipeline:
        expected = pipeline(IMAGE)
        for slot in pipeline.engine.slots:
            slot.submit(1)
        assert (pipeline(IMAGE).panoptic == expected.panoptic).all()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_whoever_keeps_a_closed_pipeline_keeps_no_engine(backend: str):
    pytest.importorskip(backend)
    pipeline = open_pipeline(backend=backend)
    pipeline(IMAGE)
    slots = [weakref.ref(slot) for slot in pipeline.engine.slots]
    pipeline.close()
    gc.collect()
    assert slots and not any(slot() for slot in slots)
