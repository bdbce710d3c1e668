"""``drive_seg build-engine``: a TensorRT engine for this machine, into the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from drive_seg.commands.options import AsJson, Debug, ModelName, Precision, PrecisionName, network_size

EXAMPLES = """[bold]Examples[/bold]

drive_seg build-engine

drive_seg build-engine --precision int8 --size 960x544 --batch 4

drive_seg build-engine --rebuild --json"""


def build_engine(
    model: ModelName = "default",
    precision: PrecisionName = Precision.auto,
    size: Annotated[str, typer.Option("--size", help="Network size WxH, multiples of 32; default: the model's.")] = "",
    batch: Annotated[int, typer.Option("--batch", min=1, max=64, help="Largest batch: the number of cameras.")] = 1,
    gpu: Annotated[int, typer.Option("--gpu", min=0, help="CUDA device.")] = 0,
    cache: Annotated[Path, typer.Option("--cache", help="Folder of the engine cache.")] = Path("~/.cache/drive_seg"),
    reference: Annotated[
        Optional[Path],
        typer.Option("--reference", help="Outputs of the fp32 network, from python -m drive_seg.engines.reference."),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build even if the engine is in the cache.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Build the model's TensorRT engine for this GPU, check it against the fp32 network and cache it.

    Ctrl-C ends the build at once.
    """
    from drive_seg.commands.terminal import phase_bar, report
    from drive_seg.engines import EngineOptions
    from drive_seg.engines.plan_cache import PlanCache
    from drive_seg.engines.planned import plan_for
    from drive_seg.model import open_model

    card = network_size(open_model(model), size or "model", option="--size")
    folder = cache.expanduser()
    options = EngineOptions(precision=precision.value, max_batch=batch, gpu_id=gpu, cache_dir=folder)
    with phase_bar("building the engine") as progress:
        plan = plan_for(card, options, progress, reference=reference, rebuild=rebuild)
    path = PlanCache(folder / "tensorrt").path(plan.key)
    payload: dict[str, Any] = {"engine": str(path), "key": vars(plan.key), **plan.notes}
    agreement = plan.notes["agreement"]
    report(
        as_json,
        payload,
        f"{plan.key.text}\n{path} ({plan.notes['bytes'] / 2**20:.1f} MiB, built in {plan.notes['seconds']} s)\n"
        f"labels equal to the fp32 network's on {agreement['labels_equal']:.3%} of the pixels "
        f"of {agreement['frames']} frames" + (f"\n{note}" if (note := plan.notes.get("note")) else ""),
    )
