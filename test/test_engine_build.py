"""What happens around TensorRT's builder: its process, the accuracy gate, keys, and graphs made fit for it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from drive_seg.engines import EngineOptions, availability
from drive_seg.engines.build import RECIPE, Job, judge, plan_key
from drive_seg.engines.builder import read_request, write_request
from drive_seg.engines.child import make_in_child
from drive_seg.engines.driver import Gpu, find_gpu, find_gpus
from drive_seg.engines.gate import LIMITS, compare
from drive_seg.engines.plan_cache import PlanCache, PlanKey
from drive_seg.engines.reference import Reference, compute, folder_frames, simulated_frames
from drive_seg.errors import EngineError, ModelError
from drive_seg.frame import RawOutputs
from drive_seg.model import Model, load_model
from drive_seg.resources import find_model

GPU = Gpu(0, "NVIDIA Test", (9, 0), 132, 80_000, False, "13.0")
CUT_DOWN = dataclasses.replace(GPU, multiprocessors=114)
SMALL = (320, 192)


@pytest.fixture(scope="module")
def model() -> Model:
    return dataclasses.replace(load_model(find_model("default")), width=SMALL[0], height=SMALL[1])


@pytest.fixture(scope="module")
def reference(model: Model) -> Reference:
    return compute(model, simulated_frames(model, 4))


def key_of(model: Model, typed: bool = True, **options: object) -> PlanKey:
    return plan_key(model, EngineOptions(**options), GPU, "10.3.0", typed)  # type: ignore[arg-type]


class TestKey:
    def test_it_says_what_the_plan_depends_on(self, model: Model) -> None:
        key = key_of(model, precision="int8", max_batch=4)
        assert (key.width, key.height, key.batch, key.precision) == (*SMALL, 4, "int8")
        assert (key.gpu, key.capability, key.tensorrt, key.recipe) == ("NVIDIA Test", "9.0", "10.3.0", RECIPE)
        assert key.onnx_sha256 == model.onnx["int8"].sha256

    def test_parts_of_one_name_with_fewer_multiprocessors_have_plans_of_their_own(self, model: Model) -> None:
        """Every Jetson Orin calls itself "Orin", with 4 to 16 of them."""
        full, cut = (plan_key(model, EngineOptions(), gpu, "10.3.0", True) for gpu in (GPU, CUT_DOWN))
        cache = PlanCache(Path("cache"))
        assert cache.path(full) != cache.path(cut)
        assert cache.timing_path(full) != cache.timing_path(cut)

    def test_fp16_comes_from_the_typed_graph_or_by_the_builders_flag(self, model: Model) -> None:
        assert key_of(model, typed=True, precision="fp16").onnx_sha256 == model.onnx["fp16"].sha256
        assert key_of(model, typed=False, precision="fp16").onnx_sha256 == model.onnx["fp32"].sha256

    def test_auto_is_fp16_where_the_model_has_it(self, model: Model) -> None:
        assert key_of(model).precision == "fp16"
        only = dataclasses.replace(model, onnx={"fp32": model.onnx["fp32"]})
        assert key_of(only).precision == "fp32"
        with pytest.raises(ModelError, match="no int8 graph"):
            key_of(only, precision="int8")

    def test_one_graph_is_enough_for_every_version(self, model: Model) -> None:
        for precision in ("fp16", "int8"):
            only = dataclasses.replace(model, onnx={precision: model.onnx[precision]})
            for typed in (True, False):
                key = key_of(only, typed)
                assert (key.precision, key.onnx_sha256) == (precision, only.onnx[precision].sha256)


class TestGate:
    def test_the_same_network_passes_at_every_precision(self, reference: Reference, model: Model) -> None:
        agreement = compare(iter_of(reference), reference, (3, 4, 5))
        assert agreement.labels_equal == 1.0 and agreement.confidence == agreement.heat == agreement.offsets == 0.0
        for precision in LIMITS:
            judge(dataclasses.replace(key_of(model), precision=precision), agreement)

    @pytest.mark.parametrize(
        ("complaint", "change"),
        [
            ("equal labels", lambda m: dataclasses.replace(m, semantic=np.roll(m.semantic, 8, axis=2))),
            ("confidence", lambda m: dataclasses.replace(m, confidence=m.confidence // 2)),
            ("heat", lambda m: dataclasses.replace(m, centers=m.centers * 0)),
            ("offsets", lambda m: dataclasses.replace(m, offsets=m.offsets[:, ::-1])),
            ("offsets", lambda m: dataclasses.replace(m, offsets=m.offsets * np.float32("nan"))),
        ],
    )
    def test_a_wrongly_compiled_network_is_refused(
        self, complaint: str, change: Callable[[RawOutputs], RawOutputs], reference: Reference, model: Model
    ) -> None:
        agreement = compare(iter_of(reference, change), reference, (3, 4, 5))
        for precision in LIMITS:
            with pytest.raises(EngineError, match=complaint):
                judge(dataclasses.replace(key_of(model), precision=precision), agreement)

    def test_other_shapes_are_no_small_difference(self, reference: Reference) -> None:
        with pytest.raises(EngineError, match="semantic has shape"):
            compare(
                iter_of(reference, lambda m: RawOutputs(*(part[..., :8, :8] for part in maps_of(m)))), reference, ()
            )


def maps_of(maps: RawOutputs) -> list[NDArray[np.generic]]:
    return [maps.semantic, maps.confidence, maps.centers, maps.offsets]


def iter_of(
    reference: Reference, change: Callable[[RawOutputs], RawOutputs] = lambda maps: maps
) -> Callable[[NDArray[np.uint8]], RawOutputs]:
    answers = iter(reference.answers)
    return lambda batch: change(next(answers))


class TestReference:
    def test_it_survives_a_file(self, reference: Reference, model: Model, tmp_path: Path) -> None:
        file = tmp_path / "deep" / "reference.npz"
        reference.save(file)
        back = Reference.load(file, model)
        assert len(back.frames) == 4
        for one, other in zip(reference.answers, back.answers, strict=True):
            for ours, theirs in zip(maps_of(one), maps_of(other), strict=True):
                np.testing.assert_array_equal(ours, theirs)

    def test_one_of_another_model_or_size_is_refused(self, reference: Reference, model: Model, tmp_path: Path) -> None:
        file = tmp_path / "reference.npz"
        reference.save(file)
        with pytest.raises(EngineError, match=r"takes \(192, 640, 3\)"):
            Reference.load(file, dataclasses.replace(model, width=640))
        dataclasses.replace(reference, onnx_sha256="0" * 64).save(file)
        with pytest.raises(EngineError, match="another graph"):
            Reference.load(file, model)
        file.write_bytes(b"no archive")
        with pytest.raises(EngineError, match="no reference"):
            Reference.load(file, model)

    def test_a_model_without_fp32_is_held_to_the_highest_it_has(self, model: Model, tmp_path: Path) -> None:
        half = dataclasses.replace(model, onnx={name: model.onnx[name] for name in ("fp16", "int8")})
        reference = compute(half, simulated_frames(half, 2))
        assert reference.onnx_sha256 == half.onnx["fp16"].sha256
        exact = compute(model, simulated_frames(model, 2))
        for ours, theirs in zip(reference.answers, exact.answers, strict=True):
            assert (ours.semantic == theirs.semantic).mean() > 0.995
        reference.save(tmp_path / "half.npz")
        assert Reference.load(tmp_path / "half.npz", half).onnx_sha256 == reference.onnx_sha256
        with pytest.raises(EngineError, match="another graph"):
            Reference.load(tmp_path / "half.npz", model)

    def test_frames_come_from_folders_too(self, model: Model, tmp_path: Path) -> None:
        import cv2

        (tmp_path / "sub").mkdir()
        for number in range(6):
            cv2.imwrite(str(tmp_path / "sub" / f"{number}.png"), np.full((90, 160, 3), 40 * number, np.uint8))
        frames = list(folder_frames(model, tmp_path, 3))
        assert [frame.shape for frame in frames] == [(SMALL[1], SMALL[0], 3)] * 3
        with pytest.raises(EngineError, match="no readable image"):
            list(folder_frames(model, tmp_path / "nothing", 3))


DEAF = "say(phase=str(os.getpid()), done=0, total=0); signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"

FAKE_BUILDER = """
import json, os, signal, sys, time
import numpy as np
request = json.load(open(sys.argv[1]))
def say(**fields):
    print(json.dumps(fields), flush=True)
{body}
figures = dict(frames=8, labels_equal=1.0, confidence=0.0, heat=0.0, offsets=0.0)
with open(sys.argv[2], "wb") as file:
    agreement = np.array(json.dumps(figures))
    np.savez(file, plan=np.arange(5, dtype=np.uint8), timing=np.zeros(2, np.uint8), agreement=agreement,
             note="smaller than asked for")
