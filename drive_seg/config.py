"""The configuration: one frozen tree that owns the defaults; ROS parameters, and by them YAML files, fill it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from drive_seg.errors import ConfigError
from drive_seg.resources import CACHE, cache_folder

Value = Union[bool, int, float, str, "list[str]"]
QOS_NAMES = ("SENSOR_DATA", "DEFAULT", "SYSTEM_DEFAULT", "BEST_AVAILABLE", "PARAMETERS", "SERVICES_DEFAULT")
SLOWEST_HZ = 1e-6
"""Least rate of a camera: ROS counts the nanoseconds between two images with 64 bits."""
_TOKEN = r"[A-Za-z_{][A-Za-z0-9_{}]*"
_TOPIC_OR_EMPTY = rf"((~?/)?{_TOKEN}(/{_TOKEN})*)?"
"""What ROS takes for a topic's name, before substitutions."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: what a ROS descriptor, a YAML comment and the README say about it.

    Attributes:
        live: may change while the node is configured; others need ``cleanup`` and ``configure``.
        limits: least and most that a number may be.
        choices: the only values a string may have (empty: any).
        pattern: regular expression that a string must match (empty: any); the description says it in words.
    """

    name: str
    default: Value
    description: str
    live: bool = False
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""

    def check(self, value: Any) -> Value:
        """``value`` as this parameter's type.

        Raises:
            ConfigError: wrong type, out of range or not among the choices.
        """
        kind = type(self.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is list:
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
                raise ConfigError(f"{self.name} must be a list of strings, got {value!r}")
            value = list(value)
        elif not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise ConfigError(f"{self.name} must be {kind.__name__}, got {type(value).__name__} {value!r}")
        if self.limits is not None:
            least, most = self.limits
            if not least <= value <= most:
                limit = f"<= {most}" if value > most else f">= {least}"
                raise ConfigError(f"{self.name} must be {limit}, got {value}")
        if self.choices and value not in self.choices:
            choices = ", ".join(choice or "'' (empty)" for choice in self.choices)
            raise ConfigError(f"{self.name} must be one of {choices}; got '{value}'")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise ConfigError(f"{self.name} is '{value}', which it cannot be. {self.description}")
        return value  # type: ignore[no-any-return]


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("cameras", ["front"], "Camera names; one engine serves all of them, batched."),
    Parameter("model", "default", "Model sidecar: path of a YAML file, or the name of a shipped model."),
    Parameter(
        "backend",
        "auto",
        "Inference backend; auto takes the first that works of tensorrt, openvino, onnxruntime.",
        choices=("auto", "tensorrt", "openvino", "onnxruntime"),
    ),
    Parameter(
        "precision",
        "auto",
        "Arithmetic of the network. auto: fp16 on GPUs; with OpenVINO bf16 on CPUs that have it, else int8 on those "
        "with VNNI, else fp32.",
        choices=("auto", "fp32", "fp16", "int8"),
    ),
    Parameter(
        "network_size",
        "auto",
        "Input size of the network: auto takes the shape of the cameras' images, model that of the sidecar; "
        "or WxH in multiples of 32, as 960x544.",
        pattern=r"auto|model|[1-9]\d*x[1-9]\d*",
    ),
    Parameter("gpu_id", 0, "CUDA device of the tensorrt backend.", limits=(0, 63)),
    Parameter("engine_cache_dir", CACHE, "Folder of compiled engines; empty disables the cache."),
    Parameter("score_threshold", 0.3, "Instances with a lower score become unlabelled.", live=True, limits=(0.0, 1.0)),
    Parameter(
        "min_instance_area",
        64,
        "Instances with fewer camera pixels become unlabelled.",
        live=True,
        limits=(0, 1_000_000),
    ),
    Parameter("tracking", True, "Instances keep their identity from frame to frame.", live=True),
    Parameter(
        "track_max_age_s",
        2.0,
        "Seconds that an identity waits for its object to be seen again.",
        live=True,
        limits=(0.0, 60.0),
    ),
    Parameter(
        "output_resolution",
        "native",
        "Size of the maps: the camera's, or the network's without letterbox bars; boxes and lanes are always in camera "
        "pixels.",
        choices=("native", "network"),
    ),
    Parameter("input_qos", "SENSOR_DATA", "QoS profile of the camera subscriptions.", choices=QOS_NAMES),
    Parameter("input_qos_depth", 1, "How many messages a camera subscription keeps.", limits=(1, 100)),
    Parameter("output_qos", "DEFAULT", "QoS profile of the published topics.", choices=QOS_NAMES),
    Parameter("output_qos_depth", 2, "How many messages a published topic keeps.", limits=(1, 100)),
    Parameter(
        "max_age_ms",
        0.0,
        "Frames that are older when they are picked up, in ms, are dropped as stale; 0 is off.",
        live=True,
        limits=(0.0, 60_000.0),
    ),
    Parameter(
        "expected_frequency",
        0.0,
        "Rate in Hz that each camera must keep, watched in /diagnostics; 0 is off.",
        live=True,
        limits=(0.0, 1000.0),
    ),
    Parameter(
        "tolerance",
        0.2,
        "Fraction by which a camera may miss expected_frequency.",
        live=True,
        limits=(0.0, 1.0),
    ),
    Parameter("autostart", True, "Configure and activate at start; not read later."),
)
"""Every parameter but those of the cameras, in the order of the documentation."""


def camera_parameters(camera: str) -> tuple[Parameter, ...]:
    """The parameters ``<camera>.*`` of one camera."""
    topic = "/camera/image_raw" if camera == "front" else f"/{camera}/image_raw"
    return (
        Parameter(
            f"{camera}.image_topic",
            topic,
            "Topic, of letters, digits, _ and /: sensor_msgs/Image, or CompressedImage where it ends in /compressed.",
            pattern=_TOPIC_OR_EMPTY,
        ),
        Parameter(
            f"{camera}.camera_info_topic",
            "",
            "Topic, of letters, digits, _ and /: sensor_msgs/CameraInfo, republished beside the mask; empty is off.",
            pattern=_TOPIC_OR_EMPTY,
        ),
    )


@dataclass(frozen=True)
class CameraConfig:
    """Where one camera's frames come from."""

    name: str
    image_topic: str
    camera_info_topic: str = ""

    @property
    def compressed(self) -> bool:
        """Whether the topic carries CompressedImage."""
        return self.image_topic.endswith("/compressed")


