"""Every CPU backend gives the same answers for the shipped model, and says clearly what it cannot do."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from drive_seg import open_pipeline
from drive_seg.engines import BACKENDS, EngineOptions, FunctionEngine, availability, open_engine
from drive_seg.engines.instructions import has_vnni
from drive_seg.engines.threads import CpuShare, cpu_share, cpu_threads
from drive_seg.errors import ConfigError, EngineError, MissingDependency, ModelError
from drive_seg.frame import CameraImage, Frame, PanopticResult, RawOutputs
from drive_seg.model import Model, load_model
from drive_seg.offline.opening import open_offline
from drive_seg.pipeline import Pipeline
from drive_seg.postprocess import FusionOptions
from drive_seg.resources import find_model
from drive_seg.sim import Simulator

CPU_BACKENDS = [row.backend for row in availability() if row.available and row.backend != "tensorrt"]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(find_model("default"))


@pytest.fixture(scope="module")
def scenes() -> list[NDArray[np.uint8]]:
    return [Simulator(seed, 1280, 720).frame(40).image for seed in range(9000, 9012)]


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def backend_results(request: pytest.FixtureRequest, scenes: list[NDArray[np.uint8]]) -> Iterator[list[PanopticResult]]:
    with open_pipeline(backend=request.param, cache_dir=None) as pipeline:
        yield [pipeline(scene) for scene in scenes]


@pytest.fixture(scope="module")
def small_scenes() -> list[NDArray[np.uint8]]:
    """Pictures of the network's own size."""
    return [Simulator(seed, 640, 384).frame(30).image for seed in range(3)]


@pytest.fixture(scope="module", params=CPU_BACKENDS)
def in_fp32(request: pytest.FixtureRequest, small_scenes: list[NDArray[np.uint8]]) -> tuple[str, NDArray[np.uint8]]:
    """A backend, and its masks of the small scenes."""
    return request.param, masks_of(small_scenes, request.param, "fp32")


def masks_of(scenes: list[NDArray[np.uint8]], backend: str, precision: str) -> NDArray[np.uint8]:
    with open_pipeline(backend=backend, precision=precision, cache_dir=None) as pipeline:
        assert pipeline.engine.info.precision == precision
        return np.stack([pipeline(scene).mask for scene in scenes])


@pytest.fixture(scope="module")
def reference(scenes: list[NDArray[np.uint8]]) -> list[PanopticResult]:
    with open_pipeline(backend="onnxruntime", precision="fp32") as pipeline:
        return [pipeline(scene) for scene in scenes]


def test_labels_agree_across_backends(backend_results: list[PanopticResult], reference: list[PanopticResult]) -> None:
    agree = np.mean([(a.mask == b.mask).mean() for a, b in zip(backend_results, reference, strict=True)])
    assert agree >= 0.995


def test_instances_match_across_backends(
    backend_results: list[PanopticResult], reference: list[PanopticResult]
) -> None:
    """Instances that are no borderline cases of a threshold have their partners: same class, same pixels.

    Not quite all: of two neighbouring weak peaks of nearly equal heat, rounding decides whether one survives the other.
    """
    options, pairs, alone = FusionOptions(), 0, []
    for ours, theirs in zip(backend_results, reference, strict=True):
        for one, other in ((ours, theirs), (theirs, ours)):
            for instance in one.instances:
                if instance.score < options.score_threshold + 0.1 or instance.area < 4 * options.min_instance_area:
                    continue
                pixels = one.panoptic == instance.panoptic_id
                partners = [i for i in other.instances if i.class_id == instance.class_id]
                overlap = [
                    (pixels & (other.panoptic == i.panoptic_id)).sum()
                    / (pixels | (other.panoptic == i.panoptic_id)).sum()
                    for i in partners
                ]
                pairs += 1
                if max(overlap, default=0.0) < 0.7:
                    alone.append(f"{instance} has no partner among {partners}")
    assert pairs >= 100 and len(alone) <= 0.03 * pairs, alone


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_batch_gives_what_single_frames_give(backend: str, scenes: list[NDArray[np.uint8]]) -> None:
    frames = [Frame(CameraImage.from_rgb(scene), camera=f"c{i}") for i, scene in enumerate(scenes[:3])]
    with open_pipeline(backend=backend, precision="fp32", max_batch=3) as pipeline:
        together = pipeline.submit(frames).wait()
        for frame, result in zip(frames, together, strict=True):
            assert result.frame is frame
            alone = pipeline(frame)
            assert (alone.mask == result.mask).mean() >= 0.999


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_cache_that_cannot_be_made_costs_no_engine(backend: str, tmp_path: Path, model: Model) -> None:
    (tmp_path / "file").write_text("in the way, as a disk that is read-only would be")
    with open_engine(model, backend, EngineOptions(cache_dir=tmp_path / "file/cache")) as engine:
        assert engine.info.backend == backend


