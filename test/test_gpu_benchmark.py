"""The full benchmark without a GPU: what is counted is counted right, what is measured lands in the page, no more."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import drive_seg
from fake_gpu import GPU, FakeGpu, install
from numpy.typing import NDArray
from test_trt_engine import engine_of, picture
from tiny_model import network, write_tiny_model

from drive_seg.engines import EngineOptions, FunctionEngine, open_engine, planned
from drive_seg.engines.build import Job, Made
from drive_seg.engines.compiler import BuildProgress
from drive_seg.engines.gate import Agreement
from drive_seg.engines.reference import Reference
from drive_seg.errors import EngineError, ModelError
from drive_seg.frame import CameraImage, RawOutputs
from drive_seg.gpu_benchmark import cases as cases_module
from drive_seg.gpu_benchmark.cases import Case, Say, ask_torch, cases, measure, reference_of
from drive_seg.gpu_benchmark.sample import SampleEngine
from drive_seg.gpu_benchmark.table import markdown
from drive_seg.gpu_benchmark.work import Layer, Peaks, Work, count
from drive_seg.labels import DRIVING
from drive_seg.model import load_model
from drive_seg.pipeline import Pipeline
from drive_seg.resources import find_model
from drive_seg.sim import Simulator

pytest.importorskip("onnx", reason="onnx is not installed")

SIZE = (160, 96)


class TestWork:
    def test_counts_follow_from_the_shapes_that_really_occur(self) -> None:
        """ONNX Runtime is made to give every convolution's input and output; what they cost is counted from these."""
        import onnx
        import onnxruntime as ort
        from onnx import helper, numpy_helper

        content = load_model(find_model("default")).graph("fp32").read_bytes()
        work = count(content, 2, SIZE)
        model = onnx.load_from_string(content)
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        names = sorted({name for node in convolutions for name in (node.input[0], node.output[0])})
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        tensors = dict(zip(names, session.run(names, {"image": np.zeros((2, 96, 160, 3), np.uint8)}), strict=True))
        expected = []
        for node in convolutions:
            source, result, kernel = tensors[node.input[0]], tensors[node.output[0]], weights[node.input[1]]
            groups = source.shape[1] // kernel.shape[1]
            per_pixel = 2 * result.shape[1] * (source.shape[1] // groups) * kernel.shape[2] * kernel.shape[3]
            pixels = result.shape[0] * result.shape[2] * result.shape[3]
            expected.append((per_pixel * pixels, kernel.size, source.size, result.size))
        assert [(one.flops, one.weights, one.inputs, one.outputs) for one in work.layers] == expected

    def test_work_grows_with_the_batch_and_the_pixels(self) -> None:
        model = load_model(find_model("default"))
        content = model.graph("fp32").read_bytes()
        one = count(content, 1, (640, 384))
        assert count(content, 4, (640, 384)).flops == 4 * one.flops
        assert count(content, 1, (1280, 768)).flops == pytest.approx(4 * one.flops, rel=1e-3)
        assert one.bytes("fp32") == 2 * one.bytes("fp16")
        quantised = count(model.graph("int8").read_bytes(), 1, (640, 384))
        assert quantised.flops == one.flops and any(layer.quantised for layer in quantised.layers)
        assert one.bytes("fp16") > quantised.bytes("int8") > one.bytes("fp16") / 2

    def test_the_roofline_takes_the_slower_of_arithmetic_and_memory_layer_by_layer(self) -> None:
        heavy = Layer(1000, 10, 10, 10, True)
        wide = Layer(10, 100, 1000, 400, False)
        work = Work((heavy, wide))
        peaks = Peaks({"fp32": 10.0, "fp16": 100.0, "int8": 200.0}, 50.0, 1.0, 1.0)
        assert work.least_seconds("fp32", peaks) == pytest.approx(1000 / 10 + 4 * 1500 / 50)
        assert work.least_seconds("fp16", peaks) == pytest.approx(1000 / 100 + 2 * 1500 / 50)
        assert work.least_seconds("int8", peaks) == pytest.approx(1000 / 200 + 2 * 1500 / 50)

    def test_other_graphs_are_refused(self, tmp_path: Path) -> None:
        write_tiny_model(tmp_path)
        with pytest.raises(ModelError, match="no convolution"):
            count((tmp_path / "tiny.onnx").read_bytes(), 1, SIZE)


def test_torch_says_why_it_has_no_figures(tmp_path: Path) -> None:
    images = [CameraImage.from_rgb(picture(1))]
    assert "cannot be run" in dict(ask_torch(str(tmp_path / "no_python"), images, 1, SIZE))["why"]
    assert "ended with code" in dict(ask_torch("/bin/false", images, 1, SIZE))["why"]


def test_a_figure_of_torch_is_known_before_the_next_is_begun(tmp_path: Path) -> None:
    """A command that may not take as long as torch compiles must not cost the peaks."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho a library says hello\necho 3\necho '{\"peaks\": 1}'\nexec sleep 600\n")
    python.chmod(0o755)
    figures = ask_torch(str(python), [CameraImage.from_rgb(picture(1))], 1, SIZE)
    assert next(figures) == ("peaks", 1)
    figures.close()  # type: ignore[attr-defined] # it ends at once


def test_all_of_torchs_network_is_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from drive_seg.network.torch_speed import network as torchs_network

    empty = torch.empty
    compiled: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self.to("meta"))  # a device that every torch has
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **kind: empty(*size, **kind))
    monkeypatch.setattr(torch, "compile", lambda net, mode: compiled.append(net))
    torchs_network(torch, SIZE, compiled=True)
    (net,) = compiled
    assert {tensor.device.type for tensor in (*net.parameters(), *net.buffers())} == {"meta"}
    semantic, *_ = net(empty((1, 96, 160, 3), dtype=torch.uint8, device="meta"))
    assert semantic.shape == (1, 96, 160)


def test_torch_fuses_the_maps_of_the_shipped_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fusion takes several times as long for the noise that random weights give."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from drive_seg.network.torch_speed import network as torchs_network

    empty, to = torch.empty, torch.Tensor.to
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **kind: empty(*size, **kind))
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: self if a == ("cuda",) else to(self, *a, **k))
    model = replace(load_model(find_model("default")), width=320, height=192)
    image = Simulator(3, 320, 192).frame(30).image[np.newaxis]
    said = torchs_network(torch, (320, 192), compiled=False)(image)
    assert torch.backends.cudnn.benchmark, "torch at its best, for an input of one size"
    with open_engine(model, "auto", EngineOptions(precision="fp32")) as engine:
        slot = engine.slots[0]
        slot.input[:] = image
        slot.submit(1)
        shipped = slot.wait()
        assert (said.semantic == shipped.semantic).mean() > 0.99 and len(np.unique(shipped.semantic)) >= 4
        assert np.abs(said.offsets - shipped.offsets).mean() < 0.5


def test_a_figure_of_torch_that_cannot_be_had_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from drive_seg.network import torch_speed

    def no_peaks(_: object) -> None:
        raise RuntimeError("no 8-bit products on this GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch_speed, "measure_peaks", no_peaks)
    monkeypatch.setattr(torch_speed, "network", lambda _, size, compiled: network if not compiled else {}["a compiler"])
    np.save(tmp_path / "frames.npy", picture(1)[np.newaxis])
    monkeypatch.setattr("sys.argv", ["torch_speed", str(tmp_path / "frames.npy"), "2", "160x96"])
    assert torch_speed.main() == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said.pop(3)["eager 160x96"]["p50"] > 0
    assert said == [
        {"torch": torch.__version__},
        {"gpu": "a GPU"},
        {"why": "peaks: RuntimeError: no 8-bit products on this GPU"},
        {"why": "compiled 160x96: KeyError: 'a compiler'"},
    ]


class TestRun:
    @pytest.fixture
    def gpu(self, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
        gpu = FakeGpu(network, SIZE)
        install(gpu, monkeypatch)

        def make(job: Job, *_: object) -> Made:
            return Made(b"FAKE", b"", Agreement(8, 1.0, 0.0, 0.0, 0.0))

        monkeypatch.setattr(planned, "make_in_child", make)
        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.find_gpu", lambda index=0: GPU)
        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.WARM_UP", 1)
        work = Work((Layer(10**9, 1000, 1000, 1000, False),))
        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.count", lambda *_: work)
        return gpu

    def run(self, tmp_path: Path, wanted: list[Case], frames: int = 4, say: Say = lambda *_: None) -> dict[str, Any]:
        model = load_model(write_tiny_model(tmp_path, size=SIZE))
        images = [CameraImage.from_rgb(picture(seed)) for seed in range(3)]
        options = EngineOptions(cache_dir=tmp_path / "cache")
        return measure(model, images, frames, wanted, tmp_path / "out" / "t.json", options, "/bin/false", say)

    def test_every_column_is_measured_and_kept(self, gpu: FakeGpu, tmp_path: Path) -> None:
        wanted = [Case(SIZE, "fp32", 1), Case(SIZE, "fp32", 2), Case(SIZE, "int8", 1)]
        results = self.run(tmp_path, wanted)
        one, four, refused = (results["cases"][case.name] for case in wanted)
        assert one["sample"]["p50"] > 0 and "sample" not in four
        for case in (one, four):
            assert case["bare"]["p50"] > 0 and case["ours"]["p99"] >= case["ours"]["p50"] and case["fps"] > 0
            assert set(case["gpu_ms"]) == {"gpu_h2d", "gpu_preprocess", "gpu_inference", "gpu_fusion", "gpu_d2h"}
        assert "no int8 graph" in refused["error"]
        assert not gpu.leaks
        page = markdown(results)
        assert "| 160x96 | fp32 | 2 |" in page and "no int8 graph" in page and "NVIDIA Fake (sm_90" in page
        assert "* torch at 160x96: /bin/false ended with code 1" in page
        assert json.loads((tmp_path / "out" / "t.json").read_text()) == results

    def test_the_sample_is_right_and_sets_shape_and_addresses_once(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = load_model(write_tiny_model(tmp_path, size=SIZE))
        with engine_of(model, batch=2) as engine, Pipeline(SampleEngine(engine), DRIVING) as sample:
            monkeypatch.setattr(engine.network, "enqueue", None)
            for seed in range(3):
                answer = sample(picture(seed))
                with Pipeline(FunctionEngine(network, SIZE), DRIVING) as host:
                    np.testing.assert_array_equal(answer.panoptic, host(picture(seed)).panoptic)

    def test_the_bare_network_sees_the_pictures_too(self, gpu: FakeGpu, tmp_path: Path) -> None:
        """A black image draws less power, and a GPU's clock follows its power."""
        darkest: list[int] = []

        def noted(images: NDArray[np.uint8]) -> RawOutputs:
            darkest.extend(int(image.max()) for image in images)
            return network(images)

        gpu.network = noted
        self.run(tmp_path, [Case(SIZE, "fp32", 2)])
        assert min(darkest) > 0

    def test_where_the_cpu_does_the_stages_it_is_measured_without_their_times(
        self, gpu: FakeGpu, tmp_path: Path
    ) -> None:
        gpu.refuses = "module"
        self.run(tmp_path, [])
        self.put_peaks(tmp_path)
        results = self.run(tmp_path, [Case(SIZE, "fp32", 1)])
        case = results["cases"]["160x96 fp32 x1"]
        assert "the CPU does letterbox and fusion" in case["note"] and case["ours"]["p50"] > 0
        assert case["gpu_ms"] == {} and "roofline_share" not in case and "pcie_share" not in case
        page = markdown(results)
        assert "| 160x96 | fp32 | 1 |" in page and f"* 160x96 fp32 x1: {case['note']}" in page

    def test_figures_without_a_cuda_graph_say_so(self, gpu: FakeGpu, tmp_path: Path) -> None:
        """They are slower for it."""
        gpu.can_capture = False
        results = self.run(tmp_path, [Case(SIZE, "fp32", 1)])
        note = results["cases"]["160x96 fp32 x1"]["note"]
        assert note.startswith("this engine runs without CUDA graph: ")
        assert f"* 160x96 fp32 x1: {note}" in markdown(results)

    def test_figures_of_an_engine_that_is_not_quite_what_was_asked_for_say_so(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = Made(b"FAKE", b"", Agreement(8, 1.0, 0.0, 0.0, 0.0), "the rest is fp32")
        monkeypatch.setattr(planned, "make_in_child", lambda *_: made)
        assert "* 160x96 fp32 x1: the rest is fp32" in markdown(self.run(tmp_path, [Case(SIZE, "fp32", 1)]))

    def test_a_case_that_breaks_costs_no_other(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("drive_seg.gpu_benchmark.cases._throughput", lambda *_: {}["fps"])
        wanted = [Case(SIZE, "fp32", 1), Case(SIZE, "fp32", 2)]
        results = self.run(tmp_path, wanted)
        assert [results["cases"][case.name] for case in wanted] == [{"error": "KeyError: 'fps'"}] * 2

    def test_work_that_cannot_be_counted_costs_no_figure(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def uncountable(*_: object) -> None:
            raise ModelError("the shapes of conv7 cannot be inferred")

        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.count", uncountable)
        results = self.run(tmp_path, [Case(SIZE, "fp32", 1)])
        case = results["cases"]["160x96 fp32 x1"]
        assert case["ours"]["p50"] > 0 and case["uncounted"] == "the shapes of conv7 cannot be inferred"
        page = markdown(results)
        assert "| 160x96 | fp32 | 1 |" in page and "* 160x96 fp32 x1: the shapes of conv7 cannot be inferred" in page

    def test_nor_does_an_onnx_that_knows_no_such_graph(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def uncountable(*_: object) -> None:
            raise RuntimeError("[ShapeInferenceError] unknown opset")

        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.count", uncountable)
        case = self.run(tmp_path, [Case(SIZE, "fp32", 1)])["cases"]["160x96 fp32 x1"]
        assert case["ours"]["p50"] > 0 and case["uncounted"] == "RuntimeError: [ShapeInferenceError] unknown opset"

    def test_the_command_of_the_page_can_be_given_again(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``tools/gpu_check.sh`` gives empty options where nothing was asked for."""
        given = ["benchmark", "--full", "--sizes", "", "--out", str(tmp_path / "my results")]
        monkeypatch.setattr("sys.argv", ["/somewhere/drive_seg", *given])
        self.run(tmp_path, [])
        results = self.run(tmp_path, [])
        (command,) = results["commands"]
        assert shlex.split(command) == ["drive_seg", *given]
        assert f"    {command}\n" in markdown(results)
        monkeypatch.setattr("sys.argv", ["/somewhere/drive_seg", "benchmark", "--another-part"])
        results = self.run(tmp_path, [])
        assert results["commands"] == [command, "drive_seg benchmark --another-part"]
        assert f"    {command}\n    drive_seg benchmark --another-part\n" in markdown(results)

    def put_peaks(self, tmp_path: Path) -> None:
        file = tmp_path / "out" / "t.json"
        results = json.loads(file.read_text())
        peaks = {"flops": {"fp32": 1e12, "fp16": 2e12, "int8": 4e12}, "memory": 1e12, "h2d": 5e10, "d2h": 5e10}
        results["torch"] = {
            "torch": "2",
            "peaks": peaks,
            "eager 160x96": {"p50": 3.0, "p99": 4.0},
            "compiled 160x96": {"p50": 2.0, "p99": 2.5},
        }
        file.write_text(json.dumps(results))

    def test_a_run_that_was_cut_goes_on_where_it_was(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also on another machine of the kind, whose GPU has another place on the bus."""
        first = self.run(tmp_path, [Case(SIZE, "fp32", 1)])
        gpu.launches.clear()
        again = self.run(tmp_path, [Case(SIZE, "fp32", 1)])
        assert again["cases"] == first["cases"] and not gpu.launches
        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.find_gpu", lambda index=0: replace(GPU, pci="0000:c1:00.0"))
        assert self.run(tmp_path, [Case(SIZE, "fp32", 1)])["cases"] == first["cases"] and not gpu.launches
        with pytest.raises(EngineError, match=r"another machine or with other frames \(frames: 4 there, 5 now\)"):
            self.run(tmp_path, [Case(SIZE, "fp32", 1)], frames=5)

    @pytest.mark.parametrize("content", ['{"machine": {', "[]", "\xff"])
    def test_a_file_that_was_cut_is_left_alone_and_named(self, content: str, gpu: FakeGpu, tmp_path: Path) -> None:
        file = tmp_path / "out" / "t.json"
        file.parent.mkdir()
        file.write_text(content, encoding="latin-1")
        with pytest.raises(EngineError, match=r"t\.json .*; move it away"):
            self.run(tmp_path, [])
        assert file.read_text(encoding="latin-1") == content

    def test_figures_of_two_releases_or_models_are_not_mixed(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        case = Case(SIZE, "fp32", 1)
        page = markdown(self.run(tmp_path, [case]))
        assert "TensorRT 10.3.0, model tiny " in page
        gpu.tensorrt = "11.4.0"
        install(gpu, monkeypatch)
        with pytest.raises(
            EngineError, match=r"another machine or with other frames \(tensorrt: 10\.3\.0 there, 11\.4\.0 now\)"
        ):
            self.run(tmp_path, [case])
        gpu.tensorrt = "10.3.0"
        install(gpu, monkeypatch)
        model = replace(load_model(tmp_path / "tiny.yaml"), name="another")
        images = [CameraImage.from_rgb(picture(seed)) for seed in range(3)]
        options = EngineOptions(cache_dir=tmp_path / "cache")
        with pytest.raises(EngineError, match=r"other frames \(model: tiny \w+ there, another \w+ now\)"):
            measure(model, images, 4, [case], tmp_path / "out" / "t.json", options, "/bin/false", lambda *_: None)

    def test_a_run_that_measured_nothing_has_failed(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sidecar = write_tiny_model(tmp_path, size=SIZE)
        monkeypatch.setattr("drive_seg.commands.benchmark._images", lambda _: [CameraImage.from_rgb(picture(1))])
        monkeypatch.setenv("HOME", str(tmp_path))

        options = ["--model", sidecar, "--frames", 2, "--sizes", "160x96", "--torch-python", "/bin/false", "--json"]
        options += ["--out", tmp_path / "out", "--precisions"]
        ended = drive_seg("benchmark", "--full", *options, "int8", code=1)
        assert "no int8 graph" in json.loads(ended.stdout)["cases"]["160x96 int8 x1"]["error"]
        assert "drive_seg: error: nothing could be measured: " in ended.stderr and "no int8 graph" in ended.stderr
        drive_seg("benchmark", "--full", *options, "fp32,int8")

    def test_torch_is_asked_again_until_it_has_answered(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        figures = {"p50": 2.0, "p99": 2.5}
        answers: list[dict[str, Any]] = [
            {"why": "out of memory", "eager 160x96": figures},
            {"eager 160x96": figures, "compiled 160x96": figures},
        ]
        order: list[str] = []

        def ask(python: str, images: object, frames: int, size: tuple[int, int]) -> Iterable[tuple[str, Any]]:
            order.append(f"torch {size[0]}x{size[1]}")
            return (answers.pop(0) if size == SIZE else {"why": "not yet"}).items()

        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.ask_torch", ask)
        case = Case(SIZE, "fp32", 1)
        assert self.run(tmp_path, [case])["torch"]["why 160x96"] == "out of memory"
        assert "why 160x96" not in self.run(tmp_path, [case])["torch"]
        self.run(tmp_path, [case])
        assert order == ["torch 160x96"] * 2

    def test_a_size_is_done_before_the_next_is_begun(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[str] = []
        monkeypatch.setattr("drive_seg.gpu_benchmark.cases.ask_torch", lambda *_: ())
        model = load_model(write_tiny_model(tmp_path, size=SIZE))
        wanted = [Case((320, 192), "int8", 1), Case(SIZE, "int8", 1), Case(SIZE, "fp16", 1)]
        options = EngineOptions(cache_dir=tmp_path / "cache")
        images = [CameraImage.from_rgb(picture(0))]
        counts = []

        def say(what: str, number: int, of: int) -> None:
            done.append(what)
            counts.append((number, of))

        measure(model, images, 1, wanted, tmp_path / "t.json", options, "/bin/false", say)
        assert done == [
            *("320x192 int8 x1", "torch at 320x192"),
            *("160x96 int8 x1", "160x96 fp16 x1", "torch at 160x96"),
        ]
        assert counts == [(number, 5) for number in range(5)]

    def test_a_build_of_minutes_says_how_it_goes(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built = planned.make_in_child

        def make(job: Job, progress: BuildProgress, cancelled: Callable[[], bool]) -> Made:
            progress("compiling", 0, 0)
            return built(job, progress, cancelled)

        monkeypatch.setattr(planned, "make_in_child", make)
        said: list[tuple[str, int, int]] = []
        self.run(tmp_path, [Case(SIZE, "fp32", 1)], say=lambda *step: said.append(step))
        assert said == [
            ("160x96 fp32 x1", 0, 2),
            ("160x96 fp32 x1: compiling", 0, 2),
            ("torch at 160x96", 1, 2),
        ]

    def test_what_a_run_was_ended_in_comes_last_in_the_next(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may have crashed, or take longer than a command may."""
        one, other = Case(SIZE, "fp32", 1), Case(SIZE, "fp32", 2)
        with monkeypatch.context() as patch:

            def ended(*_: object) -> float:
                raise KeyboardInterrupt

            patch.setattr("drive_seg.gpu_benchmark.cases._throughput", ended)
            with pytest.raises(KeyboardInterrupt):
                self.run(tmp_path, [one, other])
        page = tmp_path / "out" / "t.md"
        assert f"* {one.name}: the run was ended before it was done" in page.read_text()
        order: list[str] = []
        measured = cases_module.measure_case
        monkeypatch.setattr(
            cases_module, "measure_case", lambda case, *rest: order.append(case.name) or measured(case, *rest)
        )
        results = self.run(tmp_path, [one, other])
        assert order == [other.name, one.name] and all("error" not in case for case in results["cases"].values())
        assert page.read_text() == markdown(results)

    def test_what_torch_said_before_the_run_was_cut_is_kept(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ask(*_: object) -> Iterator[tuple[str, Any]]:
            yield "eager 160x96", {"p50": 2.0, "p99": 2.5}
            raise KeyboardInterrupt  # while it compiles

        monkeypatch.setattr(cases_module, "ask_torch", ask)
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path, [Case(SIZE, "fp32", 1)])
        assert json.loads((tmp_path / "out" / "t.json").read_text())["torch"] == {
            "eager 160x96": {"p50": 2.0, "p99": 2.5},
            "why 160x96": "the run was ended before it was done",
        }

    def test_rows_are_in_order_whatever_order_they_were_measured_in(self, gpu: FakeGpu, tmp_path: Path) -> None:
        """A run in parts begins with what matters most."""
        self.run(tmp_path, [Case(SIZE, "fp32", 4), Case(SIZE, "fp32", 2)])
        page = markdown(self.run(tmp_path, [Case(SIZE, "fp32", 1)]))
        rows = [line.split(" | ")[2] for line in page.splitlines() if line.startswith("| 160x96 | fp32 | ")]
        assert rows == ["1", "2", "4"]

    def test_shares_follow_for_what_former_runs_measured_and_all_are_of_the_same_peaks(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where one part of the run had no time left for torch, and every size is a part."""
        first, second = Case(SIZE, "fp32", 1), Case(SIZE, "fp32", 2)
        assert "roofline_share" not in self.run(tmp_path, [first])["cases"][first.name]
        peaks = {"flops": {"fp32": 1e12, "fp16": 2e12, "int8": 4e12}, "memory": 1e12, "h2d": 5e10, "d2h": 5e10}
        monkeypatch.setattr(cases_module, "ask_torch", lambda *_: {"torch": "2", "peaks": peaks}.items())
        cases = self.run(tmp_path, [second])["cases"]
        assert all("roofline_share" in case and "pcie_share" in case for case in cases.values()) and len(cases) == 2
        monkeypatch.setattr(
            cases_module, "ask_torch", lambda *_: {"torch": "2", "peaks": {**peaks, "memory": 9e12}}.items()
        )
        results = self.run(tmp_path, [first, second])
        assert results["torch"]["peaks"] == peaks and results["cases"] == cases

    def test_shares_of_the_peaks_need_peaks(self, gpu: FakeGpu, tmp_path: Path) -> None:
        self.run(tmp_path, [])
        self.put_peaks(tmp_path)
        case = self.run(tmp_path, [Case(SIZE, "fp32", 1)])["cases"]["160x96 fp32 x1"]
        assert case["roofline_ms"] == pytest.approx(1.0)
        assert case["roofline_share"] == pytest.approx(1.0 / case["gpu_ms"]["gpu_inference"], rel=1e-3)
        assert case["pcie_share"] == pytest.approx(200 * 130 * 3 / 5e10 * 1e3 / case["gpu_ms"]["gpu_h2d"], abs=1e-4)


def test_its_pictures_need_no_more_than_the_gpus_python_has() -> None:
    """``tools/gpu_check.sh`` names the packages: SciPy, which scores identities, is not among them."""
    program = "import sys; sys.modules['scipy'] = None; from drive_seg.commands.benchmark import _images as of; "
    program += "print(len(of('sim')))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.strip() == "32", ended.stderr[-1000:]


def test_the_cases_are_those_of_the_table() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) == 12
    assert "960x544 fp16 x4" in names and "1920x1088 int8 x1" in names and "640x384 fp32 x4" not in names


def test_the_gates_reference_is_fetched_from_the_python_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(write_tiny_model(tmp_path, size=SIZE))
    assert reference_of(model, sys.executable, tmp_path) is None, "this Python can"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = reference_of(model, sys.executable, tmp_path)
    assert path is not None and Reference.load(path, model).frames[0].shape == (SIZE[1], SIZE[0], 3)
    with pytest.raises(EngineError, match="no fp32 answers at 160x96"):
        reference_of(model, "/bin/false", tmp_path / "elsewhere")
