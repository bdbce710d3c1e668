"""The model sidecar ``models/NAME.yaml``: loads it, checks it, finds the right ONNX."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from drive_seg.documents import block_of, read_yaml, whole_number
from drive_seg.errors import ConfigError, ModelError
from drive_seg.foreign import Decoder
from drive_seg.labels import LabelSet
from drive_seg.network_size import STEP, fitted_size, too_large
from drive_seg.ranges import check_number
from drive_seg.resources import POINTER, find_model, is_pointer

PRECISIONS = ("fp32", "fp16", "int8")
_OURS = {"layout": "NHWC", "dtype": "uint8", "color": "rgb"}
"""What our own networks are fed."""


@dataclass(frozen=True)
class OnnxFile:
    """One precision's graph and the digest it must have."""

    path: Path
    sha256: str

    def verify(self) -> None:
        """Read the file and compare its digest.

        Raises:
            ModelError: the file is missing or is not the one the sidecar describes.
        """
        if not self.path.is_file():
            raise ModelError(f"model file {self.path} does not exist; restore it or correct `onnx:` in the sidecar")
        digest = _sha256(self.path)
        if digest != self.sha256:
            with self.path.open("rb") as file:
                if is_pointer(file.read(256)):
                    raise ModelError(f"model file {self.path} is {POINTER}")
            raise ModelError(
                f"model file {self.path} has sha256 {digest}, its sidecar expects {self.sha256}; "
                "the file is damaged or was replaced: restore it, or update the sidecar after a new export"
            )


@dataclass(frozen=True)
class OutputNames:
    """The graph's output tensors by meaning."""

    semantic: str = "semantic"
    confidence: str = "confidence"
    centers: str = "centers"
    offsets: str = "offsets"


@dataclass(frozen=True)
class Model:
    """A checked sidecar. ``width`` and ``height``: the network's input size in pixels.

    Raises:
        ModelError: a field is missing or has an unusable value.
    """

    name: str
    width: int
    height: int
    input_name: str
    outputs: OutputNames
    labels: LabelSet
    onnx: Mapping[str, OnnxFile]
    path: Path
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training_data: Any = None
    license: str = ""
    decoder: Decoder | None = None
    """How a network of another make is fed and read; None for those that drive_seg exports."""

    def __post_init__(self) -> None:
        for side, value in (("width", self.width), ("height", self.height)):
            if value <= 0 or value % STEP:
                raise ModelError(f"{self.path}: input {side} must be a positive multiple of {STEP}, got {value}")
        if reason := too_large(self.width, self.height):
            raise ModelError(f"{self.path}: the input cannot be: {reason}")
        self.labels.check_panoptic()
        if not self.onnx:
            raise ModelError(f"{self.path}: `onnx:` must name at least one of {', '.join(PRECISIONS)}")

    def fitted(self, camera: tuple[int, int] | None) -> Model:
        """This model with an input of the shape of a camera's images, see ``network_size.fitted_size``.

        Networks of another make are left as they are: their graphs have one size.

        Args:
            camera: (width, height) in pixels; None where that is not known changes nothing.

        Raises:
            ConfigError: ``camera`` is no such size.
        """
        if camera is None:
            return self
        if not isinstance(camera, tuple | list) or len(camera) != 2:
            raise ConfigError(f"camera must be (width, height) in pixels, got {camera!r:.80}")
        for name, side in zip(("width", "height"), camera, strict=True):
            check_number(f"camera {name}", side, 1, whole=True)
        if self.decoder is not None:
            return self
        width, height = fitted_size((int(camera[0]), int(camera[1])), (self.width, self.height))
        return replace(self, width=width, height=height)

    def sized(self, size: str, camera: tuple[int, int] | None = None) -> Model:
        """This model with an input of the size that a user asks for.

        Args:
            size: ``auto`` fits it to ``camera``, ``model`` keeps the sidecar's, ``960x544`` is width x height.

        Raises:
            ConfigError: it is none of these, no multiples of 32, or too large.
        """
        if size == "auto":
            return self.fitted(camera)
        if size == "model":
            return self
        width, _, height = size.lower().partition("x")
        sides = [int(side) if side.isdecimal() else 0 for side in (width, height)]
        if not all(side > 0 and side % STEP == 0 for side in sides):
            raise ConfigError(
                f"the network size must be auto, model, or WxH in multiples of {STEP} as 960x544; got '{size}'"
            )
        if reason := too_large(*sides):
            raise ConfigError(f"the network size cannot be: {reason}")
        return replace(self, width=sides[0], height=sides[1])

    @cached_property
    def precisions(self) -> tuple[str, ...]:
        """The precisions this model has a graph for, the highest first: what a CPU takes unless it is told."""
        return tuple(p for p in PRECISIONS if p in self.onnx)

    @property
    def output_names(self) -> list[str]:
        """The tensors that a graph is asked for."""
        return list(vars(self.outputs).values()) if self.decoder is None else [self.decoder.output]

    def input_shape(self, batch: Any) -> list[Any]:
        """The shape of the tensor that a graph is fed."""
        if self.decoder is None:
            return [batch, self.height, self.width, 3]
        return self.decoder.shape(batch, self.height, self.width)

    def graph(self, precision: str) -> Path:
        """Path of the verified ONNX file for ``precision``.

        Raises:
            ModelError: the model has none, or the file fails its check.
        """
        if precision not in self.onnx:
            raise ModelError(f"model {self.name} has no {precision} graph, it has {', '.join(self.precisions)}")
        self.onnx[precision].verify()
        return self.onnx[precision].path


