"""What is measured on the GPU: our engine at every size and precision, beside the bare network and what others do."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drive_seg.benchmark import ReusedBuffers
from drive_seg.decode import decode_rgb
from drive_seg.engines.compiler import BuildProgress
from drive_seg.engines.driver import find_gpu
from drive_seg.engines.planned import plan_for
from drive_seg.engines.protocol import EngineOptions
from drive_seg.engines.reference import yardstick
from drive_seg.engines.trt import TrtEngine
from drive_seg.engines.trt_library import load_tensorrt
from drive_seg.errors import DriveSegError, EngineError
from drive_seg.frame import CameraImage, Frame
from drive_seg.gpu_benchmark.latency import WARM_UP, host_to_host
from drive_seg.gpu_benchmark.record import Record
from drive_seg.gpu_benchmark.sample import SampleEngine
from drive_seg.gpu_benchmark.work import Peaks, count
from drive_seg.machine import hardware
from drive_seg.model import Model
from drive_seg.network_size import size_of
from drive_seg.pipeline import Pipeline
from drive_seg.preprocess import Preprocessor
from drive_seg.telemetry import Percentiles, Stopwatch

SIZES = ((640, 384), (960, 544), (1920, 1088))
"""Network sizes; 1088 is the first multiple of 32 that holds 1080 lines."""
PRECISIONS = ("fp32", "fp16", "int8")
CAMERAS = 4
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Case:
    """One engine."""

    size: tuple[int, int]
    precision: str
    batch: int

    @property
    def name(self) -> str:
        """``960x544 fp16 x4``."""
        return f"{self.size[0]}x{self.size[1]} {self.precision} x{self.batch}"

    @classmethod
    def named(cls, name: str) -> Case:
        """The one of this name."""
        size, precision, batch = name.split()
        return cls(size_of(size), precision, int(batch.removeprefix("x")))


def cases(sizes: Sequence[tuple[int, int]] = SIZES, precisions: Sequence[str] = PRECISIONS) -> list[Case]:
    """One camera at every size and precision, four cameras in the middle precision: fp16 is what is deployed."""
    return [
        Case(size, precision, batch)
        for size in sizes
        for precision in precisions
        for batch in ((1, CAMERAS) if precision == "fp16" else (1,))
    ]


def measure(
    model: Model,
    images: Sequence[CameraImage],
    frames: int,
    wanted: Sequence[Case],
    file: Path,
    options: EngineOptions,
    torch_python: str,
    say: Say,
) -> dict[str, Any]:
    """Measure what ``file`` does not have yet; it and the page beside it are written after every step, so that a long
    run can be cut in pieces.

    Args:
        images: decoded camera images of one size.
        torch_python: the Python that has torch and ONNX Runtime; ours where that is empty.
        say: progress.

    Raises:
        EngineError: no GPU, or the file is of another machine, TensorRT or model.
    """
    about = asdict(find_gpu(options.gpu_id))
    about["capability"] = list(about["capability"])
    del about["pci"]  # a machine that is lent again is another one of its kind
    machine = {
        **hardware(),
        "gpu": about,
        "tensorrt": load_tensorrt(options.gpu_id)[0].__version__,
        "model": f"{model.name} {model.onnx[yardstick(model)].sha256[:12]}",
        "input": [images[0].width, images[0].height],
        "frames": frames,
    }
    record = Record(file, machine, shlex.join(["drive_seg", *sys.argv[1:]]))
    done, torch = record.results["cases"], record.results["torch"]
    # One whole size after the other, ours first: time on a GPU may be lent, and compiling takes torch minutes.
    steps: list[Case | tuple[int, int]] = []
    for size in dict.fromkeys(case.size for case in wanted):
        steps += [*(case for case in wanted if case.size == size), size]
    steps.sort(key=lambda step: record.begun(_name(step)))
    for number, step in enumerate(steps):
        say(_name(step), number, len(steps))
        if isinstance(step, Case):
            if "error" in done.get(step.name, {"error": ""}):
                record.begin(_name(step), done.setdefault(step.name, {}), "error")
                progress = partial(_say_phase, say, step.name, number, len(steps))
                done[step.name] = _result(step, model, images, frames, options, torch_python, file.parent, progress)
        elif f"compiled {step[0]}x{step[1]}" not in torch:
            why = f"why {step[0]}x{step[1]}"
            record.begin(_name(step), torch, why)
            reasons = []
            for name, value in ask_torch(torch_python, images, frames, step):
                if name == "why":
                    reasons.append(value)
                elif name != "peaks" or "peaks" not in torch:  # the shares are of the first
                    torch[name] = value
                    record.keep()
            del torch[why]
            if reasons:
                torch[why] = "; ".join(reasons)
        for name, found in done.items():  # also of former runs, which may have had no peaks
            case = Case.named(name)
            _add_shares(found, _sized(model, case), case, case.batch * images[0].data.size, torch)
        record.keep()
    return record.results


def _say_phase(say: Say, step: str, number: int, steps: int, phase: str, done: int, total: int) -> None:
    """A ``BuildProgress`` within a step: an engine takes minutes."""
    say(f"{step}: {phase}", number, steps)


def _name(step: Case | tuple[int, int]) -> str:
    return step.name if isinstance(step, Case) else f"torch at {step[0]}x{step[1]}"


def _sized(model: Model, case: Case) -> Model:
    return replace(model, width=case.size[0], height=case.size[1])


def _result(
    case: Case,
    model: Model,
    images: Sequence[CameraImage],
    frames: int,
    options: EngineOptions,
    torch_python: str,
    folder: Path,
    progress: BuildProgress,
) -> dict[str, Any]:
    """The figures, or the ``error``: an engine that cannot be had must not cost the others, nor must a bug of ours."""
    try:
        sized = _sized(model, case)
        reference = reference_of(sized, torch_python, options.cache_dir or folder)
        return measure_case(case, sized, images, frames, options, reference, progress)
    except DriveSegError as error:
        return {"error": str(error)}
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}


def _add_shares(found: dict[str, Any], model: Model, case: Case, up_bytes: int, torch_figures: dict[str, Any]) -> None:
    """As soon as the peaks are known; what was measured counts without them."""
    if {"error", "uncounted", "roofline_ms"} & found.keys():
        return
    if "gflop" in found and "peaks" not in torch_figures:
        return
    try:
        found |= shares(model, case, found["gpu_ms"], up_bytes, torch_figures)
    except DriveSegError as error:
        found["uncounted"] = str(error)
    except Exception as error:  # noqa: BLE001 - as of onnx, to which a graph may be new; the figures count
        found["uncounted"] = f"{type(error).__name__}: {error}"


def measure_case(
    case: Case,
    model: Model,
    images: Sequence[CameraImage],
    frames: int,
    options: EngineOptions,
    reference: Path | None = None,
    progress: BuildProgress | None = None,
) -> dict[str, Any]:
    """One engine: bare, ours one frame at a time, ours with every slot busy, the sample; memory.

    Args:
        model: at the size of the case.
        reference: for the accuracy gate, see ``reference_of``.
        progress: of building the engine.
    """
    settings = replace(options, precision=case.precision, max_batch=case.batch)
    plan = plan_for(model, settings, progress, reference=reference)
    with TrtEngine(plan, model, settings) as first:  # what CUDA loads with the first batch is no engine's
        _bare(first, images, 1)
    before = _free_mb(options.gpu_id)
    found: dict[str, Any] = {"plan": plan.key.text, **{name: plan.notes[name] for name in ("seconds", "agreement")}}
    with Pipeline(TrtEngine(plan, model, settings), model.labels, allocate=ReusedBuffers()) as pipeline:
        engine = pipeline.engine
        if not isinstance(engine, TrtEngine):
            raise EngineError(f"expected the TensorRT engine, got {engine.info.backend}")
        found["bare"] = _figures(_bare(engine, images, frames))
        latency, found["gpu_ms"] = _latency(pipeline, images, frames, case.batch)
        found["ours"] = _figures(latency)
        found["fps"] = _throughput(pipeline, images, frames, case.batch)
        uncaptured = [slot.uncaptured for slot in engine.slots]
        found["memory_mb"] = round(before - _free_mb(options.gpu_id), 1)
        known = plan.notes.get("note"), engine.info.reason, next(filter(None, uncaptured), "")
        if notes := [*filter(None, known)]:
            found["note"] = "; ".join(notes)
        if case.batch == 1:
            with Pipeline(SampleEngine(engine), model.labels, allocate=ReusedBuffers()) as sample:
                found["sample"] = _figures(host_to_host(sample, images, frames, WARM_UP))
    return found


def reference_of(model: Model, python: str, folder: Path) -> Path | None:
    """What the fp32 network says at this size, written by ``python`` where this one cannot run it; else None.

    Raises:
        EngineError: neither can.
    """
    if any(importlib.util.find_spec(name) for name in ("onnxruntime", "openvino")):
        return None
    path = folder / f"reference-{model.onnx[yardstick(model)].sha256[:12]}-{model.width}x{model.height}.npz"
    if not path.is_file():
        size = f"{model.width}x{model.height}"
        command = ["-m", "drive_seg.engines.reference", "--model", str(model.path), "--size", size, "--out", str(path)]
        ended = _other_python(python, command)
        if ended.returncode:
            raise EngineError(f"no fp32 answers at {size} for the accuracy gate: {_last_line(ended.stderr)}")
    return path


def shares(
    model: Model, case: Case, gpu_ms: dict[str, float], up_bytes: int, torch_figures: dict[str, Any]
) -> dict[str, Any]:
    """How near to what the machine can do at best, where its peaks were measured.

    Args:
        gpu_ms: by stage; empty where the CPU does letterbox and fusion, because events are read by the GPU's stages.
    """
    graph = model.onnx["int8" if case.precision == "int8" else model.precisions[0]].path.read_bytes()
    work = count(graph, case.batch, case.size)
    found: dict[str, Any] = {
        "gflop": round(work.flops / 1e9, 3),
        "mb": round(work.bytes(case.precision) / 1e6, 1),
    }
    if "peaks" in torch_figures:
        peaks = Peaks(**torch_figures["peaks"])
        least_ms = 1e3 * work.least_seconds(case.precision, peaks)
        found["roofline_ms"] = round(least_ms, 4)
        if gpu_ms:
            found["roofline_share"] = round(least_ms / gpu_ms["gpu_inference"], 4)
            found["pcie_share"] = round(up_bytes / peaks.h2d * 1e3 / gpu_ms["gpu_h2d"], 4)
    return found


def ask_torch(
    python: str, images: Sequence[CameraImage], frames: int, size: tuple[int, int]
) -> Iterator[tuple[str, Any]]:
    """The figures of ``drive_seg.network.torch_speed`` from the Python that has torch, by name; ``why`` says why one is
    missing. Each comes as soon as it is known: compiling takes minutes, and the run may be cut meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="drive_seg_torch_") as folder:
        pictures, noise = Path(folder) / "frames.npy", Path(folder) / "noise"
        np.save(pictures, np.stack([decode_rgb(image) for image in images]))
        command = ["-m", "drive_seg.network.torch_speed", str(pictures), str(frames), f"{size[0]}x{size[1]}"]
        with noise.open("w+", encoding="utf-8", errors="replace") as errors:
            try:
                torch = subprocess.Popen(
                    [python or sys.executable, *command],
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=_environment(python),
                )
            except OSError as error:
                yield "why", f"{python} cannot be run: {error}"
                return
            with torch:
                try:
                    assert torch.stdout is not None
                    for line in torch.stdout:
                        yield from _said(line).items()
                except BaseException:
                    torch.kill()
                    raise
            if torch.returncode:
                errors.seek(0)
                yield (
                    "why",
                    f"{python or 'this Python'} ended with code {torch.returncode}: {_last_line(errors.read())}",
                )