def test_the_cache_does_not_grow_for_ever(tmp_path: Path, model: Model) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    cache = tmp_path / "openvino"
    cache.mkdir()
    for age in range(50):
        (cache / f"{age}.blob").write_bytes(b"of another model")
        os.utime(cache / f"{age}.blob", (time.time() - 1000 - age,) * 2)
    for _ in range(2):
        with open_engine(model, "openvino", EngineOptions(cache_dir=tmp_path)):
            names = {blob.stem for blob in cache.glob("*.blob")}
        others = names & {str(age) for age in range(50)}
        assert others == {str(age) for age in range(31)} and len(names) == 32, "the latest, and its own"


def test_a_user_without_a_home_has_an_engine_without_a_cache(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(RuntimeError):
        Path("~").expanduser()
    with open_pipeline(model.path) as pipeline:
        assert pipeline.engine.info.backend


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_engine_reports_to_nobody(backend: str, tmp_path: Path) -> None:
    """Reporters begin with an id in the home folder, and OpenVINO's with a process of its own."""
    switches = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in switches}
    opening = (
        "import multiprocessing, sys, time; from drive_seg import open_pipeline\n"
        "with open_pipeline(backend=sys.argv[1], cache_dir=None):\n"
        "    time.sleep(0.5); print(len(multiprocessing.active_children()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", opening, backend],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == []


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("how", ["end()", "thread = Thread(target=end); thread.start(); thread.join()"])
def test_a_signal_after_engines_were_closed_is_a_signal(backend: str, how: str) -> None:
    """OpenVINO's CPU plugin lends the thread that loads it a stack for signals."""
    program = f"""
import signal
from threading import Thread
from drive_seg import open_pipeline
pipelines = [open_pipeline(backend="{backend}", cache_dir=None) for _ in range(2)]
def end():
    while pipelines:
        pipelines.pop(0).close()
{how}
signal.signal(signal.SIGINT, lambda number, frame: print("taken"))
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "taken\n"), done.stderr


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_an_engine_in_a_forked_process_says_that_it_cannot_be_used_there(backend: str) -> None:
    """Its threads stay behind: a batch was waited for without end."""
    program = f"""
import os, signal
from drive_seg.engines import EngineOptions, open_engine
from drive_seg.errors import EngineError
from drive_seg.model import open_model
engine = open_engine(open_model("default"), "{backend}", EngineOptions(cache_dir=None))
engine.slots[1].submit(1)
child = os.fork()
if not child:
    signal.alarm(60)
    for use in (lambda: engine.slots[0].submit(1), engine.slots[1].wait):
        try:
            use()
        except EngineError as error:
            print(error, flush=True)
    engine.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(len(engine.slots[1].wait().semantic))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    *refused, parent = done.stdout.splitlines()
    assert len(refused) == 2 and all("open one in each process" in line for line in refused) and parent == "1"


def test_auto_says_what_it_passed_over_and_why(model: Model) -> None:
    with open_engine(model) as engine:
        passed = BACKENDS[: BACKENDS.index(engine.info.backend)]
        assert all(name in engine.info.reason for name in passed)
        assert engine.info.version


