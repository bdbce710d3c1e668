"""What the network says in fp32 on some frames: the yardstick of the accuracy gate and of the GPU's parity tests.

It can be computed in one Python and used in another, for a machine whose TensorRT and ONNX Runtime do not share one:

    python -m drive_seg.engines.reference --frames FOLDER --count 100 --out reference.npz
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drive_seg.engines.protocol import Engine, EngineOptions
from drive_seg.engines.registry import open_engine
from drive_seg.errors import DriveSegError, EngineError
from drive_seg.frame import RawOutputs
from drive_seg.model import Model, open_model

Network = Callable[[NDArray[np.uint8]], RawOutputs]
"""uint8 (1, H, W, 3) RGB in, maps out; the maps may be overwritten by the next call."""

GATE_FRAMES = 8


@dataclass(frozen=True)
class Reference:
    """Frames and answers.

    Attributes:
        frames: uint8 (H, W, 3) RGB, network size.
        answers: one batch of one per frame.
        onnx_sha256: of the graph that gave them, see ``yardstick``.
    """

    frames: Sequence[NDArray[np.uint8]]
    answers: Sequence[RawOutputs]
    onnx_sha256: str

    def __post_init__(self) -> None:
        if not self.frames or len(self.frames) != len(self.answers):
            raise EngineError(
                f"a reference needs frames and an answer each, got {len(self.frames)} and {len(self.answers)}"
            )

    def save(self, path: Path) -> None:
        """Write it as .npz.

        Raises:
            EngineError: the file cannot be written.
        """
        maps: dict[str, Any] = {
            name: np.concatenate([getattr(answer, name) for answer in self.answers])
            for name in ("semantic", "confidence", "centers", "offsets")
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")  # whoever is cut off leaves no half file under the name
            with part.open("wb") as file:
                np.savez(file, frames=np.stack(self.frames), onnx_sha256=np.array(self.onnx_sha256), **maps)
            part.replace(path)
        except OSError as error:
            raise EngineError(f"cannot write {path}: {error}") from error

    @classmethod
    def load(cls, path: Path, model: Model) -> Reference:
        """Read what ``save`` wrote.

        Raises:
            EngineError: not such a file, or one of another model or size.
        """
        try:
            with np.load(path) as file:
                sha, frames = str(file["onnx_sha256"]), file["frames"]
                maps = [file[name] for name in ("semantic", "confidence", "centers", "offsets")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise EngineError(f"{path} is no reference that drive_seg wrote: {error}") from error
        if sha != model.onnx[yardstick(model)].sha256:
            raise EngineError(f"{path} belongs to another graph ({sha[:12]}) than {model.name}'s; write it again")
        if frames.shape[1:] != (model.height, model.width, 3):
            expected = (model.height, model.width, 3)
            raise EngineError(f"{path} has frames of {frames.shape[1:]}, {model.name} takes {expected}")
        answers = [RawOutputs(*(part[index : index + 1] for part in maps)) for index in range(len(frames))]
        return cls(list(frames), answers, sha)


def compute(model: Model, frames: Iterable[NDArray[np.uint8]]) -> Reference:
    """Ask the model's ``yardstick``, on the CPU.

    Args:
        frames: uint8 (H, W, 3) RGB, network size.

    Raises:
        EngineError: neither ONNX Runtime nor OpenVINO can run it.
        ModelError: the graph is missing or damaged.
    """
    kept, answers = [], []
    with _fp32(model) as engine:
        slot = engine.slots[0]
        for frame in frames:
            np.copyto(slot.input[0], frame)
            slot.submit(1)
            maps = slot.wait()
            kept.append(np.array(frame))
            answers.append(
                RawOutputs(maps.semantic.copy(), maps.confidence.copy(), maps.centers.copy(), maps.offsets.copy())
            )
    return Reference(kept, answers, model.onnx[yardstick(model)].sha256)


def yardstick(model: Model) -> str:
    """The precision that the others are held to: fp32, or the highest that the model has a graph for."""
    return model.precisions[0]


def _fp32(model: Model) -> Engine:
    options = EngineOptions(precision=yardstick(model), slots=1)
    reasons = []
    for backend in ("onnxruntime", "openvino"):
        try:
            return open_engine(model, backend, options)
        except (EngineError, ImportError) as error:
            reasons.append(f"{backend}: {error}")
    raise EngineError(
        f"the fp32 network cannot be run for comparison ({'; '.join(reasons)}); write its answers with another "
        "Python (python -m drive_seg.engines.reference --help) and name them with --reference"
    )


def simulated_frames(model: Model, count: int = GATE_FRAMES) -> Iterable[NDArray[np.uint8]]:
    """Rendered drives, uint8 (H, W, 3) RGB, network size: there on every machine, with every class in them."""
    from drive_seg.sim import Simulator

    return (Simulator(7000 + seed, model.width, model.height).frame(40).image for seed in range(count))


def folder_frames(model: Model, folder: Path, count: int) -> Iterable[NDArray[np.uint8]]:
    """Images of a folder and its sub-folders, evenly chosen, letterboxed: uint8 (H, W, 3) RGB, network size.

    Raises:
        EngineError: it has no readable image.
    """
    import cv2

    from drive_seg.frame import CameraImage
    from drive_seg.preprocess import Preprocessor

    suffixes = (".jpg", ".jpeg", ".png")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    preprocess = Preprocessor((model.width, model.height))
    found = 0
    for path in paths[:: max(1, len(paths) // count)][:count]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            continue
        frame = np.zeros((model.height, model.width, 3), np.uint8)
        preprocess(CameraImage.from_bgr(np.asarray(image, np.uint8)), frame)
        found += 1
        yield frame
    if not found:
        raise EngineError(f"no readable image ({', '.join(suffixes)}) in {folder}")


def main() -> int:
    """``python -m drive_seg.engines.reference``."""
    import argparse

    parser = argparse.ArgumentParser(description="Write what the fp32 network says on some frames, as .npz.")
    parser.add_argument("--model", default="default", help="name of a shipped model or path of a sidecar")
    parser.add_argument("--size", default="", help="WxH, default the model's")
    parser.add_argument("--frames", type=Path, help="folder of images; default: simulated frames")
    parser.add_argument("--count", type=int, default=GATE_FRAMES, help="number of frames (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")
    given = parser.parse_args()
    try:
        model = open_model(given.model)
        if given.size:
            width, height = map(int, given.size.split("x"))
            model = replace(model, width=width, height=height)
        frames = (
            folder_frames(model, given.frames, given.count) if given.frames else simulated_frames(model, given.count)
        )
        reference = compute(model, frames)
        reference.save(given.out)
    except DriveSegError as error:
        print(f"drive_seg: error: {error}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    print(f"{given.out}: {len(reference.frames)} frames of {model.width}x{model.height}")  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