"""


class TestBuilderProcess:
    def command(self, body: str) -> list[str]:
        return [sys.executable, "-c", FAKE_BUILDER.format(body=textwrap.dedent(body))]

    def job(self, model: Model) -> Job:
        return Job(model, key_of(model), 0, timing=b"\x00\x01times")

    def test_a_request_survives_its_file(self, model: Model, tmp_path: Path) -> None:
        job = dataclasses.replace(self.job(model), reference=tmp_path / "r.npz", gpu_id=1)
        write_request(tmp_path / "request", job)
        back = read_request(tmp_path / "request")
        assert (back.key, back.gpu_id, back.timing, back.reference) == (job.key, 1, job.timing, job.reference)
        assert back.model.path == model.path

    def test_progress_and_answer_come_back(self, model: Model) -> None:
        said: list[tuple[str, int, int]] = []
        body = """
            print("a library that prints to standard error", file=sys.stderr)
            assert request["key"]["precision"] == "fp16" and bytes.fromhex(request["timing"]).endswith(b"times")
            say(phase="tactics", done=1, total=3)
        """
        made = make_in_child(self.job(model), lambda *step: said.append(step), lambda: False, self.command(body))
        assert (made.plan, made.timing, made.agreement.frames) == (b"\x00\x01\x02\x03\x04", b"\x00\x00", 8)
        assert made.note == "smaller than asked for"
        assert set(said) == {("tactics", 1, 3)}

    def test_a_builder_that_says_nothing_for_minutes_is_seen_to_be_there(self, model: Model) -> None:
        """TensorRT 8.6 reports nothing between the beginning and the end of a build."""
        said: list[tuple[str, int, int]] = []
        body = 'import time; say(phase="compiling", done=0, total=0); time.sleep(1)'
        make_in_child(self.job(model), lambda *step: said.append(step), lambda: False, self.command(body))
        assert len(said) > 2 and set(said) == {("compiling", 0, 0)}

    def test_a_crash_behind_the_answer_costs_no_plan(self, model: Model) -> None:
        """Some minutes of building: a library that falls over its own teardown has done its work."""
        body = "import atexit; atexit.register(os.abort)"
        made = make_in_child(self.job(model), lambda *_: None, lambda: False, self.command(body))
        assert made.plan == b"\x00\x01\x02\x03\x04"

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ('say(error="no kernel fits"); sys.exit(1)', "^no kernel fits$"),
            ('print("first\\nlast words", file=sys.stderr, flush=True); os.abort()', "signal 6.*last words"),
            ('os.write(2, b"Ger\\xe4t\\nlast words\\n"); os.abort()', "signal 6.*last words"),
            ("os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
            ("sys.exit(0)", "ended with code 0: it said nothing"),
        ],
    )
    def test_whatever_ends_it_becomes_one_error(self, body: str, message: str, model: Model) -> None:
        with pytest.raises(EngineError, match=message):
            make_in_child(self.job(model), lambda *_: None, lambda: False, self.command(body))

    def test_cancelling_ends_the_process(self, model: Model) -> None:
        pids: list[int] = []
        with pytest.raises(EngineError, match="cancelled"):
            make_in_child(
                self.job(model), lambda phase, *_: pids.append(int(phase)), lambda: bool(pids), self.command(DEAF)
            )
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)

    def test_ctrl_c_ends_both_and_leaves_nothing_in_the_cache(self, model: Model, tmp_path: Path) -> None:
        """A user's Ctrl-C reaches the whole foreground group, as here; the builder is deaf to it, as TensorRT 8 is."""
        program = f"""
import os, sys
from functools import partial
from pathlib import Path
from drive_seg.engines.build import Job, obtain
from drive_seg.engines.child import make_in_child
from drive_seg.engines.builder import read_request
from drive_seg.engines.plan_cache import PlanCache
body = {self.command(DEAF)!r}
job = read_request(Path(sys.argv[1]))
make = partial(make_in_child, command=body)
obtain(job, PlanCache(Path(sys.argv[2])), make, lambda phase, *_: print(phase, flush=True))
"""
        write_request(tmp_path / "request", self.job(model))
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "request"), str(tmp_path / "cache")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            # A shell starts background jobs with SIGINT ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(timeout=20) != 0
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
        assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]

    def test_the_real_builder_says_in_one_line_that_there_is_no_gpu(self, model: Model) -> None:
        if next(row for row in availability() if row.backend == "tensorrt").available:
            pytest.skip("this machine has a GPU and TensorRT")
        with pytest.raises(EngineError, match=r"no NVIDIA driver|does not start|tensorrt"):
            make_in_child(self.job(model), lambda *_: None, lambda: False)

    def test_the_real_builder_goes_with_its_parent(self, tmp_path: Path) -> None:
        """SIGKILL of the parent must not leave a builder that holds the GPU for minutes."""
        holder = (
            "import subprocess, sys, time; "
            "child = subprocess.Popen([sys.executable, '-c', "
            "'import time; from drive_seg.engines.builder import _die_with_parent as d; d(); print(1, flush=True); "
            "time.sleep(60)'], stdout=subprocess.PIPE); child.stdout.readline(); print(child.pid, flush=True); "
            "time.sleep(60)"
        )
        parent = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.communicate()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{child}").is_dir() and time.monotonic() < deadline:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                break
            time.sleep(0.05)
        else:
            assert not Path(f"/proc/{child}").is_dir()