def test_a_backend_that_cannot_be_had_is_an_error_that_says_so(model: Model) -> None:
    with pytest.raises(ConfigError, match="backend must be auto or one of tensorrt"):
        open_engine(model, "cuda")
    for row in availability():
        if not row.available:
            with pytest.raises((EngineError, MissingDependency), match=row.backend):
                open_engine(model, row.backend)


def test_a_precision_without_graph_names_those_there_are(model: Model) -> None:
    only = dataclasses.replace(model, onnx={"fp32": model.onnx["fp32"]})
    with pytest.raises(ModelError, match="no int8 graph, it has fp32"):
        open_engine(only, "auto", EngineOptions(precision="int8"))


@pytest.mark.parametrize(("precision", "agreement"), [("fp16", 0.995), ("int8", 0.97)])
def test_lower_precisions_agree_with_fp32(
    precision: str, agreement: float, in_fp32: tuple[str, NDArray[np.uint8]], small_scenes: list[NDArray[np.uint8]]
) -> None:
    backend, expected = in_fp32
    assert (masks_of(small_scenes, backend, precision) == expected).mean() > agreement


@pytest.mark.skipif("openvino" not in CPU_BACKENDS, reason="openvino is not installed")
def test_openvino_takes_int8_where_the_processor_is_made_for_it_but_not_for_bf16(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    floats = dataclasses.replace(model, onnx={"fp32": model.onnx["fp32"]})
    monkeypatch.setattr("drive_seg.engines.openvino.has_vnni", lambda: True)
    with open_engine(model, "openvino") as engine:
        assert engine.info.precision in ("bf16", "int8")
    monkeypatch.setattr("drive_seg.engines.openvino.has_bf16", lambda core: False)
    for able, card, expected in ((True, model, "int8"), (True, floats, "fp32"), (False, model, "fp32")):
        monkeypatch.setattr("drive_seg.engines.openvino.has_vnni", lambda able=able: able)
        with open_engine(card, "openvino") as engine:
            assert engine.info.precision == expected
    monkeypatch.setattr("drive_seg.engines.openvino.has_vnni", lambda: True)
    with open_engine(model, "openvino", EngineOptions(precision="fp32")) as engine:
        assert engine.info.precision == "fp32"


@pytest.mark.parametrize(
    ("flags", "able"), [("fpu avx2 avx512_vnni sse", True), ("avx_vnni", True), ("avx2 avx512f", False), (None, False)]
)
def test_processors_with_8_bit_sums_are_known_by_their_flags(flags: str | None, able: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: some avx_vnnix\nflags\t\t: {flags}\nbugs\t\t: x\n")
    assert has_vnni(cpuinfo) is able


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_a_damaged_graph_is_refused_by_digest_and_by_the_backend(backend: str, tmp_path: Path, model: Model) -> None:
    tree = yaml.safe_load(model.path.read_text())
    garbage = b"no graph at all"
    (tmp_path / "bad.onnx").write_bytes(garbage)
    sidecar = tmp_path / "bad.yaml"
    tree["onnx"] = {"fp32": {"path": "bad.onnx", "sha256": "0" * 64}}
    sidecar.write_text(yaml.safe_dump(tree))
    with pytest.raises(ModelError, match="sha256"):
        open_pipeline(sidecar, backend=backend)
    tree["onnx"]["fp32"]["sha256"] = hashlib.sha256(garbage).hexdigest()
    sidecar.write_text(yaml.safe_dump(tree))
    with pytest.raises(EngineError, match=r"bad\.onnx"):
        open_pipeline(sidecar, backend=backend)


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_slots_are_bounded_and_returned(backend: str, scenes: list[NDArray[np.uint8]]) -> None:
    frame = Frame(CameraImage.from_rgb(scenes[0]))
    with open_pipeline(backend=backend) as pipeline:
        first, second = pipeline.submit([frame]), pipeline.submit([frame])
        with pytest.raises(EngineError, match="every slot is in flight"):
            pipeline.submit([frame])
        one, other = first.wait()[0], second.wait()[0]
        np.testing.assert_array_equal(one.panoptic, other.panoptic)
        with pytest.raises(EngineError, match=r"1\.\.1 frames, got 2"):
            pipeline.submit([frame, frame])
        pipeline(frame)


def test_a_network_with_wrong_shapes_is_refused(model: Model) -> None:
    def wrong(batch: NDArray[np.uint8]) -> RawOutputs:
        maps = np.zeros(batch.shape[:3], np.uint8)
        return RawOutputs(maps, maps, np.zeros((1, 3, 96, 160), np.float32), np.zeros((1, 2, 48, 80), np.float32))

    with (
        Pipeline(FunctionEngine(wrong), model.labels) as pipeline,
        pytest.raises(EngineError, match=r"offsets must be float32 \(1, 2, 96, 160\), got float32 \(1, 2, 48, 80\)"),
    ):
        pipeline(np.zeros((72, 128, 3), np.uint8))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_frames_side_by_side_have_the_answers_of_one_at_a_time(backend: str) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (384, 640, 3), np.uint8) for seed in range(5)]
    with open_offline(backend=backend, precision="fp32", latency=True) as pipeline:
        assert pipeline.slots == 1
        alone = [pipeline(picture) for picture in pictures]
    with open_offline(backend=backend, precision="fp32", threads=2) as pipeline:
        assert pipeline.slots == 5
        frames = [Frame(CameraImage.from_rgb(picture)) for picture in pictures]
        flying = [pipeline.submit([frame]) for frame in frames[:3]]
        together = [result for pending in flying for result in pending.wait()]
        together += [pipeline(frame) for frame in frames[3:]]
    for one, other in zip(alone, together, strict=True):
        assert np.mean(one.mask != other.mask) < 1e-3 and np.mean(one.panoptic != other.panoptic) < 1e-3


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux only")
@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("latency", [False, True], ids=["side by side", "one at a time"])
def test_threads_of_frames_side_by_side_give_way_to_their_caller(backend: str, latency: bool) -> None:
    def niceness() -> dict[int, int]:
        tasks = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
        return {task: os.getpriority(os.PRIO_PROCESS, task) for task in tasks}

    before = niceness()
    with open_offline(backend=backend, precision="fp32", threads=2, latency=latency) as pipeline:
        pipeline(np.zeros((384, 640, 3), np.uint8))
        after = niceness()
    assert all(nice == before[task] for task, nice in after.items() if task in before)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert any(nice > own for task, nice in after.items() if task not in before) != latency


