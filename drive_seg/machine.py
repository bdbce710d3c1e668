"""What this machine has: ROS, GPU, backends, and what ``auto`` picks. Imports nothing of what it looks for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from drive_seg.engines import EngineOptions, availability, open_engine
from drive_seg.engines.driver import find_gpus
from drive_seg.engines.instructions import has_vnni
from drive_seg.engines.threads import cpu_threads
from drive_seg.errors import DriveSegError, EngineError
from drive_seg.model import Model, load_model, open_model
from drive_seg.resources import installed_models

_WHEEL_DISTROS = {"7.1": "jazzy", "9.1": "kilted"}
"""rclpy's version by distribution, for the wheels of PyPI."""
_PROC = Path("/proc")


def describe_machine() -> dict[str, Any]:
    """Versions, CPU, ROS, GPU and backends; every absence with its reason."""
    from drive_seg.offline.summary import versions

    return {
        "versions": versions(),
        "cpu": {
            "cores": cpu_threads(),
            "machine": platform.machine(),
            "vnni": has_vnni(),
            "system": platform.platform(terse=True),
        },
        "ros": _ros(),
        "gpu": _gpu(),
        "backends": {row.backend: "available" if row.available else row.reason for row in availability()},
        "models": {path.stem: _model_line(path) for path in installed_models()},
    }


def _model_line(path: Path) -> str:
    try:
        model = load_model(path)
    except DriveSegError as error:
        return str(error)
    return f"{model.width}x{model.height}, {' '.join(model.precisions)}"


def hardware(proc: Path = _PROC) -> dict[str, Any]:
    """What figures were measured on: processor (an ARM board by its own name), cores that may be used, system, GPUs."""
    return {
        "cpu": _processor(proc),
        "cores": cpu_threads(),
        "system": platform.platform(terse=True),
        "gpu": _gpu().get("devices", []),
    }


def _processor(proc: Path) -> str:
    with suppress(OSError):  # boards with a device tree: their kernels name no processor, or only its instruction set
        board = (proc / "device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0 \n")
        if board:
            return board
    with suppress(OSError):  # only Linux has it
        lines = (proc / "cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def ros_distro() -> str:
    """Name of the ROS distribution whose rclpy is importable, ``none`` without one."""
    return _ros()["distro"]


def _ros() -> dict[str, str]:
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None:
        return {"distro": "none", "why": "rclpy is not importable; source /opt/ros/DISTRO/setup.bash, or make venv"}
    distro = os.environ.get("ROS_DISTRO", "")
    source = str(Path(spec.origin).parent)
    try:
        version = importlib.metadata.version("ros-rclpy")
        distro, source = _WHEEL_DISTROS.get(version[:3], "unknown"), f"wheels from PyPI (ros-rclpy {version})"
    except importlib.metadata.PackageNotFoundError:
        pass  # an installed ROS, named by its environment
    messages = "available" if importlib.util.find_spec("vision_msgs") else "missing; apt install ros-DISTRO-vision-msgs"
    return {"distro": distro or "unknown", "from": source, "vision_msgs": messages}


def _gpu() -> dict[str, Any]:
    try:
        devices = [f"{gpu.name}, {gpu.architecture}, {gpu.memory_mb} MiB, CUDA {gpu.driver}" for gpu in find_gpus()]
    except EngineError as error:
        return {"found": False, "why": str(error)}
    return {"found": True, "devices": devices} if devices else {"found": False, "why": "the driver lists no GPU"}


def try_auto(model: str) -> dict[str, str]:
    """Open ``model`` as ``auto`` would and say what that was, or why nothing can run it."""
    try:
        with open_engine(open_model(model), "auto", EngineOptions()) as engine:
            opened = engine.info
    except DriveSegError as error:
        return {"backend": "none", "why": str(error)}
    return {
        "backend": opened.backend,
        "precision": opened.precision,
        "device": opened.device,
        "version": opened.version,
        "why": opened.reason,
    }


def describe_model(name: str) -> dict[str, Any]:
    """The sidecar's content, every file's digest checked.

    Raises:
        ModelError: the sidecar or one of its files is missing, damaged or inconsistent.
    """
    model = open_model(name)
    for file in model.onnx.values():
        file.verify()
    return {
        "name": model.name,
        "sidecar": str(model.path),
        "input": f"{model.width}x{model.height} {_input_of(model)}",
        "labels": [f"{label.id} {label.name}{' (thing)' if label.thing else ''}" for label in model.labels],
        "onnx": {precision: f"{file.path} (sha256 agrees)" for precision, file in model.onnx.items()},
        "metrics": dict(model.metrics) or "none stated",
        "training_data": str(model.training_data),
        "license": model.license,
    }


def _input_of(model: Model) -> str:
    """What the network is fed: ``uint8 NHWC RGB``."""
    if model.decoder is None:
        return "uint8 NHWC RGB"
    return f"{model.decoder.dtype} {model.decoder.layout} {model.decoder.color.upper()} by its decoder block"