def _sha256(path: Path) -> str:
    """Hex digest, read piece by piece: what a sidecar points at may be larger than memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def open_model(spec: str | Path) -> Model:
    """The model of a sidecar's path, or of a name that is installed; raises ModelError, as ``load_model``."""
    return load_model(find_model(spec))


def load_model(path: Path) -> Model:
    """Read and check a sidecar YAML.

    Raises:
        ModelError: missing file, invalid YAML, missing or unusable fields, a path that leaves the sidecar's folder.
    """
    tree = read_yaml(path, "model sidecar", ModelError)
    if not isinstance(tree, Mapping):
        raise ModelError(f"model sidecar {path} must be a mapping, got {type(tree).__name__}")
    try:
        if tree.get("task") != "panoptic":
            raise ValueError(f"task must be 'panoptic', got {tree.get('task')!r:.80}")
        missing = [key for key in ("name", "onnx", "input", "labels") if key not in tree]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for key, kind, what in (("onnx", Mapping, "mapping of precisions"), ("labels", list, "list")):
            if not isinstance(tree[key], kind):
                raise ValueError(f"`{key}` must be a {what}, got {tree[key]!r:.80}")
        labels = LabelSet.from_dicts(tree["labels"])
        decoder = None
        if tree.get("decoder") is None:
            size = block_of(tree["input"], "input", ("width", "height", *_OURS), ("name", "mean", "std"))
            got = {key: value for key, value in size.items() if key not in ("name", "width", "height")}
            if got != _OURS:
                raise ValueError(f"input must be {_OURS}, got {got!r:.200}; another needs a `decoder:`")
        else:
            size = block_of(tree["input"], "input", ("width", "height"), ("name", *_OURS, "mean", "std"))
            decoder = Decoder.from_sidecar(tree["decoder"], size, labels)
        outputs = block_of(tree.get("outputs", {}), "outputs", (), [output.name for output in fields(OutputNames)])
        return Model(
            name=str(tree["name"]),
            width=whole_number(size["width"], "input width"),
            height=whole_number(size["height"], "input height"),
            input_name=str(size.get("name", "image")),
            outputs=OutputNames(**{name: str(tensor) for name, tensor in outputs.items()}),
            labels=labels,
            onnx={p: _onnx_file(path, p, entry) for p, entry in tree["onnx"].items()},
            path=path,
            metrics=_metrics(tree.get("metrics") or {}),
            training_data=tree.get("training_data"),
            license=str(tree.get("license", "")),
            decoder=decoder,
        )
    except ModelError as error:
        raise ModelError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    except ValueError as error:
        raise ModelError(f"model sidecar {path} is incomplete or malformed: {error}") from error
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"model sidecar {path} is incomplete or malformed: {type(error).__name__}: {error}") from error


def _metrics(stated: Any) -> Mapping[str, Any]:
    if not isinstance(stated, Mapping):
        raise ValueError(f"metrics must be a mapping, got {stated!r}")
    return {str(name): _figure(value) for name, value in stated.items()}


def _figure(value: Any) -> Any:
    """As JSON can have it: YAML also knows dates, sets, bytes and numbers that are none."""
    if isinstance(value, Mapping):
        return {str(name): _figure(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_figure(part) for part in value]
    is_plain = value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else str(value)


def _onnx_file(sidecar: Path, precision: str, entry: Any) -> OnnxFile:
    if precision not in PRECISIONS:
        raise ModelError(f"{sidecar}: onnx precision must be one of {', '.join(PRECISIONS)}, got '{precision}'")
    entry = block_of(entry, f"onnx: {precision}", ("path", "sha256"), ())
    folder = sidecar.parent.resolve()
    try:
        file = (folder / str(entry["path"])).resolve()
        file.is_file()
    except (OSError, RuntimeError) as error:  # too long a name; links that go round in circles
        raise ModelError(f"{sidecar}: onnx path '{str(entry['path'])[:80]}' cannot be: {error!s:.200}") from error
    if folder not in file.parents:
        raise ModelError(f"{sidecar}: onnx path '{entry['path']}' leaves the folder of the sidecar")
    return OnnxFile(file, str(entry["sha256"]).lower())
