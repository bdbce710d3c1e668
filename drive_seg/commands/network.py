"""``drive_seg train`` and ``export``: thin doors to ``drive_seg.network``, which needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from drive_seg.commands.options import AsJson, Debug, refuse_idle
from drive_seg.errors import MalformedImage, MissingDependency, pip_install

TRAIN_EXAMPLES = """[bold]Examples[/bold]

drive_seg train config/train/driving.yaml

drive_seg train config/train/driving.yaml --steps 200 --out out/train/short"""

EXPORT_EXAMPLES = """[bold]Examples[/bold]

drive_seg export out/train/driving/checkpoint.pt --name mine -o models

drive_seg export out/train/driving/checkpoint.pt --name mine --precision fp16 --precision int8 \\
    --calibration FOLDER --calibration sim

drive_seg export out/train/driving/checkpoint.pt --name mine --adjust vehicle=0.4 --adjust-centers vehicle=-0.4"""

INSTALL = pip_install(extra="train")


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Training configuration.", show_default=False)],
    steps: Annotated[int, typer.Option("--steps", min=0, help="Optimiser steps; 0: as in CONFIG.yaml.")] = 0,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder of the checkpoint; default: as in CONFIG.yaml.")] = "",
    data: Annotated[str, typer.Option("--data", help="Folder of the data sets; default: as in CONFIG.yaml.")] = "",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train the network, or resume from the checkpoint in the output folder."""
    from drive_seg.commands.terminal import progress_bar, report

    try:
        from drive_seg.network.train import Progress
        from drive_seg.network.train import train as learn
        from drive_seg.network.train_config import load_train_config
    except ImportError as error:
        raise MissingDependency("torch", "training", INSTALL) from error
    overrides: dict[str, Any] = {"steps": steps, "out_dir": out, "data_root": data}
    settings = load_train_config(config, **{name: value for name, value in overrides.items() if value})
    last: list[Progress] = []
    with progress_bar("training", settings.steps) as show:

        def progress(state: Progress) -> None:
            last[:] = [state]
            show(state.step)

        checkpoint = learn(settings, progress)
    payload: dict[str, Any] = {"checkpoint": str(checkpoint), "steps": settings.steps}
    if last:
        losses = {"semantic": last[0].semantic, "centers": last[0].centers, "offsets": last[0].offsets}
        payload["losses"] = losses
    report(as_json, payload, f"checkpoint {checkpoint}; export it with: drive_seg export {checkpoint} --name NAME")


def export(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint that drive_seg train wrote.", show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name of the model.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the ONNX file and its sidecar.")] = Path("models"),
    width: Annotated[int, typer.Option("--width", min=32, help="Network width, a multiple of 32.")] = 640,
    height: Annotated[int, typer.Option("--height", min=32, help="Network height, a multiple of 32.")] = 384,
    precision: Annotated[
        Optional[list[str]],
        typer.Option("--precision", help="fp16 or int8, written in addition to fp32; may be repeated."),
    ] = None,
    calibration: Annotated[
        Optional[list[str]],
        typer.Option(
            "--calibration",
            metavar="FOLDER|sim",
            help="Images, or the simulator, that calibrate the int8 scales; may be repeated.",
        ),
    ] = None,
    adjust: Annotated[
        Optional[list[str]],
        typer.Option(
            "--adjust",
            metavar="CLASS=LOGITS",
            help="Add to a class's logits: predict it more (0.4) or less; may be repeated.",
        ),
    ] = None,
    adjust_centers: Annotated[
        Optional[list[str]],
        typer.Option(
            "--adjust-centers", metavar="CLASS=LOGITS", help="The same for the centers of its objects; may be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Export a checkpoint as ONNX with its sidecar: a model that every other command accepts."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise typer.BadParameter(f"--name must be the name of a model, its folder is --out; got '{name}'")
    if width % 32 or height % 32:
        raise typer.BadParameter(f"--width and --height must be multiples of 32, got {width}x{height}")
    from drive_seg.frame import check_size
    from drive_seg.model import PRECISIONS

    try:
        check_size(width, height)
    except MalformedImage as error:  # the sidecar would be refused by whoever opens it
        raise typer.BadParameter(f"--width and --height: {error}") from error

    unknown = sorted(set(precision or ()) - set(PRECISIONS))
    if unknown:
        raise typer.BadParameter(f"--precision must be one of {', '.join(PRECISIONS)}, got {', '.join(unknown)}")
    if "int8" not in (precision or ()):
        refuse_idle(context, "no int8 is written; ask for it with --precision int8", "calibration")
    from drive_seg.commands.terminal import phase_bar, report

    logits = [_logits("--adjust", adjust), _logits("--adjust-centers", adjust_centers)]
    try:
        from drive_seg.network.adjustment import LogitAdjustment
        from drive_seg.network.export import export_onnx
    except ImportError as error:
        raise MissingDependency("torch", "export", INSTALL) from error
    with phase_bar("exporting") as progress:
        sidecar = export_onnx(
            checkpoint,
            out,
            name,
            size=(width, height),
            precisions=tuple(precision or ("fp32",)),
            calibration=calibration or (),
            adjustment=LogitAdjustment(*logits) if any(logits) else None,
            progress=progress,
        )
    report(as_json, {"model": str(sidecar)}, f"model {sidecar}; try it with: drive_seg demo --model {sidecar}")


def _logits(option: str, given: Sequence[str] | None) -> dict[str, float]:
    """``NAME=NUMBER`` of a repeated option."""
    logits = {}
    for one in given or ():
        name, _, number = one.partition("=")
        try:
            logits[name] = float(number)
        except ValueError:
            raise typer.BadParameter(f"{option} takes CLASS=LOGITS as vehicle=0.4, got '{one}'") from None
        if not abs(logits[name]) <= 10:
            raise typer.BadParameter(f"{option} takes logits between -10 and 10, got '{one}'")
    return logits
