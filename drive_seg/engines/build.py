"""From a model to a plan that may be used: found in the cache, or built, judged and kept, once for all processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drive_seg.engines.compiler import BuildProgress, source_graph
from drive_seg.engines.driver import Gpu
from drive_seg.engines.gate import LIMITS, Agreement
from drive_seg.engines.plan_cache import Plan, PlanCache, PlanKey, write_atomically
from drive_seg.engines.protocol import EngineOptions
from drive_seg.errors import EngineError
from drive_seg.model import Model

RECIPE = 3
"""Raise it with every change to the rewriting of graphs or to what is asked of the builder: old plans are stale."""
WORKSPACE_MB = 2048
_POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """What a maker is asked for.

    Attributes:
        model: the sidecar; its ``width`` and ``height`` are replaced by the key's.
        timing: the timing cache, may be empty.
        reference: answers of the fp32 network from ``python -m drive_seg.engines.reference``; None computes them.
    """

    model: Model
    key: PlanKey
    gpu_id: int
    timing: bytes = b""
    reference: Path | None = None


@dataclass(frozen=True)
class Made:
    """What a maker gives: the plan, the timing cache to keep, how it agrees with the fp32 network, and a ``note`` where
    it is not quite what was asked for."""

    plan: bytes
    timing: bytes
    agreement: Agreement
    note: str = ""


Maker = Callable[[Job, BuildProgress, Callable[[], bool]], Made]
"""``make(job, progress, cancelled)``; raises EngineError when it fails or was cancelled."""


def never() -> bool:
    """Not cancelled."""
    return False


def silent(phase: str, done: int, total: int) -> None:
    """No progress wanted."""


def plan_key(model: Model, options: EngineOptions, gpu: Gpu, tensorrt: str, typed: bool) -> PlanKey:
    """The key of the plan that ``options`` ask for on this machine.

    Args:
        tensorrt: its version.
        typed: whether it is strongly typed, which decides the graph that is compiled.

    Raises:
        ModelError: the model has no graph of that precision.
    """
    precision = choose_precision(model, options.precision)
    source = source_graph(model, precision, typed)
    model.graph(source)  # there, and unchanged
    return PlanKey(
        model=model.name,
        onnx_sha256=model.onnx[source].sha256,
        recipe=RECIPE,
        tensorrt=tensorrt,
        gpu=gpu.name,
        capability="{}.{}".format(*gpu.capability),
        multiprocessors=gpu.multiprocessors,
        precision=precision,
        width=model.width,
        height=model.height,
        batch=options.max_batch,
        workspace_mb=WORKSPACE_MB,
    )


def choose_precision(model: Model, asked: str) -> str:
    """``auto`` is fp16 where the model has it: no loss that shows, and every GPU since 2018 is made for it."""
    if asked != "auto":
        return asked
    return "fp16" if "fp16" in model.precisions else model.precisions[0]


def obtain(
    job: Job,
    cache: PlanCache,
    make: Maker,
    progress: BuildProgress = silent,
    cancelled: Callable[[], bool] = never,
    rebuild: bool = False,
) -> Plan:
    """The plan of ``job.key``: from the cache, or built, judged and stored.

    Of several processes that want the same plan one builds and the others wait for it; whichever of them is killed,
    the next goes on.

    Args:
        rebuild: build even if there is one.

    Raises:
        EngineError: it cannot be built, was cancelled, or disagrees with the fp32 network (nothing is stored then).
    """

    def kept() -> Plan | None:
        return None if rebuild else cache.load(job.key)

    while (plan := kept()) is None:
        with cache.locked(job.key) as mine:
            if mine:  # another process may just have finished it
                return kept() or _build(job, cache, make, progress, cancelled)
        progress("waiting for another process that builds it", 0, 0)
        if cancelled():
            raise EngineError("the engine build was cancelled")
        time.sleep(_POLL_S)
    return plan


def _build(job: Job, cache: PlanCache, make: Maker, progress: BuildProgress, cancelled: Callable[[], bool]) -> Plan:
    timing = cache.timing_path(job.key)
    started = time.monotonic()
    made = make(replace(job, timing=_content(timing)), progress, cancelled)
    if made.timing:  # also those of an engine that is refused: whoever tries again need not measure them again
        with suppress(EngineError):  # as when there is none to read: the plan counts
            write_atomically(timing, made.timing)
    judge(job.key, made.agreement)
    notes: dict[str, Any] = {
        "seconds": round(time.monotonic() - started, 1),
        "agreement": made.agreement.as_dict(),
        "bytes": len(made.plan),
        "note": made.note,
    }
    plan = Plan(job.key, made.plan, notes)
    cache.store(plan)
    return plan


def _content(timing: Path) -> bytes:
    """Nothing where there is none, or none that may be read: it only saves time."""
    try:
        return timing.read_bytes()
    except OSError:
        return b""


def judge(key: PlanKey, agreement: Agreement) -> None:
    """Let an engine pass.

    Raises:
        EngineError: it disagrees with the fp32 network; the message has the figures.
    """
    misses = agreement.misses(LIMITS[key.precision])
    if misses:
        raise EngineError(
            f"the new {key.precision} engine disagrees with the fp32 network on {agreement.frames} frames and is "
            f"refused: {', '.join(misses)}; try another precision, or another TensorRT than {key.tensorrt}"
        )