def _said(line: str) -> dict[str, Any]:
    """What a line of ``torch_speed`` says; nothing where it is a library's own words."""
    with suppress(ValueError):
        if isinstance(figures := json.loads(line), dict):
            return figures
    return {}


def _other_python(python: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run ``python``, or this one where it is empty, without what was put on the paths of this one."""
    try:
        return subprocess.run(
            [python or sys.executable, *arguments], capture_output=True, text=True, env=_environment(python)
        )
    except OSError as error:
        raise EngineError(f"{python} cannot be run: {error}") from error


def _environment(python: str) -> dict[str, str]:
    own = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])} if python else {}
    return {key: value for key, value in os.environ.items() if not (python and key.startswith("PYTHON"))} | own


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _bare(engine: TrtEngine, images: Sequence[CameraImage], frames: int) -> Percentiles:
    """Copies and network of letterboxed frames that are in page-locked memory already."""
    slot = engine.slots[0]
    letterbox = Preprocessor((engine.network.model.width, engine.network.model.height))
    for index, place in enumerate(slot.input):
        letterbox(images[index % len(images)], place)
    taken = np.zeros(frames)
    for number in range(-WARM_UP, frames):
        watch = Stopwatch()
        slot.submit(engine.network.max_batch)
        slot.wait()
        taken[max(number, 0)] = watch.lap()
    return _percentiles(taken)


def _latency(
    pipeline: Pipeline, images: Sequence[CameraImage], frames: int, batch: int
) -> tuple[Percentiles, dict[str, float]]:
    """Camera pixels to native maps, a batch at a time; and the median of what the GPU spent on it."""
    taken = np.zeros(frames)
    stages: dict[str, list[float]] = {}
    for number in range(-WARM_UP, frames):
        watch = Stopwatch()
        results = pipeline.submit(_batch(images, number, batch)).wait()
        taken[max(number, 0)] = watch.lap()
        if number >= 0:
            for stage, ms in asdict(results[0].times).items():
                if stage.startswith("gpu_") and ms is not None:
                    stages.setdefault(stage, []).append(ms)
    return _percentiles(taken), {stage: round(float(np.median(values)), 4) for stage, values in stages.items()}


def _throughput(pipeline: Pipeline, images: Sequence[CameraImage], frames: int, batch: int) -> float:
    """Images per second with every slot busy."""
    flying = [pipeline.submit(_batch(images, number, batch)) for number in range(pipeline.slots)]
    watch = Stopwatch()
    for number in range(frames):
        flying.pop(0).wait()
        flying.append(pipeline.submit(_batch(images, number, batch)))
    seconds = watch.lap() / 1e3
    for pending in flying:
        pending.wait()
    return round(frames * batch / seconds, 1)


def _batch(images: Sequence[CameraImage], number: int, batch: int) -> list[Frame]:
    return [Frame(images[(number * batch + camera) % len(images)], f"camera{camera}") for camera in range(batch)]


def _percentiles(taken: Any) -> Percentiles:
    found = Percentiles.of(taken)
    if found is None:
        raise EngineError("at least one frame must be measured")
    return found


def _figures(found: Percentiles) -> dict[str, float]:
    return {"p50": round(found.p50, 4), "p99": round(found.p99, 4)}


def _free_mb(gpu_id: int) -> float:
    from drive_seg.engines.cuda import Arena

    arena = Arena(gpu_id)
    with arena.active("ask for free memory"):
        free = float(arena.driver.mem_get_info()[0]) / 2**20
    arena.close()
    return free
