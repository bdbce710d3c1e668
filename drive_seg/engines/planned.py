"""Open a model on TensorRT: from the plan in the cache, or after building it."""

from __future__ import annotations

import logging
import shlex
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from drive_seg.engines.build import Job, never, obtain, plan_key
from drive_seg.engines.child import make_in_child
from drive_seg.engines.compiler import BuildProgress
from drive_seg.engines.plan_cache import Plan, PlanCache, PlanKey
from drive_seg.engines.protocol import Engine, EngineOptions
from drive_seg.engines.trt_library import load_tensorrt, strongly_typed
from drive_seg.errors import EngineError, PlanMissing, PlanRefused
from drive_seg.model import Model

_SIGN_OF_LIFE_S = 10.0

_log = logging.getLogger(__name__)


def key_here(model: Model, options: EngineOptions) -> PlanKey:
    """The key of the plan that this machine needs.

    Raises:
        EngineError: no GPU, no TensorRT, or a network that drive_seg did not export.
        ModelError: the model has no graph of that precision.
    """
    if model.decoder is not None:
        raise EngineError(f"model {model.name} has a decoder block, which tensorrt does not obey; use another backend")
    trt, gpu = load_tensorrt(options.gpu_id)
    return plan_key(model, options, gpu, trt.__version__, strongly_typed(trt))


def plan_for(
    model: Model,
    options: EngineOptions,
    progress: BuildProgress | None = None,
    cancelled: Callable[[], bool] = never,
    reference: Path | None = None,
    rebuild: bool = False,
) -> Plan:
    """The plan of ``key_here``, built where it is not in the cache.

    Args:
        progress: default: a line in the log every ten seconds.
        reference: see ``build.Job``.

    Raises:
        PlanMissing: it is not in the cache and ``options.build`` is off.
        EngineError: it cannot be built, or the accuracy gate refused it.
    """
    key = key_here(model, options)
    with ExitStack() as stack:
        folder = options.cache_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="drive_seg_plan_")))
        cache = PlanCache(folder / "tensorrt")
        if not options.build:
            if found := cache.load(key):
                return found
            if options.cache_dir is None:
                raise PlanMissing(
                    f"no engine of {key.text}: no cache folder to keep one; backend tensorrt builds it each time"
                )
            command = shlex.join(_command(model, key, options.gpu_id, folder))
            raise PlanMissing(f"no engine of {key.text} in {cache.folder} yet; make it with: {command}")
        job = Job(model, key, options.gpu_id, reference=reference)
        return obtain(job, cache, make_in_child, progress or _signs_of_life(key), cancelled, rebuild)


def _command(model: Model, key: PlanKey, gpu_id: int, folder: Path) -> list[str]:
    """What makes this very plan: by its defaults ``build-engine`` may make another."""
    command = ["drive_seg", "build-engine", "--model", str(model.path), "--precision", key.precision]
    command += ["--size", f"{key.width}x{key.height}", "--batch", str(key.batch)]
    return [*command, "--gpu", str(gpu_id), "--cache", str(folder)]


def open_tensorrt(model: Model, options: EngineOptions) -> Engine:
    """An engine on the GPU ``options.gpu_id``. A plan that TensorRT does not take here, although it is of this key, is
    as good as absent.

    Raises:
        PlanMissing, EngineError: as ``plan_for``, or the plan does not run.
    """
    try:
        return _open(model, options)
    except PlanRefused as error:
        if options.cache_dir is None:
            raise
        _log.warning("%s; it is removed", error)
        PlanCache(options.cache_dir / "tensorrt").forget(key_here(model, options))
    return _open(model, options)


def _open(model: Model, options: EngineOptions) -> Engine:
    from drive_seg.engines.trt import TrtEngine

    plan = plan_for(model, options)
    return TrtEngine(plan, replace(model, width=plan.key.width, height=plan.key.height), options)


def _signs_of_life(key: PlanKey) -> BuildProgress:
    started = time.monotonic()
    last = [float("-inf")]

    def progress(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _SIGN_OF_LIFE_S:
            last[0] = now
            steps = f" {done}/{total}" if total else ""
            _log.info("building %s: %s%s, %.0f s so far", key.text, phase, steps, now - started)

    return progress
