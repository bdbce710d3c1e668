"""A teacher decides what a data set left open: "road or marking" becomes one of the two where the teacher is sure.

Most public sets paint markings into the road. A trained model, run at several larger sizes and mirrored, sees markings
better than the network that is shipped does at its own size; its sure answers are more examples to learn from
(self-training with a stronger view of the same image: Xie et al., CVPR 2020, arXiv:1911.04252). Only stuff is decided:
a wrong stuff pixel is one wrong pixel, a wrong thing pixel would change an object.

``python -m drive_seg.network.teach --model default --set camvid11 --data DATA -o out/taught`` writes one PNG of codes
per image into ``out/taught/camvid11``, by number; ``taught: {camvid11: out/taught/camvid11}`` in a training
configuration puts them in the place of the set's own. Torch is not needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg import Pipeline
from drive_seg.engines import EngineOptions, open_engine
from drive_seg.labels import DRIVING
from drive_seg.network.codes import SETS, VOID
from drive_seg.network.datasets import load_set
from drive_seg.network.folders import FolderConfig
from drive_seg.network.samples import SampleSet
from drive_seg.network.sidecar import load_own
from drive_seg.network.tool import run
from drive_seg.postprocess import FusionOptions

WIDTHS = (640, 800, 960)
"""Pixels of width that the teacher sees an image at; heights follow, in multiples of 32."""
SURE = 0.65
"""Share of the votes from which the teacher decides."""


class Teacher:
    """A shipped or exported model, looking at an image at several sizes and mirrored.

    Args:
        model: name of a shipped model or path of a sidecar.
        backend: as everywhere.
        widths: network widths in pixels, multiples of 32.
    """

    def __init__(self, model: str | Path = "default", backend: str = "auto", widths: Sequence[int] = WIDTHS) -> None:
        self._model = load_own(str(model))
        self._backend = backend
        self._widths = tuple(widths)
        self._pipelines: dict[tuple[int, int], Pipeline] = {}

    def votes(self, image: NDArray[np.uint8], members: Sequence[int]) -> NDArray[np.float32]:
        """How much speaks for each class of a set.

        Args:
            image: uint8 (H, W, 3) RGB.
            members: class ids of which one is right.

        Returns:
            float32 (M, H, W): a view that sees member m with probability p adds p to it and shares 1 - p among the
            others; a view that sees none of them adds nothing.
        """
        height, width = image.shape[:2]
        votes = np.zeros((len(members), height, width), np.float32)
        for wide in self._widths:
            pipeline = self._pipeline((wide, max(32, round(wide * height / width / 32) * 32)))
            for mirrored in (False, True):
                result = pipeline(np.ascontiguousarray(image[:, ::-1]) if mirrored else image)
                assert result.confidence is not None
                seen, sure = result.mask, result.confidence.astype(np.float32) / 255
                if mirrored:
                    seen, sure = seen[:, ::-1], sure[:, ::-1]
                any_member = np.isin(seen, members)
                for number, member in enumerate(members):
                    rest = (1 - sure) / max(1, len(members) - 1)
                    votes[number] += np.where(seen == member, sure, rest) * any_member
        return votes

    def _pipeline(self, size: tuple[int, int]) -> Pipeline:
        if size not in self._pipelines:
            model = replace(self._model, width=size[0], height=size[1])
            engine = open_engine(model, self._backend, EngineOptions(slots=1))
            self._pipelines[size] = Pipeline(engine, model.labels, FusionOptions(confidence=True))
        return self._pipelines[size]

    def close(self) -> None:
        """Close the engines."""
        for pipeline in self._pipelines.values():
            pipeline.close()


def decide(codes: NDArray[np.uint8], image: NDArray[np.uint8], teacher: Teacher) -> NDArray[np.uint8]:
    """Codes, uint8 (H, W), with sets of stuff classes replaced by the member that enough of the votes are for."""
    out = codes.copy()
    for code in np.unique(codes).tolist():
        members = SETS.get(code, ())
        if code == VOID or not members or any(DRIVING[member].thing for member in members):
            continue
        where = codes == code
        votes = teacher.votes(image, members)[:, where]
        certain = votes.max(0) > SURE * votes.sum(0)
        out[where] = np.where(certain, np.array(members, np.uint8)[votes.argmax(0)], code)
    return out


def teach(teacher: Teacher, samples: SampleSet, folder: Path) -> int:
    """Write decided codes of every image to ``folder/000000.png``...; return how many pixels were decided.

    What an earlier call wrote there is removed: the set may have had more images then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9]" * 6 + ".png"):
        old.unlink()
    decided = 0
    for number in range(len(samples)):
        sample = samples[number]
        codes = decide(sample.codes, sample.image, teacher)
        decided += int(np.count_nonzero(codes != sample.codes))
        cv2.imwrite(str(folder / f"{number:06d}.png"), codes)
    return decided


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Let a model decide what data sets left open.")
    parser.add_argument("--model", default="default", help="name of a shipped model or path of a sidecar")
    parser.add_argument("--backend", default="auto", help="auto, tensorrt, openvino or onnxruntime")
    parser.add_argument("--set", dest="sets", action="append", required=True, help="set by name; may be repeated")
    parser.add_argument(
        "--config", type=Path, help="training configuration in whose `folders:` a set may be; needs torch"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of the data sets (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("out/taught"), help="folder of the taught sets (default: %(default)s)"
    )
    arguments = parser.parse_args()
    folders: Mapping[str, FolderConfig] = {}
    if arguments.config is not None:
        from drive_seg.network.train_config import load_train_config

        folders = load_train_config(arguments.config).folders
    teacher = Teacher(arguments.model, arguments.backend)
    try:
        for name in arguments.sets:
            samples = load_set(name, arguments.data, folders)
            decided = teach(teacher, samples, arguments.out / name)
            sys.stderr.write(f"{name}: {len(samples)} images, {decided} pixels decided\n")
    finally:
        teacher.close()


if __name__ == "__main__":
    run(main)