@pytest.fixture(scope="module")
def content(model: Model) -> bytes:
    pytest.importorskip("onnx", reason="onnx is not installed")
    return model.graph("int8").read_bytes()


class TestGraphForTensorRT:
    @pytest.mark.parametrize("half", [False, True])
    def test_it_has_only_what_parsers_take(self, half: bool, content: bytes) -> None:
        import onnx
        from onnx import TensorProto

        from drive_seg.engines.trt_graph import eight_bit_graph

        model = onnx.load_from_string(eight_bit_graph(content, half))
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        made_by = {name: node for node in model.graph.node for name in node.output}
        dequantised = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
        assert dequantised
        for node in dequantised:
            assert made_by[node.input[0]].op_type == "QuantizeLinear", "every pair is explicit"
            assert types[node.input[1]] == (TensorProto.FLOAT16 if half else TensorProto.FLOAT)
        assert TensorProto.INT32 not in types.values()
        original = onnx.load_from_string(content)
        assert [str(o) for o in model.graph.output] == [str(o) for o in original.graph.output]
        assert [str(i) for i in model.graph.input] == [str(i) for i in original.graph.input]
        assert model.opset_import[0].version == (19 if half else original.opset_import[0].version)

    @pytest.mark.parametrize(("half", "agreement"), [(False, 0.9999), (True, 0.94)])
    def test_it_says_what_the_file_says(
        self, half: bool, agreement: float, content: bytes, reference: Reference, model: Model
    ) -> None:
        import onnxruntime as ort

        from drive_seg.engines.trt_graph import eight_bit_graph

        if half and tuple(map(int, ort.__version__.split(".")[:2])) < (1, 24):
            pytest.skip("this release of ONNX Runtime computes float16 Q/DQ pairs wrongly: 1.23 gives 88 %, 1.31 99 %")
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = 2
        # Its optimiser merges float16 Q/DQ pairs into kernels that give nonsense; as written they are right.
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        masks = []
        for graph in (content, eight_bit_graph(content, half)):
            session = ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
            masks.append([session.run(["semantic"], {"image": frame[None]})[0] for frame in reference.frames])
        assert np.mean([np.mean(a == b) for a, b in zip(*masks, strict=True)]) >= agreement
        fp32 = [answer.semantic for answer in reference.answers]
        assert np.mean([np.mean(a == b) for a, b in zip(masks[1], fp32, strict=True)]) >= 0.94

    def test_other_graphs_are_refused(self, model: Model) -> None:
        pytest.importorskip("onnx", reason="onnx is not installed")
        from drive_seg.engines.trt_graph import eight_bit_graph

        with pytest.raises(ModelError, match="no quantised weights"):
            eight_bit_graph(model.graph("fp32").read_bytes(), False)
        with pytest.raises(ModelError, match="not an ONNX file"):
            eight_bit_graph(b"\xff\xff\xff", False)


