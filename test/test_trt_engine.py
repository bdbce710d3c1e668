"""The TensorRT engine on a GPU made of NumPy (``fake_gpu``): order on the streams, memory, teardown, faults.

What only silicon can show (that kernels and plans compute the right thing, and how fast) is in ``test_gpu.py``.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import GPU, FakeGpu, install
from roads import FlatRoad
from test_compiler import Release
from tiny_model import network, paint, paint_mask, write_tiny_model
from typer.testing import CliRunner

from drive_seg.cli import app
from drive_seg.config import load
from drive_seg.engines import (
    EngineInfo,
    EngineOptions,
    FunctionEngine,
    availability,
    builder,
    cuda,
    open_engine,
    planned,
)
from drive_seg.engines.build import Job, Made, judge
from drive_seg.engines.compiler import Compiled
from drive_seg.engines.cuda import Arena
from drive_seg.engines.device_stages import DeviceStages
from drive_seg.engines.gate import Agreement
from drive_seg.engines.plan_cache import Plan, PlanCache
from drive_seg.engines.planned import key_here
from drive_seg.engines.reference import Reference, simulated_frames
from drive_seg.engines.trt import SLOTS, TrtEngine
from drive_seg.errors import EngineError, EngineLost, MissingDependency, PlanRefused
from drive_seg.frame import CameraImage, Frame, PanopticResult, RawOutputs
from drive_seg.labels import DRIVING
from drive_seg.model import Model, load_model
from drive_seg.pipeline import Pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.stages import HostStages, fresh

SIZE = (160, 96)
OPTIONS = FusionOptions(score_threshold=0.1, min_instance_area=4, confidence=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    pytest.importorskip("onnx", reason="onnx is not installed")
    return load_model(write_tiny_model(tmp_path_factory.mktemp("model"), size=SIZE))


@pytest.fixture(scope="module")
def drives(model: Model) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The gate's frames, rendered once."""
    return list(simulated_frames(model))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    gpu = FakeGpu(network, SIZE)
    install(gpu, monkeypatch)
    yield gpu
    assert getattr(gpu.stack, "depth", 0) == 0, "a context was left current"


def engine_of(model: Model, batch: int = 1, content: bytes = b"FAKE", **options: Any) -> TrtEngine:
    settings = EngineOptions(max_batch=batch, precision="fp32", **options)
    return TrtEngine(Plan(key_here(model, settings), content, {}), model, settings)


def picture(seed: int, size: tuple[int, int] = (200, 130)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    draw = np.random.default_rng(seed)
    things = [
        (
            int(draw.integers(3, 6)),
            *(int(v) for v in draw.integers(0, 60, 2)),
            *(int(v) for v in draw.integers(8, 60, 2)),
        )
        for _ in range(6)
    ]
    image = paint(*size, things)
    image[..., 2] = draw.integers(0, 256, image.shape[:2]) // 200 * 200
    return image


def frames(count: int, seed: int = 0) -> list[Frame]:
    """Three cameras of different sizes and encodings in turn."""
    made = []
    for number in range(count):
        kind = number % 3
        if kind == 0:
            image = CameraImage.from_rgb(picture(seed + number))
        elif kind == 1:
            image = CameraImage.from_bgr(picture(seed + number, (320, 96)))
        else:
            mono = picture(seed + number, (100, 140))[..., 0]
            padded = np.zeros((140, 128), np.uint8)
            padded[:, :100] = mono
            image = CameraImage("mono8", 100, 140, 128, padded.reshape(-1))
        made.append(Frame(image, f"camera{kind}"))
    return made


def assert_same(one: PanopticResult, other: PanopticResult) -> None:
    assert one.frame is other.frame and (one.native_size, one.extent) == (other.native_size, other.extent)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.panoptic, other.panoptic)
    np.testing.assert_array_equal(one.confidence, other.confidence)
    assert one.instances == other.instances


def on_cpu(batches: list[list[Frame]], options: FusionOptions = OPTIONS) -> list[PanopticResult]:
    with Pipeline(FunctionEngine(network, SIZE, max_batch=4), DRIVING, options) as pipeline:
        return [result for batch in batches for result in pipeline.submit(batch).wait()]


def in_flight(pipeline: Pipeline, batches: list[list[Frame]]) -> list[PanopticResult]:
    """As many batches under way as there are slots."""
    flying, results = [], []
    for batch in batches:
        if len(flying) == pipeline.slots:
            results += flying.pop(0).wait()
        flying.append(pipeline.submit(batch))
    return results + [result for pending in flying for result in pending.wait()]


