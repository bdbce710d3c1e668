"""The builder's process: ``python -m drive_seg.engines.builder REQUEST ANSWER``.

TensorRT's builder can take many minutes, cannot be interrupted before version 10, and may take its process with it; so
it has one of its own. The request is JSON, progress are JSON lines on standard output, and the answer is a .npz.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from drive_seg.engines.build import Job, Made, never
from drive_seg.engines.compiler import BuildProgress, compile_plan, graph_of
from drive_seg.engines.gate import compare_engine
from drive_seg.engines.plan_cache import Plan, PlanKey
from drive_seg.engines.protocol import EngineOptions
from drive_seg.engines.reference import Reference, compute, simulated_frames
from drive_seg.engines.trt_library import load_tensorrt, strongly_typed
from drive_seg.errors import DriveSegError
from drive_seg.model import load_model


def make(job: Job, progress: BuildProgress) -> Made:
    """Compile and judge, in this process.

    Raises:
        DriveSegError: it cannot be built or run.
    """
    from drive_seg.engines.cuda import Arena
    from drive_seg.engines.trt import TrtEngine

    trt, _ = load_tensorrt(job.gpu_id)
    key = job.key
    model = replace(job.model, width=key.width, height=key.height)
    graph = graph_of(model, key.precision, strongly_typed(trt))
    # Before the minutes that compiling takes: there may be nothing to compare with.
    progress("getting what the fp32 network says", 0, 0)
    reference = Reference.load(job.reference, model) if job.reference else compute(model, simulated_frames(model))
    with Arena(job.gpu_id).active("compile the engine"):  # TensorRT compiles for, and measures on, the current GPU
        compiled = compile_plan(trt, key, graph, model.input_name, job.timing, progress, never)
    progress("comparing with the fp32 network", 0, 0)
    with TrtEngine(Plan(key, compiled.plan, {}), model, EngineOptions(gpu_id=job.gpu_id)) as engine:
        agreement = compare_engine(engine, reference, [label.id for label in model.labels.things])
    return Made(compiled.plan, compiled.timing, agreement, compiled.note)


def write_request(path: Path, job: Job) -> None:
    """Put a job into a file."""
    fields = {
        "sidecar": str(job.model.path),
        "key": vars(job.key),
        "gpu_id": job.gpu_id,
        "reference": str(job.reference) if job.reference else "",
        "timing": job.timing.hex(),
    }
    path.write_text(json.dumps(fields), encoding="utf-8")


def read_request(path: Path) -> Job:
    """Take it out again."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Job(
        load_model(Path(fields["sidecar"])),
        PlanKey(**fields["key"]),
        fields["gpu_id"],
        bytes.fromhex(fields["timing"]),
        Path(fields["reference"]) if fields["reference"] else None,
    )


def write_answer(path: Path, made: Made) -> None:
    """Put what was made into a file, which is there once it is whole."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            plan=np.frombuffer(made.plan, np.uint8),
            timing=np.frombuffer(made.timing, np.uint8),
            agreement=np.array(json.dumps(made.agreement.as_dict())),
            note=np.array(made.note),
        )
    part.replace(path)


def main() -> int:
    """0: the answer is written. 1: the last line of standard output has ``error``."""
    # Ctrl-C ends this process at once: there is nothing to tidy up, and TensorRT 8 would not let Python hear of it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _die_with_parent()
    # What libraries print must not get between the progress lines.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def progress(phase: str, done: int, total: int) -> None:
        lines.write(json.dumps({"phase": phase, "done": done, "total": total}) + "\n")

    try:
        write_answer(Path(sys.argv[2]), make(read_request(Path(sys.argv[1])), progress))
    except DriveSegError as error:
        lines.write(json.dumps({"error": str(error)}) + "\n")
        return 1
    return 0


def _die_with_parent() -> None:
    """Linux: be killed when the process that asked is gone, however it went."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    sys.exit(main())
