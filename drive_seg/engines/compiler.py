"""ONNX to TensorRT plan: everything that is asked of TensorRT's builder, on 8.6, 10 and 11.

What one version has and another has not is asked of the module (``hasattr``), never read off its version number.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from drive_seg.engines.plan_cache import PlanKey
from drive_seg.engines.trt_graph import eight_bit_graph
from drive_seg.engines.trt_library import Said, strongly_typed
from drive_seg.engines.trt_types import decide_in_float
from drive_seg.errors import EngineError
from drive_seg.model import Model

_log = logging.getLogger(__name__)

BuildProgress = Callable[[str, int, int], None]
"""``progress(phase, done, total)``; ``total`` is 0 where TensorRT does not say how far it is."""


class Compiled(NamedTuple):
    """``plan``, the ``timing`` cache for the next build, and a ``note`` where the plan is not what its key says."""

    plan: bytes
    timing: bytes
    note: str = ""


def source_graph(model: Model, precision: str, typed: bool) -> str:
    """Which of the model's graphs ``precision`` is compiled from; ``typed``: see ``strongly_typed``.

    Where types are only hints, the builder rounds the fp32 graph better than we do; a model without one has to do.
    """
    return "fp32" if precision == "fp16" and not typed and "fp32" in model.precisions else precision


def graph_of(model: Model, precision: str, typed: bool) -> bytes:
    """The ONNX content to compile.

    Raises:
        ModelError: the model has no such graph, or it is damaged.
        MissingDependency: int8 needs rewriting and ``onnx`` is not installed.
    """
    content = model.graph(source_graph(model, precision, typed)).read_bytes()
    return eight_bit_graph(content, half=typed) if precision == "int8" else content


def compile_plan(
    trt: Any,
    key: PlanKey,
    graph: bytes,
    input_name: str,
    timing: bytes,
    progress: BuildProgress,
    cancelled: Callable[[], bool],
) -> Compiled:
    """Run the builder.

    Args:
        graph: the ONNX content, see ``graph_of``.
        timing: what was measured by earlier builds; may be empty.
        cancelled: asked between steps where TensorRT has progress monitors (10 and newer).

    Raises:
        EngineError: the graph does not parse or no engine could be built; the message has TensorRT's reasons.
    """
    said = Said(trt)
    try:
        builder = trt.Builder(said.logger)
    except TypeError as error:  # what the binding makes of a null pointer
        raise EngineError(f"TensorRT cannot make a builder: {said.reason()}") from error
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, said.logger)
    if not parser.parse(graph):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise EngineError(f"TensorRT {trt.__version__} cannot take this graph: {reasons or said.reason()}")
    config = builder.create_builder_config()
    _configure(trt, config, key)
    if not strongly_typed(trt) and key.precision != "fp32":
        config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
        decide_in_float(trt, network)
    profile = builder.create_optimization_profile()
    image = (key.height, key.width, 3)
    profile.set_shape(input_name, (1, *image), (key.batch, *image), (key.batch, *image))
    config.add_optimization_profile(profile)
    times = _timing_cache(config, timing)
    if hasattr(trt, "IProgressMonitor"):
        monitor = _monitor(trt, progress, cancelled)
        config.progress_monitor = monitor  # the config does not keep it alive: the name does, until the end
    else:
        progress("compiling", 0, 0)
    plan, note = builder.build_serialized_network(network, config), ""
    if plan is None and key.precision == "int8" and not strongly_typed(trt):
        # 8.6.0 was seen to fail on its own choice between fp16 and fp32 (CostTensor::isFinite), and not without one.
        _log.warning("no int8 engine with fp16 beside it, trying with fp32: %s", said.reason())
        progress("compiling, with fp32 beside int8", 0, 0)
        config.clear_flag(trt.BuilderFlag.FP16)
        plan = builder.build_serialized_network(network, config)
        note = "layers that are not int8 are fp32, as TensorRT could not build them in fp16"
    if plan is None:
        if cancelled():
            raise EngineError("the engine build was cancelled")
        raise EngineError(f"TensorRT {trt.__version__} cannot build this engine: {said.reason()}")
    times = config.get_timing_cache() or times
    return Compiled(bytes(plan), b"" if times is None else bytes(times.serialize()), note)


def _timing_cache(config: Any, content: bytes) -> Any:
    """Former times, or none where TensorRT does not take them (another driver's, a damaged file); None: not even that.

    Whoever called keeps it alive until the engine is built.
    """
    for former in (content, b""):
        cache = config.create_timing_cache(former)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _network_flags(trt: Any) -> int:
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):  # needed by 8.6, gone in 11; from 10 on
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return flags


def _configure(trt: Any, config: Any, key: PlanKey) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, key.workspace_mb << 20)
    # TensorRT's own kernels only: cuDNN and cuBLAS need not be there, and one machine's plan does not depend on them.
    sources = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
    config.set_tactic_sources(sum(1 << int(source) for source in sources))
    # All slots use the one profile. Until 8.6 a second context gets none, and refuses its first batch, without this.
    sharing = getattr(getattr(trt, "PreviewFeature", None), "PROFILE_SHARING_0806", None)
    if sharing is not None and not config.get_preview_feature(sharing):
        config.set_preview_feature(sharing, True)
    if key.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and no more exact than fp16
    if not strongly_typed(trt):
        if key.precision in ("fp16", "int8"):
            config.set_flag(trt.BuilderFlag.FP16)
        if key.precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)


def _monitor(trt: Any, progress: BuildProgress, cancelled: Callable[[], bool]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Phases are nested; what is reported is the innermost that has steps."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self._steps.get(phase_name, 0))
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
