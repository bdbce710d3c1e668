"""What is asked of TensorRT's builder, on stand-ins of 8.6, 10 and 11 with what these releases have and no more."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import pytest

from drive_seg.engines.compiler import Compiled, compile_plan, source_graph
from drive_seg.engines.plan_cache import PlanKey
from drive_seg.engines.trt_library import strongly_typed
from drive_seg.errors import EngineError
from drive_seg.model import load_model
from drive_seg.resources import find_model

KEY = PlanKey("m", "", 1, "", "", "", 1, "fp16", 640, 384, 4, 512)


KINDS = ("CONVOLUTION", "CONSTANT", "SHAPE", "IDENTITY", "CAST", "ACTIVATION", "POOLING", "ELEMENTWISE", "SELECT")


@dataclasses.dataclass
class Tensor:
    name: str
    dtype: str = "float32"


class Layer:
    """One of a network; what it was asked for is in ``precision`` and ``types``."""

    def __init__(self, kind: str, inputs: list[Tensor | None], output: Tensor) -> None:
        self.type, self.precision, self.types = kind, None, {}
        self.num_inputs, self.num_outputs = len(inputs), 1
        self.get_input = inputs.__getitem__
        self.get_output = [output].__getitem__

    def set_output_type(self, index: int, kind: str) -> None:
        self.types[index] = kind


class Network:
    """Two heads as they are parsed: heat is compared with the highest around it, logits become masks."""

    num_layers, num_outputs = 9, 2

    def __init__(self) -> None:
        head, heat, highest, zero = (Tensor(name) for name in ("head", "heat", "highest", "zero"))
        is_peak, sides, cells = Tensor("is_peak", "bool"), Tensor("sides", "int32"), Tensor("cells")
        self.outputs = [Tensor("centers"), Tensor("semantic", "uint8")]
        self.layers = {
            "head": Layer("CONVOLUTION", [cells, None], head),
            "sigmoid": Layer("ACTIVATION", [head], heat),
            "shape": Layer("SHAPE", [heat], sides),
            "zero": Layer("CONSTANT", [sides], zero),
            "pool": Layer("POOLING", [heat], highest),
            "compare": Layer("ELEMENTWISE", [heat, highest], is_peak),
            "choose": Layer("SELECT", [is_peak, heat, zero], self.outputs[0]),
            "logits": Layer("CONVOLUTION", [cells, None], Tensor("logits")),
            "cast": Layer("CAST", [Tensor("logits")], self.outputs[1]),
        }
        self.get_layer = list(self.layers.values()).__getitem__
        self.get_output = self.outputs.__getitem__


class Release:
    """A ``tensorrt`` module; what was asked of it is in ``asked``."""

    def __init__(self, major: int, fails: str = "") -> None:
        self.asked: dict[str, Any] = {"flags": set(), "cleared": set()}
        self.asked["preview"] = {"sharing"} if major == 10 else set()  # what is on by default
        asked = self.asked
        creation = {8: {"EXPLICIT_BATCH": 0}, 10: {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, 11: {"STRONGLY_TYPED": 1}}
        builder_flags = {"TF32": 7} if major == 11 else {"TF32": 7, "FP16": 0, "INT8": 1}
        if major == 8:
            builder_flags["PREFER_PRECISION_CONSTRAINTS"] = 11
        self.network = parsed = Network()
        self.steps = 0

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

            def __init__(self) -> None: ...

        class TimingCache:
            def __init__(self, content: bytes) -> None:
                self.content = content

            def serialize(self) -> bytes:
                return b"new times"

        class Config:
            progress_monitor: Any = None
            timing: TimingCache | None = None

            def set_memory_pool_limit(self, pool: str, size: int) -> None:
                asked["workspace"] = (pool, size)

            def set_tactic_sources(self, bits: int) -> None:
                asked["sources"] = bits

            def set_flag(self, flag: int) -> None:
                asked["flags"].add(flag)

            def clear_flag(self, flag: int) -> None:
                asked["cleared"].add(flag)

            def add_optimization_profile(self, profile: Any) -> None:
                asked["profile"] = profile.shapes

            def get_preview_feature(self, feature: str) -> bool:
                return feature in asked["preview"]

            def set_preview_feature(self, feature: str, on: bool) -> None:
                assert on and major < 10, "deprecated where it is on anyway"
                asked["preview"].add(feature)

            def create_timing_cache(self, content: bytes) -> TimingCache | None:
                return None if content.startswith(b"damaged") or fails == "timing" else TimingCache(content)

            def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
                if cache.content.startswith(b"of another driver"):
                    return False
                asked["timing"] = (cache.content, ignore_mismatch)
                self.timing = cache
                return True

            def get_timing_cache(self) -> TimingCache | None:
                return self.timing

        class Profile:
            def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
                self.shapes = (name, *shapes)

        class Builder:
            def __init__(self, logger: Any) -> None:
                self.logger = logger
                if fails == "builder":
                    severity = ILogger.WARNING if major == 8 else ILogger.ERROR
                    logger.log(severity, "CUDA initialization failure with error: 35")
                    raise TypeError("pybind11::init(): factory function returned nullptr")

            def create_network(self, flags: int) -> Network:
                asked["creation"] = flags
                return parsed

            def create_builder_config(self) -> Config:
                return Config()

            def create_optimization_profile(self) -> Profile:
                return Profile()

            def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
                if fails == "memory":
                    self.logger.log(ILogger.WARNING, "Tactic Device request: 60MB. Device memory is insufficient")
                if fails in ("build", "memory") or (fails == "half" and 0 in asked["flags"] - asked["cleared"]):
                    self.logger.log(ILogger.ERROR, "could not find any\nimplementation for node conv7")
                    return None
                monitor = config.progress_monitor
                if monitor is not None:
                    monitor.phase_start("Tactics", None, 3)
                    for step in range(3):
                        if not monitor.step_complete("Tactics", step):
                            return None
                        asked["steps"] = step + 1
                    monitor.phase_finish("Tactics")
                return b"FAKE plan" + (b", sharing" if "sharing" in asked["preview"] else b"")

        class OnnxParser:
            num_errors = 1

            def __init__(self, network: Network, logger: Any) -> None: ...

            def parse(self, content: bytes) -> bool:
                asked["graph"] = content
                return fails != "parse"

            def get_error(self, index: int) -> str:
                return "In node 3 (importFoo): UNSUPPORTED_NODE"

        module: Any = types.ModuleType("tensorrt")
        module.__dict__.update(
            __version__=f"{major}.x",
            ILogger=ILogger,
            Builder=Builder,
            OnnxParser=OnnxParser,
            MemoryPoolType=types.SimpleNamespace(WORKSPACE="workspace"),
            TacticSource=types.SimpleNamespace(EDGE_MASK_CONVOLUTIONS=3, JIT_CONVOLUTIONS=4),
            NetworkDefinitionCreationFlag=types.SimpleNamespace(**creation[major]),
            BuilderFlag=types.SimpleNamespace(**builder_flags),
            LayerType=types.SimpleNamespace(**{name: name for name in KINDS}),
            float32="float32",
        )
        if major < 11:
            module.PreviewFeature = types.SimpleNamespace(PROFILE_SHARING_0806="sharing")
        if major >= 10:
            module.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
        self.module = module

    def compile(self, key: PlanKey = KEY, timing: bytes = b"old times", cancelled: Any = lambda: False) -> Compiled:
        self.said: list[tuple[str, int, int]] = []
        return compile_plan(
            self.module, key, b"graph", "image", timing, lambda *step: self.said.append(step), cancelled
        )


def with_precision(precision: str) -> PlanKey:
    return dataclasses.replace(KEY, precision=precision)


@pytest.mark.parametrize(("major", "creation", "typed"), [(8, 1, False), (10, 3, True), (11, 2, True)])
def test_networks_are_typed_where_they_can_be_and_explicit_where_they_must_be(
    major: int, creation: int, typed: bool
) -> None:
    release = Release(major)
    plan, timing, note = release.compile()
    assert plan.startswith(b"FAKE plan") and timing == b"new times" and not note
    assert release.asked["creation"] == creation and strongly_typed(release.module) is typed


@pytest.mark.parametrize(
    ("major", "precision", "flags"),
    [
        (8, "fp32", set()),
        (8, "fp16", {0, 11}),
        (8, "int8", {0, 1, 11}),
        *((major, precision, set()) for major in (10, 11) for precision in ("fp32", "fp16", "int8")),
    ],
)
def test_precision_is_a_flag_in_8_and_in_the_graph_later(major: int, precision: str, flags: set[int]) -> None:
    release = Release(major)
    release.compile(with_precision(precision))
    assert release.asked["flags"] == flags
    assert release.asked["cleared"] == ({7} if precision == "fp32" else set()), "fp32 means fp32, not TF32"
    typed = strongly_typed(release.module)
    model = load_model(find_model("default"))
    assert source_graph(model, precision, typed) == ("fp32" if precision == "fp16" and not typed else precision)


def test_int8_in_8_is_built_without_fp16_where_it_cannot_be_built_with_it() -> None:
    release = Release(8, "half")
    plan, _, note = release.compile(with_precision("int8"))
    assert plan.startswith(b"FAKE plan") and "layers that are not int8 are fp32" in note
    assert release.asked["flags"] - release.asked["cleared"] == {1, 11}
    assert [phase for phase, *_ in release.said] == ["compiling", "compiling, with fp32 beside int8"], "it takes twice"
    with pytest.raises(EngineError, match="cannot build this engine"):
        Release(8, "half").compile(with_precision("fp16"))
    with pytest.raises(EngineError, match="cannot build this engine"):
        Release(8, "build").compile(with_precision("int8"))


@pytest.mark.parametrize(
    ("major", "precision", "asked"),
    [
        (8, "fp16", {"sigmoid", "pool", "choose"}),
        (8, "int8", {"sigmoid", "pool", "choose"}),
        (8, "fp32", set()),
        (10, "fp16", set()),
        (11, "int8", set()),
    ],
)
def test_heat_and_what_it_is_compared_with_are_of_one_type(major: int, precision: str, asked: set[str]) -> None:
    release = Release(major)
    release.compile(with_precision(precision))
    layers = release.network.layers
    assert {name for name, layer in layers.items() if layer.precision == "float32"} == asked
    assert {name for name, layer in layers.items() if layer.types} == asked
    assert all(layers[name].types == {0: "float32"} for name in asked)


@pytest.mark.parametrize("major", [8, 10, 11])
def test_shapes_workspace_timing_and_sources_are_asked_for(major: int) -> None:
    release = Release(major)
    release.compile()
    assert release.asked["profile"] == ("image", (1, 384, 640, 3), (4, 384, 640, 3), (4, 384, 640, 3))
    assert release.asked["workspace"] == ("workspace", 512 << 20)
    assert release.asked["timing"] == (b"old times", False)
    assert release.asked["sources"] == (1 << 3) | (1 << 4), "no cuDNN, no cuBLAS"
    assert release.asked["graph"] == b"graph"


@pytest.mark.parametrize(("major", "shared"), [(8, True), (10, True), (11, False)])
def test_contexts_may_share_the_one_profile(major: int, shared: bool) -> None:
    """8.6 must be asked for it, 10 has it on, 11 knows nothing else."""
    plan = Release(major).compile().plan
    assert (b"sharing" in plan) is shared


@pytest.mark.parametrize("major", [8, 10, 11])
@pytest.mark.parametrize("former", [b"damaged", b"of another driver"])
def test_times_that_are_refused_do_not_cost_the_build(major: int, former: bytes) -> None:
    release = Release(major)
    plan, timing, _ = release.compile(timing=former)
    assert plan.startswith(b"FAKE plan") and timing == b"new times", "and are replaced"
    assert release.asked["timing"] == (b"", False)


@pytest.mark.parametrize("major", [8, 10, 11])
def test_a_plan_is_a_plan_without_any_times(major: int) -> None:
    plan, timing, _ = Release(major, "timing").compile()
    assert plan.startswith(b"FAKE plan") and timing == b""


def test_progress_is_told_where_tensorrt_tells_it() -> None:
    old, new = Release(8), Release(10)
    old.compile()
    assert old.said == [("compiling", 0, 0)]
    new.compile()
    assert new.said == [("Tactics", 0, 3), ("Tactics", 1, 3), ("Tactics", 2, 3), ("Tactics", 3, 3)]


def test_a_build_is_cancelled_between_steps() -> None:
    release = Release(10)
    with pytest.raises(EngineError, match="cancelled"):
        release.compile(cancelled=lambda: len(release.said) >= 3)
    assert release.asked["steps"] == 1


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        ("builder", "cannot make a builder: .*CUDA initialization failure with error: 35"),
        ("parse", r"cannot take this graph: In node 3 \(importFoo\): UNSUPPORTED_NODE"),
        ("build", "cannot build this engine: could not find any implementation for node conv7"),
        ("memory", r"cannot build this engine: could not .* conv7 \| Tactic.* 60MB. Device memory is insufficient"),
    ],
)
@pytest.mark.parametrize("major", [8, 10, 11])
def test_failures_come_with_tensorrts_own_reason(fails: str, message: str, major: int) -> None:
    with pytest.raises(EngineError, match=message):
        Release(major, fails).compile()
