"""What only a GPU can show. Every test here needs one, with TensorRT and pycuda: ``tools/gpu_check.sh`` runs them.

Real frames come from ``DRIVE_SEG_DATA`` where it is set, else they are rendered. What the fp32 network says on them is
computed by ONNX Runtime here, or read from ``DRIVE_SEG_GPU_REFERENCE`` where this Python has no ONNX Runtime.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg.engines import EngineOptions, FunctionEngine, availability
from drive_seg.engines.planned import plan_for
from drive_seg.engines.protocol import Engine
from drive_seg.engines.reference import Reference, compute, folder_frames, simulated_frames
from drive_seg.errors import EngineError
from drive_seg.frame import CameraImage, Frame, PanopticResult, RawOutputs
from drive_seg.model import Model, load_model
from drive_seg.pipeline import Pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.resources import find_model
from drive_seg.sim import Simulator

pytestmark = pytest.mark.gpu

_ROW = next(row for row in availability() if row.backend == "tensorrt")
if not _ROW.available:
    pytest.skip(f"no TensorRT here: {_ROW.reason}", allow_module_level=True)

from drive_seg.engines.cuda import Arena
from drive_seg.engines.trt import TrtEngine, TrtSlot

CACHE = Path(os.environ.get("DRIVE_SEG_GPU_CACHE", "~/.cache/drive_seg")).expanduser()
FRAMES = 100
SMALL_MB = 8.0
NOT_BUILT: dict[tuple[str, str, int], str] = {}
"""Why: a build takes minutes, and most of these tests want the same engine."""


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(find_model("default"))


@pytest.fixture(scope="module")
def reference(model: Model) -> Reference:
    given = given_reference(model)
    if given:
        return Reference.load(given, model)
    pytest.importorskip("onnxruntime", reason="no ONNX Runtime here and DRIVE_SEG_GPU_REFERENCE is not set")
    data = os.environ.get("DRIVE_SEG_DATA")
    folder = Path(data) / "camvid32" / "val" / "images" if data else None
    source = folder_frames(model, folder, FRAMES) if folder and folder.is_dir() else simulated_frames(model, FRAMES)
    return compute(model, source)


def given_reference(model: Model) -> Path | None:
    """What tools/gpu_check.sh has written with a Python that has ONNX Runtime."""
    given = os.environ.get("DRIVE_SEG_GPU_REFERENCE")
    return Path(given).with_name(f"reference_{model.name}.npz") if given else None


def engine_of(model: Model, precision: str, batch: int = 1, graphs: bool = True, slots: int = 3) -> TrtEngine:
    """From the cache, or built now. The gate's reference is that of the tests where one is given."""
    options = EngineOptions(precision=precision, max_batch=batch, cache_dir=CACHE, slots=slots)
    wanted = (model.name, precision, batch)
    if wanted in NOT_BUILT:
        raise EngineError(f"not tried again: {NOT_BUILT[wanted]}")
    try:
        plan = plan_for(model, options, reference=given_reference(model))
    except EngineError as error:
        NOT_BUILT[wanted] = str(error)
        raise
    return TrtEngine(plan, model, options, graphs)


def ask(engine: Engine, frame: NDArray[np.uint8]) -> RawOutputs:
    slot = engine.slots[0]
    slot.input[0] = frame
    slot.submit(1)
    return slot.wait()


def free_mb() -> float:
    arena = Arena(0)
    with arena.active("ask for free memory"):
        free = float(arena.driver.mem_get_info()[0]) / 2**20
    arena.close()
    return free


def street(seed: int, width: int = 1280, height: int = 720) -> NDArray[np.uint8]:
    return Simulator(seed, width, height).frame(30).image


