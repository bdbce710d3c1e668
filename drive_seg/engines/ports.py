"""What a graph says it takes and gives, held against the model's sidecar before anything is compiled or run.

The backends would refuse most of it, too, but each in its own words, without the sidecar's field that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drive_seg.errors import EngineError
from drive_seg.model import Model

_TYPES = {"f32": "float32", "f16": "float16", "f64": "float64", "u8": "uint8", "i8": "int8", "i32": "int32"}
_TYPES |= {"i64": "int64", "float": "float32", "double": "float64"}
"""NumPy's names of the types that OpenVINO and ONNX Runtime have others for."""


@dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        names: OpenVINO may have several for one tensor.
        dtype: as the backend calls it.
        shape: None for a side that is not fixed; empty where nothing is known.
    """

    names: tuple[str, ...]
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def type(self) -> str:
        """``float32``."""
        return _TYPES.get(self.dtype, self.dtype)

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"'{' or '.join(self.names)}' {self.type} ({sides or 'any shape'})"


def check_ports(
    model: Model, precision: str, inputs: Sequence[Port], outputs: Sequence[Port], max_batch: int, reshapes: bool
) -> None:
    """See that the graph of ``precision`` has what the sidecar names, and takes what it would be fed.

    Args:
        reshapes: the backend gives a graph of fixed sides other ones; how many there are and the colours stay.

    Raises:
        EngineError: it does not; with what was expected, what is there and the field to correct.
    """
    path = model.onnx[precision].path
    found = next((port for port in inputs if model.input_name in port.names), None)
    if found is None:
        raise EngineError(f"{path}: no input '{model.input_name}', it has {_list(inputs)}; correct `input: name`")
    if len(inputs) > 1:
        raise EngineError(f"{path}: expected '{model.input_name}' to be the only input, it has {_list(inputs)}")
    _check_input(model, f"{path}: input {found}", found, max_batch, reshapes)
    for name in model.output_names:
        if not any(name in port.names for port in outputs):
            field = "outputs" if model.decoder is None else "decoder: output"
            raise EngineError(f"{path}: no output '{name}', it has {_list(outputs)}; correct `{field}`")


def _check_input(model: Model, what: str, port: Port, max_batch: int, reshapes: bool) -> None:
    dtype = "uint8" if model.decoder is None else model.decoder.dtype
    if port.type != dtype:
        raise EngineError(f"{what}: the sidecar says {dtype}; correct `input: dtype`, or cast in the graph")
    shape = model.input_shape(None)
    fits = not port.shape or len(port.shape) == len(shape)
    if fits and port.shape:
        colors = shape.index(3, 1)
        compared = [colors] if reshapes else range(1, len(shape))
        fits = all(port.shape[k] in (None, shape[k]) for k in compared)
    if not fits:
        raise EngineError(
            f"{what}: (N, {', '.join(map(str, shape[1:]))}) would be fed; correct `input:` (width, height, layout) "
            "or export the graph with these sides dynamic; one of a fixed size needs `network_size: model`"
        )
    if not reshapes and port.shape and port.shape[0] is not None and {1, max_batch} != {port.shape[0]}:
        batches = "1" if max_batch == 1 else f"1 to {max_batch}"
        raise EngineError(f"{what}: batches of {batches} are wanted; export the graph with its first side dynamic")


def _list(ports: Sequence[Port]) -> str:
    return ", ".join(map(str, ports)) or "none"