@dataclass(frozen=True)
class Config:
    """Every parameter, checked. See ``PARAMETERS`` for meanings and ranges."""

    cameras: tuple[CameraConfig, ...]
    model: str
    backend: str
    precision: str
    network_size: str
    gpu_id: int
    engine_cache_dir: str
    score_threshold: float
    min_instance_area: int
    tracking: bool
    track_max_age_s: float
    output_resolution: str
    input_qos: str
    input_qos_depth: int
    output_qos: str
    output_qos_depth: int
    max_age_ms: float
    expected_frequency: float
    tolerance: float
    autostart: bool

    @property
    def cache_path(self) -> Path | None:
        """The engine cache folder, or None when it is disabled."""
        return cache_folder(self.engine_cache_dir) if self.engine_cache_dir else None


def load(lookup: Callable[[Parameter], Any]) -> Config:
    """Build the configuration by asking ``lookup`` for every parameter; it may return the parameter's default.

    Raises:
        ConfigError: a value is refused; doubled, empty or ill-formed camera names.
    """
    values: dict[str, Any] = {parameter.name: parameter.check(lookup(parameter)) for parameter in PARAMETERS}
    names = values["cameras"]
    if not names or len(set(names)) != len(names) or not all(name.isascii() and name.isidentifier() for name in names):
        raise ConfigError(f"cameras must be unique names of letters a to z, digits and _, at least one; got {names}")
    cameras = []
    for name in names:
        topic, info = (parameter.check(lookup(parameter)) for parameter in camera_parameters(name))
        if not topic:
            raise ConfigError(f"{name}.image_topic must not be empty")
        cameras.append(CameraConfig(name, str(topic), str(info)))
    return Config(**{**values, "cameras": tuple(cameras)})