class TestOrder:
    @pytest.mark.parametrize(("fused", "seed"), [(False, 0), (False, 1), *((True, seed) for seed in range(5))])
    def test_many_batches_in_flight_give_what_the_cpu_gives(
        self, fused: bool, seed: int, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gpu.random.seed(seed)
        if not fused:
            monkeypatch.delattr(TrtEngine, "stages")
        sizes = [1, 4, 2, 4, 4, 3, 1]
        source = iter(frames(sum(sizes), 100 * seed))
        batches = [[next(source) for _ in range(size)] for size in sizes]
        with Pipeline(engine_of(model, batch=4), DRIVING, OPTIONS) as pipeline:
            assert pipeline.slots == SLOTS
            ours = in_flight(pipeline, batches)
        for one, other in zip(ours, on_cpu(batches), strict=True):
            assert_same(one, other)
        assert ("letterbox" in gpu.launches) is fused
        assert not gpu.leaks

    def test_copies_wait_for_nothing_that_they_do_not_need(self, gpu: FakeGpu, model: Model) -> None:
        """All slots can be uploaded before anything is computed, and computed before anything is downloaded."""
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            in_flight(pipeline, [[frame] for frame in frames(3)])  # every slot has its graph
            gpu.launches.clear()
            pending = [pipeline.submit([frame]) for frame in frames(3)]
            network = pipeline.engine.network
            upload, compute, download = network.upload, network.compute, network.download
            while gpu.step(upload):
                pass
            assert not upload.queue and not gpu.launches
            while gpu.step(compute):
                pass
            assert not compute.queue and gpu.launches.count("network") == 3
            assert len(download.queue) >= 3
            for one in pending:
                one.wait()

    def test_the_steady_state_is_one_graph_and_odd_batches_are_not(self, gpu: FakeGpu, model: Model) -> None:
        with Pipeline(engine_of(model, batch=2), DRIVING, OPTIONS) as pipeline:
            for batch in ([0, 1], [2], [3, 4]) * 3:
                pipeline.submit([frames(5)[number] for number in batch]).wait()
            gpu.launches.clear()
            pipeline.submit(frames(2)).wait()
            assert gpu.launches.count("graph") == 1
            gpu.launches.clear()
            pipeline.submit(frames(1)).wait()
            assert gpu.launches.count("graph") == 0 and gpu.launches.count("network") == 1

    def test_what_cannot_be_captured_is_enqueued(
        self, gpu: FakeGpu, model: Model, caplog: pytest.LogCaptureFixture
    ) -> None:
        gpu.can_capture = False
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            batch = frames(4)
            ours = in_flight(pipeline, [[frame] for frame in batch])
            gpu.launches.clear()
            in_flight(pipeline, [[frame] for frame in batch])
            assert gpu.launches.count("network") == 4, "it was tried once for each slot"
            assert sum("without CUDA graph" in said.message for said in caplog.records) == pipeline.slots
        for one, other in zip(ours, on_cpu([[frame] for frame in batch]), strict=True):
            assert_same(one, other)

    def test_the_gpus_own_times_are_told(self, gpu: FakeGpu, model: Model) -> None:
        with Pipeline(engine_of(model), DRIVING) as pipeline:
            times = pipeline(frames(1)[0]).times
        for stage in ("gpu_h2d", "gpu_preprocess", "gpu_inference", "gpu_fusion", "gpu_d2h"):
            assert getattr(times, stage) > 0
        assert times.inference is not None and times.postprocess is not None

    def test_thresholds_and_sizes_follow_the_options(self, gpu: FakeGpu, model: Model) -> None:
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            for options in (
                FusionOptions(score_threshold=0.9),
                FusionOptions(min_instance_area=2000, output_resolution="network"),
                FusionOptions(confidence=True, output_resolution="network"),
                OPTIONS,
            ):
                pipeline.options = options
                for frame in frames(3, 7):
                    assert_same(pipeline(frame), on_cpu([[frame]], options)[0])

    def test_what_changes_from_frame_to_frame_is_seen_where_all_else_stays(self, gpu: FakeGpu, model: Model) -> None:
        """A camera's frames are packed alike, one like the other, in the same memory; unless one is not."""
        rgb = picture(3, (100, 60))
        flat = rgb.reshape(-1)
        wide = np.zeros((60, 320), np.uint8)
        wide[:, :300] = rgb.reshape(60, 300)
        mono = rgb[..., 0]
        images = [
            CameraImage("rgb8", 100, 60, 300, flat),
            CameraImage("bgr8", 100, 60, 300, flat),
            CameraImage("rgb8", 100, 60, 320, wide.reshape(-1)),
            CameraImage("rgb8", 100, 60, 300, flat),
            CameraImage("rgb8", 60, 100, 180, flat),
            CameraImage("mono16", 100, 60, 200, (mono.astype(np.uint16) * 256 + mono[::-1]).view(np.uint8).reshape(-1)),
        ]
        images.append(dataclasses.replace(images[-1], big_endian=True))
        other = [CameraImage.from_rgb(paint(20 + number, 20)) for number in range(20)]
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            for image in (*images, *images[::-1], *other, images[0]):  # so many that their tables are made again
                frame = Frame(image)
                assert_same(pipeline(frame), on_cpu([[frame]])[0])
                assert_same(pipeline(frame), on_cpu([[frame]])[0])
            for options in (FusionOptions(), FusionOptions(output_resolution="network"), OPTIONS):
                pipeline.options = options
                frame = Frame(images[0])
                assert_same(pipeline(frame), on_cpu([[frame]], options)[0])

    @pytest.mark.parametrize("fused", [False, True])
    def test_options_are_those_of_submission(
        self, fused: bool, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not fused:
            monkeypatch.delattr(TrtEngine, "stages")
        settings = [FusionOptions(score_threshold=0.9, lanes=True), FusionOptions(output_resolution="network")]
        batches = [[frame] for frame in frames(2, 7)]
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            pending = []
            for options, batch in zip(settings, batches, strict=True):
                pipeline.options = options
                pending.append(pipeline.submit(batch))
            pipeline.options = FusionOptions(confidence=True)
            ours = [one.wait()[0] for one in pending]
        for one, options, batch in zip(ours, settings, batches, strict=True):
            assert_same(one, on_cpu([batch], options)[0])
            assert (one.lanes is None) is not options.lanes

    def test_options_that_another_thread_sets_during_submission_are_for_the_next_frame(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start = DeviceStages.start

        def meanwhile(stages: DeviceStages, *batch: Any) -> None:
            pipeline.options = FusionOptions(output_resolution="network", lanes=True)
            start(stages, *batch)

        monkeypatch.setattr(DeviceStages, "start", meanwhile)
        first, second = frames(2, 7)
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            assert_same(pipeline(first), on_cpu([[first]])[0])
            result = pipeline(second)
        assert_same(result, on_cpu([[second]], pipeline.options)[0])
        assert result.lanes is not None and pipeline.options.lanes

    @pytest.mark.parametrize("resolution", ["native", "network"])
    def test_lane_boundaries_are_those_of_the_cpu(self, gpu: FakeGpu, model: Model, resolution: str) -> None:
        image = paint_mask(FlatRoad((-1.2, 1.1), width=0.16).draw())
        options = FusionOptions(output_resolution=resolution, lanes=True)
        frame = Frame(CameraImage.from_rgb(image))
        with Pipeline(engine_of(model), DRIVING, options) as pipeline:
            ours = pipeline(frame).lanes
        theirs = on_cpu([[frame]], options)[0].lanes
        assert ours is not None and theirs is not None and len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            assert (one.order, one.confidence, one.support) == (other.order, other.confidence, other.support)
            np.testing.assert_array_equal(one.points, other.points)

    def test_each_image_of_a_batch_has_its_own_lane_boundaries(self, gpu: FakeGpu, model: Model) -> None:
        batch = []
        for sides, scale in (((-1.2, 1.1), 1), ((-0.4, 2.0), 2), ((-2.0, 0.7), 1)):
            mask = FlatRoad(sides, width=0.16).draw().repeat(scale, 0).repeat(scale, 1)
            batch.append(Frame(CameraImage.from_rgb(paint_mask(mask))))
        options = FusionOptions(lanes=True)
        with Pipeline(engine_of(model, batch=3), DRIVING, options) as pipeline:
            ours = pipeline.submit(batch).wait()
        for one, other in zip(ours, on_cpu([batch], options), strict=True):
            assert one.lanes is not None and other.lanes is not None and len(one.lanes) == len(other.lanes) == 2
            for lane, expected in zip(one.lanes, other.lanes, strict=True):
                np.testing.assert_array_equal(lane.points, expected.points)


class TestLimitsOfTheKernels:
    def test_a_frame_beyond_them_is_done_by_the_cpu(self, gpu: FakeGpu, model: Model) -> None:
        gpu.header_flags = 1
        batches = [frames(3), frames(3, 50), frames(2, 70)]
        with Pipeline(engine_of(model, batch=3), DRIVING, OPTIONS) as pipeline:
            for one, other in zip(in_flight(pipeline, batches), on_cpu(batches), strict=True):
                assert_same(one, other)

    def test_more_instances_than_usual_are_fetched(self, gpu: FakeGpu, model: Model) -> None:
        image = paint(*SIZE, ground=3)
        image[..., 2] = 200  # a peak in every cell
        options = FusionOptions(score_threshold=0.0, min_instance_area=1, max_centers=2000)
        frame = Frame(CameraImage.from_rgb(image))
        with Pipeline(engine_of(model), DRIVING, options) as pipeline:
            ours = pipeline(frame)
        assert len(ours.instances) > 256
        assert ours.instances == on_cpu([[frame]], options)[0].instances

    def test_kernels_that_cannot_be_had_leave_the_rest_to_the_cpu(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from drive_seg.engines import kernels

        def no_compiler(capability: object, cache: object) -> bytes:
            raise EngineError("neither nvcc nor NVRTC")

        monkeypatch.setattr(kernels, "cubin", no_compiler)
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            frame = frames(1)[0]
            assert_same(pipeline(frame), on_cpu([[frame]])[0])
            assert "neither nvcc nor NVRTC" in pipeline.engine.info.reason
        assert "letterbox" not in gpu.launches

    def test_kernels_that_do_not_load_leave_the_rest_to_the_cpu_too(self, gpu: FakeGpu, model: Model) -> None:
        gpu.refuses = "module"
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            frame = frames(1)[0]
            assert_same(pipeline(frame), on_cpu([[frame]])[0])
            assert "cannot load the kernels: cuModuleGetFunction failed" in pipeline.engine.info.reason
        assert "letterbox" not in gpu.launches and not gpu.leaks


class TestMemory:
    def test_it_is_constant_once_every_camera_was_seen(self, gpu: FakeGpu, model: Model) -> None:
        with Pipeline(engine_of(model, batch=2), DRIVING, OPTIONS) as pipeline:
            batches = [[frame] for frame in frames(12)]
            in_flight(pipeline, batches)
            in_flight(pipeline, batches[1:])
            in_flight(pipeline, batches[2:])
            before = dict.fromkeys(gpu.memory), dict(gpu.pinned), dict(gpu.alive), gpu.pageable
            for _ in range(2):
                in_flight(pipeline, batches)
            assert before == (dict.fromkeys(gpu.memory), dict(gpu.pinned), dict(gpu.alive), gpu.pageable)

    def test_a_warm_pipeline_allocates_nothing_for_the_first_frames_in_any_slot(
        self, gpu: FakeGpu, model: Model
    ) -> None:
        with Pipeline(engine_of(model, batch=3), DRIVING, OPTIONS) as pipeline:
            pipeline.warm_up([Frame(CameraImage.from_rgb(picture(0)), f"camera{number}") for number in range(3)])
            taken = gpu.taken
            live = [Frame(CameraImage.from_rgb(picture(seed)), f"camera{seed % 3}") for seed in range(1, 10)]
            results = in_flight(pipeline, [live[:3], live[3:6], live[6:]])
            assert gpu.taken == taken
        for result, expected in zip(results, on_cpu([[frame] for frame in live]), strict=True):
            assert_same(result, expected)

    def test_a_folder_of_photographs_does_not_fill_the_gpu(self, gpu: FakeGpu, model: Model) -> None:
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            counts = []
            for number in range(30):
                pipeline(Frame(CameraImage.from_rgb(paint(160 + 2 * number, 96))))
                counts.append((len(gpu.memory), len(gpu.pinned), dict(gpu.alive)))
        assert counts[-1] == counts[18]

    @pytest.mark.parametrize("batch", [1, 3])
    def test_memory_that_runs_out_anywhere_leaves_nothing_behind(self, batch: int, gpu: FakeGpu, model: Model) -> None:
        def run(allowed: int | None) -> None:
            gpu.fail_after = allowed
            with Pipeline(engine_of(model, batch=batch), DRIVING, OPTIONS) as pipeline:
                pipeline.submit(frames(batch)).wait()

        run(None)
        needed = gpu.taken
        assert needed > 20
        for allowed in range(needed):
            with pytest.raises(EngineError, match="out of memory"):
                run(allowed)
            assert not gpu.leaks, f"after {allowed} allocations"

    def test_after_memory_ran_out_in_a_frame_the_next_frame_is_right(self, gpu: FakeGpu, model: Model) -> None:
        small, large = frames(2)
        large = Frame(CameraImage.from_rgb(paint(800, 600)))
        for allowed in range(100):
            gpu.fail_after = None
            with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
                pipeline(small)
                taken, gpu.fail_after, said = gpu.taken, allowed, ""
                try:
                    pipeline(large)
                except EngineError as error:
                    said = str(error)
                if not said:
                    assert gpu.taken - taken == allowed > 3, "every allocation was refused once"
                    return
                assert "out of memory (1024 of 81920 MiB free" in said
                held = len(gpu.memory) + len(gpu.pinned)
                with pytest.raises(EngineError):
                    pipeline(large)
                assert len(gpu.memory) + len(gpu.pinned) <= held, "each frame that fails leaves something"
                gpu.fail_after = None
                for frame in (small, large, small):
                    assert_same(pipeline(frame), on_cpu([[frame]])[0])
            assert not gpu.leaks
        raise AssertionError("a frame allocates without end")


class TestEnds:
    @pytest.mark.parametrize("in_work", [0, 1, 3])
    def test_it_may_be_closed_at_any_time_and_twice(self, in_work: int, gpu: FakeGpu, model: Model) -> None:
        pipeline = Pipeline(engine_of(model), DRIVING, OPTIONS)
        pending = [pipeline.submit([frame]) for frame in frames(in_work)]
        pipeline.close()
        pipeline.close()
        assert len(pending) == in_work and gpu.idle and not gpu.leaks

    def test_waiting_after_it_was_closed_is_an_error_and_touches_no_memory(self, gpu: FakeGpu, model: Model) -> None:
        pipeline = Pipeline(engine_of(model), DRIVING, OPTIONS)
        pending = pipeline.submit(frames(1))
        pipeline.close()
        with pytest.raises(EngineError, match="the pipeline is closed"):
            pending.wait()
        assert not gpu.leaks

    def test_the_primary_context_outlives_all_that_knew_it(self, gpu: FakeGpu, model: Model) -> None:
        """As when the process ends and modules are emptied."""
        engine_of(model).close()
        cuda._contexts.clear()
        gc.collect()
        assert not gpu.detached

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_two_engines_may_end_in_either_order(self, order: tuple[int, int], gpu: FakeGpu, model: Model) -> None:
        engines = [engine_of(model), engine_of(model)]
        pipelines = [Pipeline(engine, DRIVING, OPTIONS) for engine in engines]
        pipelines[order[0]].close()
        frame = frames(1)[0]
        assert_same(pipelines[order[1]](frame), on_cpu([[frame]])[0])
        pipelines[order[1]].close()
        assert not gpu.leaks

    def test_it_may_be_opened_used_and_closed_on_different_threads(self, gpu: FakeGpu, model: Model) -> None:
        made: dict[str, Any] = {}
        frame = frames(1)[0]

        def on_a_thread(step: Callable[[], None]) -> None:
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()

        on_a_thread(lambda: made.update(pipeline=Pipeline(engine_of(model), DRIVING, OPTIONS)))
        on_a_thread(lambda: made.update(result=made["pipeline"](frame)))
        assert_same(made["result"], on_cpu([[frame]])[0])
        assert gpu.alive["streams"] == 4 and gpu.alive["events"] == 8 * SLOTS and gpu.alive["modules"] == 1
        on_a_thread(made["pipeline"].close)
        assert not gpu.leaks, "streams, events and the module go with the engine, not with the last reference to it"

    def test_an_exception_that_is_kept_keeps_nothing_on_the_gpu(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its traceback has every frame that it came through, with the streams they were working on."""
        pipeline = Pipeline(engine_of(model), DRIVING, OPTIONS)

        def refuse(target: Any, address: int, stream: Any) -> None:
            raise gpu_error("cuMemcpyDtoHAsync failed: invalid argument")

        gpu_error = pipeline.engine.network.arena.driver.Error
        monkeypatch.setattr(pipeline.engine.network.arena.driver, "memcpy_dtoh_async", refuse)
        with pytest.raises(EngineError, match="invalid argument") as kept:
            pipeline(frames(1)[0])
        pipeline.close()
        assert not gpu.leaks and kept.value.__traceback__ is not None

    def test_one_engine_may_be_opened_while_another_captures_its_graph(self, gpu: FakeGpu, model: Model) -> None:
        """As when the node changes over: nothing may wait for the whole context meanwhile."""
        opened: list[Any] = []

        def elsewhere() -> None:
            gpu.during_capture = lambda: None
            thread = threading.Thread(target=lambda: opened.append(Pipeline(engine_of(model), DRIVING, OPTIONS)))
            thread.start()
            thread.join()

        gpu.during_capture = elsewhere
        frame = frames(1)[0]
        with Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            assert_same(pipeline(frame), on_cpu([[frame]])[0])
            assert gpu.launches.count("graph") == 1, "the capture was spoiled"
        assert len(opened) == 1
        with opened[0] as pipeline:
            assert_same(pipeline(frame), on_cpu([[frame]])[0])
        assert not gpu.leaks

    def test_a_failed_call_while_another_engine_captures_does_not_mean_that_the_gpu_is_lost(
        self, gpu: FakeGpu, model: Model
    ) -> None:
        told: list[BaseException] = []

        def elsewhere() -> None:
            gpu.during_capture = lambda: None
            try:
                with other.network.arena.active("try something"):
                    raise other.network.arena.driver.Error("cuSomething failed: invalid argument")
            except EngineError as error:
                told.append(error)

        with engine_of(model) as other, Pipeline(engine_of(model), DRIVING, OPTIONS) as pipeline:
            gpu.during_capture = elsewhere
            pipeline(frames(1)[0])
        assert [type(error) for error in told] == [EngineError]

    def test_a_lost_gpu_is_told_from_a_failed_frame(self, gpu: FakeGpu, model: Model) -> None:
        pipeline = Pipeline(engine_of(model), DRIVING, OPTIONS)
        pending = pipeline.submit(frames(1))
        gpu.lost = True
        with pytest.raises(EngineLost, match=r"GPU 0 is lost.*unspecified launch failure.*restart"):
            pending.wait()
        with pytest.raises(EngineLost):
            pipeline(frames(1)[0])
        pipeline.close()  # says nothing

    @pytest.mark.parametrize("unreachable", [False, True])
    def test_of_a_lost_gpu_nothing_is_freed(
        self, unreachable: bool, gpu: FakeGpu, model: Model, caplog: pytest.LogCaptureFixture
    ) -> None:
        """pycuda would warn of every stream, event and buffer, or end the process."""
        caplog.set_level(logging.CRITICAL)  # a kept record keeps its error, and that what it came through
        pipeline = Pipeline(engine_of(model), DRIVING, OPTIONS)
        pending = pipeline.submit(frames(1))
        gpu.lost, gpu.unreachable = True, unreachable
        with pytest.raises(EngineLost):
            pending.wait()
        del pending
        pipeline.close()
        del pipeline
        gc.collect()
        assert not gpu.futile

    def test_a_gpu_that_is_lost_while_nothing_is_done_is_closed_as_quietly(self, gpu: FakeGpu, model: Model) -> None:
        pipeline = Pipeline(engine_of(model, batch=2), DRIVING, OPTIONS)
        gpu.lost = True
        pipeline.close()
        del pipeline
        gc.collect()
        assert not gpu.futile

    def test_a_gpu_that_is_lost_while_the_kernels_load_is_not_one_without_kernels(
        self, gpu: FakeGpu, model: Model
    ) -> None:
        with engine_of(model) as engine:
            gpu.lost = True
            with pytest.raises(EngineLost, match="load the kernels"):
                Pipeline(engine, DRIVING, OPTIONS)

    def test_on_a_lost_gpu_no_engine_is_opened_again(self, gpu: FakeGpu, model: Model) -> None:
        """A node that is configured again in the same process."""
        engine_of(model).close()
        gpu.lost = True
        with pytest.raises(EngineLost, match="GPU 0 is lost: cannot load the engine"):
            engine_of(model)
        gc.collect()
        assert not gpu.futile

    def test_waiting_for_what_was_not_submitted_is_an_error(self, gpu: FakeGpu, model: Model) -> None:
        with engine_of(model) as engine:
            slot = engine.slots[0]
            for submitted in (False, True):
                if submitted:
                    slot.submit(1)
                    slot.wait()
                with pytest.raises(EngineError, match="not submitted"):
                    slot.wait()


class TestOpening:
    def test_a_plan_that_does_not_load_says_why(self, gpu: FakeGpu, model: Model) -> None:
        with pytest.raises(EngineError, match="magic tag does not match"):
            engine_of(model, content=b"garbage")
        assert not gpu.leaks

    def test_all_engines_of_a_process_have_one_logger(
        self, gpu: FakeGpu, model: Model, caplog: pytest.LogCaptureFixture
    ) -> None:
        """TensorRT keeps the first one that it was given, without a reference, for as long as there is any runtime."""
        first = engine_of(model)
        with engine_of(model):
            first.close()
            del first
            gc.collect()
            for _ in range(2):
                with pytest.raises(
                    EngineError, match=r"TensorRT cannot load the plan of [^:]*: magic tag does not match$"
                ):
                    engine_of(model, content=b"garbage")
        assert "differs from an existing one" not in caplog.text

    def test_a_network_that_fails_with_every_frame_fills_no_memory(self, gpu: FakeGpu, model: Model) -> None:
        with engine_of(model) as engine:
            for number in range(100):
                engine.network.said.logger.log(sys.modules["tensorrt"].ILogger.ERROR, f"failure {number}")
            assert engine.network.said.reason() == "failure 97 | failure 98 | failure 99"
            assert len(engine.network.said.logger.errors) == 3

    def test_a_runtime_that_cannot_be_made_is_an_error_that_auto_survives(
        self, gpu: FakeGpu, model: Model, tmp_path: Path
    ) -> None:
        gpu.refuses = "runtime"
        with pytest.raises(EngineError, match="cannot make a runtime: CUDA initialization failure"):
            engine_of(model)
        options = EngineOptions(cache_dir=tmp_path)
        key = key_here(model, options)
        PlanCache(tmp_path / "tensorrt").store(Plan(key, b"FAKE", {}))
        with open_engine(model, "auto", options) as engine:
            assert engine.info.backend != "tensorrt" and "cannot make a runtime" in engine.info.reason
        assert not gpu.leaks

    def test_a_plan_of_another_network_is_refused(self, gpu: FakeGpu, model: Model) -> None:
        named = dataclasses.replace(model, outputs=dataclasses.replace(model.outputs, centers="heat"))
        with pytest.raises(EngineError, match=r"has tensors \['centers'.*expected.*'heat'"):
            engine_of(named)
        with pytest.raises(EngineError, match=r"does not take \(1, 96, 192, 3\)"):
            engine_of(dataclasses.replace(model, width=192))
        assert not gpu.leaks

    def test_what_an_engine_is_not_is_said_by_the_command_that_makes_it(
        self, gpu: FakeGpu, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = Made(b"FAKE", b"", Agreement(8, 1.0, 0.0, 0.0, 0.0), "the rest is fp32")
        monkeypatch.setattr(planned, "make_in_child", lambda *_: made)
        ended = CliRunner().invoke(app, ["build-engine", "--model", str(model.path), "--cache", str(tmp_path)])
        assert ended.exit_code == 0 and ended.stdout.splitlines()[-1] == "the rest is fp32"

    def test_the_command_in_the_message_makes_the_engine_that_is_missing(
        self, gpu: FakeGpu, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        taller = dataclasses.replace(model, height=128)
        options = EngineOptions(cache_dir=tmp_path / "my engines", max_batch=2)
        with open_engine(taller, "auto", options) as engine:
            _, _, said = engine.info.reason.partition("make it with: drive_seg ")
        asked: list[tuple[Model, EngineOptions]] = []

        def plan_for(model: Model, options: EngineOptions, *_: object, **__: object) -> Plan:
            asked.append((model, options))
            raise EngineError("enough")

        monkeypatch.setattr("drive_seg.engines.planned.plan_for", plan_for)
        CliRunner().invoke(app, shlex.split(said.partition("; ")[0]))
        ((card, wanted),) = asked
        assert key_here(card, wanted) == key_here(taller, options)
        assert (wanted.cache_dir, wanted.gpu_id) == (options.cache_dir, options.gpu_id)

    def test_without_a_cache_no_folder_is_named_that_is_gone(self, gpu: FakeGpu, model: Model) -> None:
        with open_engine(model, "auto", EngineOptions(cache_dir=None)) as engine:
            assert "no cache folder" in engine.info.reason and "build-engine" not in engine.info.reason

    def test_auto_takes_tensorrt_when_its_plan_is_there(self, gpu: FakeGpu, model: Model, tmp_path: Path) -> None:
        options = EngineOptions(cache_dir=tmp_path)
        row = availability()[0]
        assert (row.backend, row.available, GPU.name in row.reason) == ("tensorrt", True, True)
        with open_engine(model, "auto", options) as engine:
            assert engine.info.backend != "tensorrt"
            assert "no engine of tiny 160x96 x1 fp32" in engine.info.reason
            assert "drive_seg build-engine" in engine.info.reason
        key = key_here(model, options)
        PlanCache(tmp_path / "tensorrt").store(Plan(key, b"FAKE", {}))
        with open_engine(model, "auto", options) as engine:
            assert (engine.info.backend, engine.info.precision) == ("tensorrt", "fp32")
            assert engine.info.device == "NVIDIA Fake (sm_90)" and engine.info.key == key.text
            assert engine.info.on_gpu
            slot = engine.slots[0]
            slot.input[0] = picture(1, SIZE)
            slot.submit(1)
            got = slot.wait()
            want = network(picture(1, SIZE)[None])
            for name in ("semantic", "confidence", "centers", "offsets"):
                np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        assert not gpu.leaks

    @pytest.mark.parametrize("package", ["tensorrt", "pycuda"])
    def test_what_is_missing_is_named_with_its_command(
        self, package: str, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = key_here(model, EngineOptions())
        for name in (package, f"{package}.driver"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingDependency, match=rf"{package}.*-m pip install 'tensorrt<12' 'pycuda>="):
            TrtEngine(Plan(key, b"FAKE", {}), model, EngineOptions())

    def test_what_is_too_old_is_said_before_anything_is_built(
        self, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """8.5 enqueues as 8.6 does, but its contexts cannot share a profile."""
        install(FakeGpu(network, SIZE, tensorrt="8.5.3.1"), monkeypatch)
        with pytest.raises(EngineError, match=r"8\.6 or newer is needed, got 8\.5\.3\.1"):
            key_here(model, EngineOptions())

    def test_an_empty_folder_called_tensorrt_is_not_taken_for_it(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """What an uninstalled package may leave, or our cache's where the process was started in it."""
        (tmp_path / "tensorrt").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "tensorrt")
        with pytest.raises(EngineError, match="newer is needed, got a folder"):
            key_here(model, EngineOptions())


class TestOldTensorRT:
    """8.6, where contexts share a profile only if the plan was built for that, and if they ask for it."""

    @pytest.fixture
    def gpu(self, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
        gpu = FakeGpu(network, SIZE, tensorrt="8.6.0")
        install(gpu, monkeypatch)
        return gpu

    def test_every_slot_takes_full_and_odd_batches_of_what_the_compiler_asks_for(
        self, gpu: FakeGpu, model: Model
    ) -> None:
        plan = Release(8).compile().plan
        batches = [frames(size, 10 * number) for number, size in enumerate([4, 1, 4, 4, 2, 4])]
        with Pipeline(engine_of(model, batch=4, content=plan), DRIVING, OPTIONS) as pipeline:
            for one, other in zip(in_flight(pipeline, batches), on_cpu(batches), strict=True):
                assert_same(one, other)
        assert not gpu.leaks

    @pytest.mark.parametrize("batch", [1, 4])
    def test_the_gate_refuses_a_plan_of_which_only_one_context_works(
        self, batch: int, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(builder, "compile_plan", lambda *_: Compiled(b"FAKE", b""))
        monkeypatch.setattr(builder, "compute", lambda *_: reference_of_fake())
        job = Job(model, key_here(model, EngineOptions(precision="fp32", max_batch=batch)), 0)
        with pytest.raises(EngineError, match=f"refuses a batch of {batch}: .*no optimization profile"):
            builder.make(job, lambda *_: None)
        assert not gpu.leaks


def reference_of_fake() -> Reference:
    """What the fake's network says on three frames."""
    images = [picture(seed, SIZE) for seed in range(3)]
    return Reference(images, [network(image[None]) for image in images], "")


class TestBuilding:
    """The builder's process from inside, and the node's way to a better engine; only TensorRT's builder is replaced."""

    @pytest.fixture(autouse=True)
    def compiled(self, gpu: FakeGpu, model: Model, drives: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(builder, "compile_plan", lambda *_: Compiled(b"FAKE plan", b"times", "a note"))
        monkeypatch.setattr(builder, "simulated_frames", lambda of: [drive.copy() for drive in drives])
        ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        session = ort.InferenceSession(str(model.graph("fp32")), providers=["CPUExecutionProvider"])
        names = ["semantic", "confidence", "centers", "offsets"]
        gpu.network = lambda batch: RawOutputs(*session.run(names, {"image": batch}))

    def test_a_new_engine_is_run_and_compared(self, gpu: FakeGpu, model: Model) -> None:
        job = Job(model, key_here(model, EngineOptions(max_batch=2)), 0)
        said: list[str] = []
        made = builder.make(job, lambda phase, *_: said.append(phase))
        assert (made.plan, made.timing, made.note, made.agreement.frames) == (b"FAKE plan", b"times", "a note", 8)
        judge(job.key, made.agreement)
        assert said == ["getting what the fp32 network says", "comparing with the fp32 network"] and not gpu.leaks
        assert gpu.launches.count("graph") == SLOTS * 8 / 2, "the gate runs full batches in every slot"
        right = gpu.network
        gpu.network = lambda batch: right(batch[:, ::-1].copy())
        with pytest.raises(EngineError, match="disagrees with the fp32 network on 8 frames"):
            judge(job.key, builder.make(job, lambda *_: None).agreement)
        assert not gpu.leaks

    @pytest.mark.parametrize("given", [True, False])
    def test_nothing_is_compiled_where_there_is_nothing_to_compare_with(
        self, given: bool, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Compiling takes minutes, after which the engine would be thrown away."""

        def nobody(*_: object) -> Reference:
            raise EngineError("the fp32 network cannot be run for comparison")

        compiled: list[object] = []
        monkeypatch.setattr(builder, "compile_plan", lambda *_: compiled.append(1) or Compiled(b"FAKE plan", b"times"))
        monkeypatch.setattr(builder, "compute", nobody)
        job = Job(model, key_here(model, EngineOptions()), 0, reference=tmp_path / "not_there.npz" if given else None)
        with pytest.raises(EngineError, match="no reference that drive_seg wrote" if given else "cannot be run"):
            builder.make(job, lambda *_: None)
        assert not compiled

    def test_one_bad_image_of_a_full_batch_is_enough_to_be_refused(self, gpu: FakeGpu, model: Model) -> None:
        job = Job(model, key_here(model, EngineOptions(max_batch=4)), 0)
        right = gpu.network

        def wrong_in_the_last_place(batch: Any) -> RawOutputs:
            batch = batch.copy()
            batch[3:] = batch[3:, ::-1]
            return right(batch)

        gpu.network = wrong_in_the_last_place
        with pytest.raises(EngineError, match="disagrees with the fp32 network"):
            judge(job.key, builder.make(job, lambda *_: None).agreement)

    def test_it_is_compiled_on_the_gpu_that_was_asked_for(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[int] = []
        current: list[bool] = []

        def watched(arena: Arena, gpu_id: int, make: Any = Arena.__init__) -> None:
            opened.append(gpu_id)
            make(arena, 0)  # the fake has but one

        def compile_plan(*_: object) -> Compiled:
            current.append(opened == [1] and getattr(gpu.stack, "depth", 0) == 1)
            return Compiled(b"FAKE plan", b"times")

        monkeypatch.setattr(Arena, "__init__", watched)
        monkeypatch.setattr(builder, "compile_plan", compile_plan)
        builder.make(Job(model, key_here(model, EngineOptions(gpu_id=1)), 1), lambda *_: None)
        assert current == [True], "its context must be current while TensorRT compiles"

    def test_a_plan_that_tensorrt_does_not_take_is_built_again(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        built = []

        def here(job: Job, progress: Any, cancelled: Any) -> Made:
            built.append(job.key)
            return builder.make(job, progress)

        monkeypatch.setattr(planned, "make_in_child", here)
        options = EngineOptions(cache_dir=tmp_path)
        key, cache = key_here(model, options), PlanCache(tmp_path / "tensorrt")

        cache.store(Plan(key, b"of another machine", {}))
        with open_engine(model, "auto", options) as engine:
            assert engine.info.backend != "tensorrt" and "no engine of" in engine.info.reason
        assert not built and cache.load(key) is None

        cache.store(Plan(key, b"of another machine", {}))
        with open_engine(model, "tensorrt", options) as engine:
            assert engine.info.backend == "tensorrt"
        assert built == [key]

        gpu.refuses = "memory"
        with pytest.raises(EngineError, match="out of memory"):
            open_engine(model, "tensorrt", options)
        assert cache.load(key) is not None, "nothing is wrong with it"

    def test_a_new_plan_that_tensorrt_does_not_take_is_an_error_where_nothing_is_kept(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bad = Made(b"of another machine", b"", Agreement(8, 1.0, 0.0, 0.0, 0.0))
        monkeypatch.setattr(planned, "make_in_child", lambda *_: bad)
        with pytest.raises(PlanRefused, match="magic tag does not match"):
            open_engine(model, "tensorrt", EngineOptions(cache_dir=None))
        assert not gpu.leaks

    def test_auto_is_led_to_tensorrt_by_the_node(
        self, gpu: FakeGpu, model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        pytest.importorskip("rclpy", reason="rclpy is not installed")
        pytest.importorskip("vision_msgs", reason="vision_msgs is not installed")
        from drive_seg.ros.opening import improve

        def here(job: Job, progress: Any, cancelled: Any) -> Made:
            return builder.make(job, progress)

        monkeypatch.setattr(planned, "make_in_child", here)
        config = dataclasses.replace(
            load(lambda parameter: parameter.default), model=str(model.path), engine_cache_dir=str(tmp_path)
        )

        def serving(backend: str) -> Any:
            info = EngineInfo(backend, "bf16", "a device", "1")
            return SimpleNamespace(engine=SimpleNamespace(info=info), network_size=SIZE)

        cpu = serving("openvino")
        assert improve(dataclasses.replace(config, backend="openvino"), cpu, fresh, ()) is None
        assert improve(config, serving("tensorrt"), fresh, ()) is None
        better = improve(config, cpu, fresh, ())
        assert better is not None
        with better.make(lambda *_: None, lambda: False) as pipeline:
            assert pipeline.engine.info.backend == "tensorrt"
            frame = frames(1)[0]
            with Pipeline(open_engine(model, "onnxruntime"), DRIVING) as reference:
                np.testing.assert_array_equal(pipeline(frame).panoptic, reference(frame).panoptic)
        with open_engine(model, "auto", EngineOptions(cache_dir=tmp_path)) as engine:
            assert engine.info.backend == "tensorrt", "next time it is there at once"


def test_a_cpu_pipeline_is_as_it_was(model: Model) -> None:
    """Engines without stages of their own are served by the CPU's."""
    seen: list[RawOutputs] = []

    def watched(batch: Any) -> RawOutputs:
        seen.append(network(batch))
        return seen[-1]

    with Pipeline(FunctionEngine(watched, SIZE), DRIVING, OPTIONS) as pipeline:
        result = pipeline(frames(1)[0])
        assert isinstance(pipeline._stages, HostStages)
        assert result.times.gpu_inference is None and len(seen) == 1
    assert fresh(frames(1)[0], "mask", (2, 3), np.uint8).shape == (2, 3)