class TestDriver:
    @pytest.mark.parametrize("integrated", [False, True])
    def test_a_jetson_is_sent_to_jetpack_for_tensorrt(self, integrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            "drive_seg.engines.registry.find_gpu", lambda index: dataclasses.replace(GPU, integrated=integrated)
        )
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorrt" else find_spec(name))
        row = availability()[0]
        assert not row.available and "but tensorrt" in row.reason and "pycuda" in row.reason
        assert ("apt install python3-libnvinfer" in row.reason) is integrated
        assert ("tensorrt<12" in row.reason) is not integrated

    def test_no_driver_is_an_error_that_says_so(self) -> None:
        with pytest.raises(EngineError, match=r"no NVIDIA driver \(libnothing\.so\.1"):
            find_gpu(0, "libnothing.so.1")

    def test_a_driver_without_a_gpu_is_another(self, tmp_path: Path) -> None:
        library = fake_driver(tmp_path, "int cuInit(unsigned f) { return 100; }")
        with pytest.raises(EngineError, match="does not start: CUDA_ERROR_FAKE"):
            find_gpu(0, str(library))

    def test_what_the_driver_says_is_read(self, tmp_path: Path) -> None:
        library = fake_driver(
            tmp_path,
            """
            #include <string.h>
            #include <stddef.h>
            int cuInit(unsigned f) { return 0; }
            int cuDeviceGetCount(int *n) { *n = 1; return 0; }
            int cuDeviceGet(int *d, int n) { *d = n; return 0; }
            int cuDeviceGetName(char *s, int n, int d) { strcpy(s, "Fake GPU"); return 0; }
            int cuDeviceGetPCIBusId(char *s, int n, int d) { strcpy(s, "0000:41:00.0"); return 0; }
            int cuDeviceTotalMem_v2(size_t *n, int d) { *n = (size_t)81559 << 20; return 0; }
            int cuDeviceGetAttribute(int *v, int a, int d)
            { *v = a == 75 ? 8 : a == 76 ? 7 : a == 16 ? 16 : a == 18; return 0; }
            int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
            """,
        )
        gpu = find_gpu(0, str(library))
        assert gpu == Gpu(0, "Fake GPU", (8, 7), 16, 81559, True, "12.6", "0000:41:00.0")
        assert gpu.architecture == "sm_87" and find_gpus(str(library)) == [gpu]
        with pytest.raises(EngineError, match=r"no GPU 1: this machine has 1.*gpu_id"):
            find_gpu(1, str(library))


def fake_driver(folder: Path, source: str) -> Path:
    (folder / "cuda.c").write_text(
        source + '\nint cuGetErrorName(int e, const char **s) { *s = "CUDA_ERROR_FAKE"; return 0; }\n'
    )
    library = folder / "libcuda.so.1"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "cuda.c"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    return library


def test_figures_of_a_plan_are_json(reference: Reference) -> None:
    figures = compare(iter_of(reference), reference, (3,)).as_dict()
    assert json.loads(json.dumps(figures)) == figures
