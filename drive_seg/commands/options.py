"""Options that several commands have."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from drive_seg.model import Model

_state = {"debug": False}


def _set_debug(value: bool) -> bool:
    _state["debug"] = _state["debug"] or value
    return value


def debug_wanted() -> bool:
    """Whether ``--debug`` was given, before or after the command."""
    return _state["debug"]


class Backend(str, Enum):
    """Choices of ``--backend``."""

    auto = "auto"
    tensorrt = "tensorrt"
    openvino = "openvino"
    onnxruntime = "onnxruntime"


class Precision(str, Enum):
    """Choices of ``--precision``."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class Weather(str, Enum):
    """Choices of ``--weather``; ``any`` leaves it to the seed."""

    any = "any"
    clear = "clear"
    overcast = "overcast"
    dusk = "dusk"
    night = "night"
    rain = "rain"
    fog = "fog"


SIM_FRAMES = 300
"""Frames of the simulator, which is endless, where nobody says how many."""

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", callback=_set_debug)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
ModelName = Annotated[str, typer.Option("--model", help="Name of a shipped model, or path of a sidecar YAML.")]
BackendName = Annotated[Backend, typer.Option("--backend", help="Inference backend; auto picks the best available.")]
PrecisionName = Annotated[Precision, typer.Option("--precision", help="Arithmetic of the network.")]
Topic = Annotated[
    str, typer.Option("--topic", help="Image topic of a bag; default: its only one, or its only image_raw.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Seed of the simulated drive.")]
SimWeather = Annotated[Weather, typer.Option("--weather", help="Weather of the simulator; any: chosen by the seed.")]
Frames = Annotated[
    int, typer.Option("--frames", min=0, help=f"Stop after this many frames; 0: all (sim: {SIM_FRAMES}).")
]
ScoreThreshold = Annotated[
    float, typer.Option("--score-threshold", min=0.0, max=1.0, help="Lowest score of an instance.")
]
MinInstanceArea = Annotated[
    int, typer.Option("--min-instance-area", min=0, help="Smallest area of an instance, pixels.")
]
Latency = Annotated[
    bool,
    typer.Option("--latency", help="One frame at a time on all cores instead of several in parallel; slower."),
]
Track = Annotated[bool, typer.Option("--track/--no-track", help="Give instances identities that last over frames.")]
TrackMaxAge = Annotated[
    float,
    typer.Option(
        "--track-max-age", min=0.0, max=60.0, help="Seconds that an identity waits for its object to be seen again."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Output = Annotated[Path, typer.Option("--out", "-o", help="Where the results go.", show_default=False)]


NetworkSize = Annotated[
    str,
    typer.Option(
        "--network-size",
        help="auto: the shape of the source's images; model: that of the sidecar; or WxH, e.g. 960x544.",
    ),
]


def given(context: typer.Context, *names: str) -> list[str]:
    """As they are typed, the options of these parameters that the user gave another value than theirs."""
    found = []
    for parameter in context.command.params:
        name = parameter.name or ""
        # By its name: typer brings a click of its own, or takes the one that is installed.
        typed = getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        value = context.params.get(name)
        if name in names and typed and value != parameter.default:
            found.append((parameter.secondary_opts if value is False else parameter.opts)[0])
    return found


def refuse_idle(context: typer.Context, why: str, *names: str) -> None:
    """Refuse the options of these parameters, which would have no effect.

    Raises:
        typer.BadParameter: one was given; the message has ``why``.
    """
    idle = given(context, *names)
    if idle:
        raise typer.BadParameter(f"no effect: {why}", param_hint=" and ".join(idle))


def network_size(
    model: Model, size: str, camera: tuple[int, int] | None = None, option: str = "--network-size"
) -> Model:
    """``Model.sized``; what it refuses is bad usage of ``option``."""
    from drive_seg.errors import ConfigError

    try:
        return model.sized(size, camera)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