class TestParity:
    @pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("fp16", 0.995), ("int8", 0.97)])
    def test_labels_are_those_of_onnx_runtime(
        self, precision: str, least: float, model: Model, reference: Reference
    ) -> None:
        with engine_of(model, precision) as engine:
            equal = [
                (ask(engine, frame).semantic == answer.semantic).mean()
                for frame, answer in zip(reference.frames, reference.answers, strict=True)
            ]
        print(f"{precision}: labels equal on {np.mean(equal):.4%} of {len(equal)} frames, worst {np.min(equal):.4%}")
        assert np.mean(equal) >= least

    def test_a_model_without_fp32_says_what_its_graph_says_on_the_cpu(self) -> None:
        model = load_model(find_model("simulator"))
        given = given_reference(model)
        if given is None:
            pytest.importorskip("onnxruntime", reason="no ONNX Runtime here and DRIVE_SEG_GPU_REFERENCE is not set")
        answers = compute(model, simulated_frames(model, 4)) if given is None else Reference.load(given, model)
        with engine_of(model, "fp16") as engine:
            for frame, answer in zip(answers.frames, answers.answers, strict=True):
                assert (ask(engine, frame).semantic == answer.semantic).mean() >= 0.995

    def test_int8_loses_at_most_a_point_of_mean_iou(self, model: Model) -> None:
        scenes = [Simulator(9500 + seed, model.width, model.height).frame(40) for seed in range(40)]
        ious = {}
        for precision in ("fp32", "int8"):
            confusion = np.zeros(1 << 16, np.int64)
            with engine_of(model, precision) as engine:
                for scene in scenes:
                    said = ask(engine, scene.image).semantic[0]
                    confusion += np.bincount((scene.mask.astype(np.intp) * 256 + said).reshape(-1), minlength=1 << 16)
            known = confusion.reshape(256, 256)[: len(model.labels), : len(model.labels)]
            inside = np.diag(known)
            union = known.sum(0) + known.sum(1) - inside
            ious[precision] = float(np.mean(inside[union > 0] / union[union > 0]))
        print(f"mean IoU {ious}")
        assert ious["int8"] >= ious["fp32"] - 0.01

    def test_a_batch_gives_what_single_frames_give(self, model: Model, reference: Reference) -> None:
        with engine_of(model, "fp16", batch=4) as engine:
            slot = engine.slots[0]
            for count in (4, 3, 1, 4):
                for index in range(count):
                    slot.input[index] = reference.frames[index % len(reference.frames)]
                slot.submit(count)
                maps = slot.wait()
                for index in range(count):
                    answer = reference.answers[index % len(reference.frames)]
                    assert (maps.semantic[index] == answer.semantic[0]).mean() >= 0.99

    def test_the_graph_computes_what_the_enqueued_network_computes(self, model: Model, reference: Reference) -> None:
        answers = []
        for graphs in (False, True):
            with engine_of(model, "fp16", graphs=graphs) as engine:
                ask(engine, reference.frames[0])
                answers.append([ask(engine, frame).semantic.copy() for frame in reference.frames[:10]])
                assert (engine.slots[0]._graph is not None) is graphs, "the steady state was not captured"
        assert np.array_equal(*answers)