def test_streams_share_the_threads_and_have_three_slots_more() -> None:
    assert cpu_share(EngineOptions(threads=4)) == CpuShare(4, 1, 2)
    assert cpu_share(EngineOptions(threads=4, slots=1)) == CpuShare(4, 1, 1)
    assert cpu_share(EngineOptions(threads=4, streams=0)) == CpuShare(4, 4, 7)
    assert cpu_share(EngineOptions(threads=2, streams=8)) == CpuShare(2, 2, 5)


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, 8),
    ],
)
def test_threads_keep_to_what_a_container_may_use(
    files: dict[str, str], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_threads(cgroup=tmp_path) == threads
    assert cpu_threads(5, cgroup=tmp_path) == 5


@pytest.mark.parametrize(
    ("membership", "files", "threads"),
    [
        ("0::/system.slice/seg.service\n", {"system.slice/seg.service/cpu.max": "200000 100000\n"}, 2),
        ("0::/system.slice/seg.service\n", {"system.slice/cpu.max": "300000 100000\n"}, 3),
        ("0::/system.slice/seg.service\n", {"system.slice/other.service/cpu.max": "200000 100000\n"}, 8),
        (
            "4:memory:/a\n1:cpu,cpuacct:/b/c\n0::/\n",
            {"cpu/b/c/cpu.cfs_quota_us": "400000\n", "cpu/b/c/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        ("0::/../../outside\n", {}, 8),
    ],
    ids=["the unit's", "its slice's", "another's", "version 1", "a group outside of what is seen"],
)
def test_threads_keep_to_the_quota_of_a_systemd_unit(
    membership: str, files: dict[str, str], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(content)
    assert cpu_threads(cgroup=tmp_path / "fs", membership=tmp_path / "membership") == threads