class TestFusion:
    """Letterbox and fusion on the GPU beside the CPU's, around the same engine."""

    def both(
        self, model: Model, frames: list[Frame], options: FusionOptions, batch: int = 1
    ) -> Iterator[tuple[PanopticResult, PanopticResult]]:
        with engine_of(model, "fp16", batch) as engine:

            def network(images: NDArray[np.uint8]) -> RawOutputs:
                slot = engine.slots[-1]
                slot.input[: len(images)] = images
                slot.submit(len(images))
                return slot.wait()

            with Pipeline(engine, model.labels, options) as ours:
                assert not engine.info.reason, engine.info.reason
                host = Pipeline(
                    FunctionEngine(network, (model.width, model.height), batch, slots=1), model.labels, options
                )
                for start in range(0, len(frames), batch):
                    part = frames[start : start + batch]
                    yield from zip(ours.submit(part).wait(), host.submit(part).wait(), strict=True)

    @pytest.mark.parametrize("resolution", ["native", "network"])
    def test_they_are_equal_to_the_bit(self, resolution: str, model: Model) -> None:
        images = []
        for seed, (width, height) in enumerate([(1280, 720), (640, 384), (1920, 1080), (500, 375), (320, 240)]):
            rgb = street(seed, width - width % 2, height - height % 2)
            images += [CameraImage.from_rgb(rgb), CameraImage.from_bgr(rgb)]
            mono = np.ascontiguousarray(rgb[..., 1])
            h, w = mono.shape
            images.append(CameraImage("mono8", w, h, w, mono.reshape(-1)))
            images.append(CameraImage("bayer_rggb8", w - w % 2, h - h % 2, w, mono[: h - h % 2].reshape(-1)))
            if w % 2 == 0 and h % 2 == 0:
                raw = np.random.default_rng(seed).integers(0, 256, w * h * 2, np.uint8)
                images.append(CameraImage("yuv422_yuy2", w, h, 2 * w, raw))
                images.append(CameraImage("nv12", w, h, w, raw[: w * h * 3 // 2]))
        options = FusionOptions(score_threshold=0.1, output_resolution=resolution, confidence=True)
        compared = 0
        for ours, theirs in self.both(model, [Frame(image) for image in images], options):
            assert np.array_equal(ours.mask, theirs.mask)
            assert np.array_equal(ours.panoptic, theirs.panoptic)
            assert np.array_equal(ours.confidence, theirs.confidence)
            assert [replace(one, score=0.0) for one in ours.instances] == [
                replace(one, score=0.0) for one in theirs.instances
            ]
            scores = [[one.score for one in answer.instances] for answer in (ours, theirs)]
            assert np.allclose(*scores, rtol=0, atol=1e-6)
            compared += 1
        assert compared == len(images)

    def test_cameras_of_different_sizes_share_a_batch(self, model: Model) -> None:
        frames = [
            Frame(CameraImage.from_rgb(street(seed, *size)), f"camera{seed}")
            for seed, size in enumerate([(1280, 720), (640, 480), (1280, 720), (800, 600)] * 3)
        ]
        for ours, theirs in self.both(model, frames, FusionOptions(), batch=4):
            assert ours.frame is theirs.frame and ours.native_size == theirs.native_size
            assert (ours.panoptic == theirs.panoptic).mean() >= 0.999  # a batch of one may use another kernel


class TestMemory:
    def test_it_is_constant_over_a_thousand_frames(self, model: Model) -> None:
        frames = [Frame(CameraImage.from_rgb(street(seed))) for seed in range(4)]
        with Pipeline(engine_of(model, "fp16"), model.labels) as pipeline:
            run(pipeline, frames * 10)
            before = free_mb()
            run(pipeline, frames * 250)
            assert free_mb() >= before - SMALL_MB

    def test_opening_and_closing_gives_all_of_it_back(self, model: Model) -> None:
        with engine_of(model, "fp16"):
            pass
        before = free_mb()
        for _ in range(5):
            with Pipeline(engine_of(model, "fp16"), model.labels) as pipeline:
                pipeline(Frame(CameraImage.from_rgb(street(1))))
        gc.collect()
        assert free_mb() >= before - SMALL_MB

    def test_without_memory_it_is_an_error_and_afterwards_it_works(self, model: Model) -> None:
        with engine_of(model, "fp16"):
            pass
        hog = Arena(0)
        try:
            with hog.active("take all memory"):
                step = 1 << 30
                while step >= 1 << 20:
                    try:
                        hog.memory(step)
                    except hog.driver.MemoryError:
                        step //= 2
            with pytest.raises(EngineError, match=r"memory|cannot|TensorRT"):
                Pipeline(engine_of(model, "fp16"), model.labels).close()
        finally:
            hog.close()
        with Pipeline(engine_of(model, "fp16"), model.labels) as pipeline:
            pipeline(Frame(CameraImage.from_rgb(street(1))))


def run(pipeline: Pipeline, frames: list[Frame]) -> None:
    flying: list[Any] = []
    for frame in frames:
        if len(flying) == pipeline.slots:
            flying.pop(0).wait()
        flying.append(pipeline.submit([frame]))
    for pending in flying:
        pending.wait()


class TestStreams:
    def test_slots_in_flight_overlap(self, model: Model) -> None:
        """Throughput with every slot busy beats one frame at a time: copies and network run side by side."""
        frames = [Frame(CameraImage.from_rgb(street(seed))) for seed in range(4)] * 50
        with Pipeline(engine_of(model, "fp16"), model.labels) as pipeline:
            run(pipeline, frames[:20])
            started = time.perf_counter()
            for frame in frames:
                pipeline(frame)
            one_by_one = time.perf_counter() - started
            started = time.perf_counter()
            run(pipeline, frames)
            together = time.perf_counter() - started
        print(f"one by one {len(frames) / one_by_one:.0f} fps, overlapped {len(frames) / together:.0f} fps")
        assert together < one_by_one

    def test_the_gpus_times_add_up_to_no_more_than_the_hosts(self, model: Model) -> None:
        with Pipeline(engine_of(model, "fp16"), model.labels) as pipeline:
            for _ in range(10):
                times = pipeline(Frame(CameraImage.from_rgb(street(3)))).times
        parts = [times.gpu_h2d, times.gpu_preprocess, times.gpu_inference, times.gpu_fusion, times.gpu_d2h]
        assert all(part is not None and part > 0 for part in parts)
        assert sum(part or 0 for part in parts) <= (times.inference or 0) + (times.preprocess or 0) + 0.5


class TestEnds:
    @pytest.mark.parametrize("in_work", [0, 1, 3])
    def test_it_may_be_closed_with_work_in_flight(self, in_work: int, model: Model) -> None:
        pipeline = Pipeline(engine_of(model, "fp16"), model.labels)
        pending = [pipeline.submit([Frame(CameraImage.from_rgb(street(seed)))]) for seed in range(in_work)]
        pipeline.close()
        pipeline.close()
        assert len(pending) == in_work

    @pytest.mark.parametrize("first", [0, 1])
    def test_two_engines_end_in_either_order(self, first: int, model: Model) -> None:
        pipelines = [Pipeline(engine_of(model, "fp16"), model.labels) for _ in range(2)]
        pipelines[first].close()
        assert pipelines[1 - first](Frame(CameraImage.from_rgb(street(1)))).mask.shape == (720, 1280)
        pipelines[1 - first].close()

    def test_it_moves_between_threads(self, model: Model) -> None:
        made: dict[str, Any] = {}

        def on_a_thread(step: Callable[[], None]) -> None:
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()

        on_a_thread(lambda: made.update(pipeline=Pipeline(engine_of(model, "fp16"), model.labels)))
        on_a_thread(lambda: made.update(result=made["pipeline"](Frame(CameraImage.from_rgb(street(1))))))
        on_a_thread(made["pipeline"].close)
        assert made["result"].mask.shape == (720, 1280)

    def test_nothing_is_left_where_the_thread_that_opened_the_gpu_is_gone(self, model: Model) -> None:
        """pycuda cannot destroy a stream there unless the context is current, and says so in a warning."""
        engine_of(model, "fp16", batch=2).close()  # built, which takes longer than the other process may
        ended = in_a_process("""
            import gc, threading
            made = {}
            def on_a_thread(step):
                thread = threading.Thread(target=step)
                thread.start()
                thread.join()
            on_a_thread(lambda: made.update(pipeline=Pipeline(engine_of(model, "fp16", batch=2), model.labels)))
            on_a_thread(lambda: made.update(result=made["pipeline"](frame)))
            on_a_thread(made["pipeline"].close)
            print(made["result"].mask.shape)
            made.clear()
            gc.collect()
        """)
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert "(720, 1280)" in ended.stdout
        assert "could not be cleaned up" not in ended.stderr

    def test_one_may_be_opened_while_another_captures_its_graph(self, model: Model) -> None:
        """Which graph call meets which set-up call is chance: ten times."""
        engine_of(model, "fp16").close()  # built

        def captured(_: int) -> bool:
            with Pipeline(engine_of(model, "fp16"), model.labels) as pipeline:
                pipeline(Frame(CameraImage.from_rgb(street(1))))
                return any(slot._graph is not None for slot in pipeline.engine.slots)  # one of them served

        with ThreadPoolExecutor(2) as pool:
            graphs = list(pool.map(captured, range(20)))
        print(f"{sum(graphs)} of {len(graphs)} engines have a CUDA graph; TensorRT's own set-up may spoil a capture")

    def test_a_process_that_forgets_to_close_ends_in_order(self, model: Model) -> None:
        engine_of(model, "fp16").close()  # built
        ended = in_a_process("""
            pipeline = Pipeline(engine_of(model, "fp16"), model.labels)
            print(pipeline(frame).mask.shape)
        """)
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert "(720, 1280)" in ended.stdout

    def test_torch_beside_it_is_undisturbed(self, model: Model) -> None:
        torch = pytest.importorskip("torch", reason="no torch in this Python")
        if not torch.cuda.is_available():
            pytest.skip("this torch has no CUDA")
        before = torch.arange(10, device="cuda")
        with Pipeline(engine_of(model, "fp16"), model.labels) as pipeline:
            pipeline(Frame(CameraImage.from_rgb(street(1))))
            assert int((before + torch.ones(10, device="cuda", dtype=torch.int64)).sum()) == 55
        assert int(before.sum()) == 45


def in_a_process(program: str) -> subprocess.CompletedProcess[str]:
    """Run ``program``, which finds a ``model`` and a ``frame``, in a Python of its own with every warning shown."""
    preface = """
        from test_gpu import engine_of, street
        from drive_seg.frame import CameraImage, Frame
        from drive_seg.model import load_model
        from drive_seg.pipeline import Pipeline
        from drive_seg.resources import find_model
        model = load_model(find_model("default"))
        frame = Frame(CameraImage.from_rgb(street(1)))
    """
    folder = Path(__file__).parent
    paths = os.pathsep.join([str(folder), str(folder.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(preface) + textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_plan_of_another_gpu_or_a_damaged_one_is_not_loaded(model: Model, tmp_path: Path) -> None:
    options = EngineOptions(precision="fp16", cache_dir=CACHE)
    plan = plan_for(model, options)
    broken = replace(plan, data=plan.data[: len(plan.data) // 2])
    with pytest.raises(EngineError, match="cannot load the plan"):
        TrtEngine(broken, model, options)
    with engine_of(model, "fp16") as engine:
        assert isinstance(engine.slots[0], TrtSlot) and engine.info.key == plan.key.text
