"""Your own data: folders of images with truth in any form that ``drive_seg evaluate`` reads.

A label map (``config/label_maps``) says which classes of the truth are which of ours. A scored class of it that stands
for several of ours ("road_or_marking") becomes a set of classes of which one is right, so the same file serves
evaluation and training, and a set without painted markings does not teach that there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import ConfigError, SourceError
from drive_seg.labels import DRIVING
from drive_seg.network.codes import VOID, code_of, is_thing
from drive_seg.network.components import guess_instances, unknown_instances
from drive_seg.network.samples import UNKNOWN_INSTANCE, Sample, SampleSet, read_rgb
from drive_seg.offline.bags import is_bag
from drive_seg.offline.images import SUFFIXES, is_image
from drive_seg.offline.label_map import CLASS_OF_ID, LabelMap, bind, load_map
from drive_seg.offline.scoring import Truth
from drive_seg.offline.truth import FORMATS, TruthSource, open_truth

_SUFFIXES = SUFFIXES | {".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_THING_IDS = tuple(label.id for label in DRIVING.things)


@dataclass(frozen=True)
class FolderConfig:
    """A labelled set. Paths are below ``data_root``.

    images: folder, searched through all levels. truth: what ``drive_seg evaluate --ground-truth`` takes, but no bag.
    format: its ``--format``. label_map: name or path; empty takes the format's own. guess_instances: where the truth
    does not tell objects apart, take single, compact components as one (see ``components``); otherwise only classes are
    learnt. without: folders whose image names are left out, so that nothing held out is learnt.
    """

    images: str
    truth: str
    format: str = "auto"
    label_map: str = ""
    guess_instances: bool = False
    without: tuple[str, ...] = ()


class FolderSet(SampleSet):
    """The images of a ``FolderConfig``, read from disk each time.

    Raises:
        ConfigError: a folder is missing or empty, two images have one name, the truth cannot be opened, or an image has
            none.
    """

    def __init__(self, name: str, config: FolderConfig, root: Path) -> None:
        self._name = name
        self._config = config
        if config.format not in FORMATS:
            raise ConfigError(f"folders.{name}: format must be one of {', '.join(FORMATS)}, got '{config.format}'")
        held_out = {path.stem for folder in config.without for path in _images(name, root / folder)}
        self._paths = [path for path in _images(name, root / config.images) if path.stem not in held_out]
        if not self._paths:
            raise ConfigError(f"folders.{name}: nothing is left of {root / config.images} without the held-out names")
        named: dict[str, Path] = {}
        for path in self._paths:
            other = named.setdefault(path.stem, path)
            if other is not path:
                raise ConfigError(
                    f"folders.{name}: images {other} and {path} have the same name, so that one truth would be that of "
                    "both; name the folder that holds only the images, or give each a name of its own"
                )
        truth = root / config.truth
        if truth.exists() and is_bag(truth):  # its frames are found by their stamps, one after another
            raise ConfigError(f"folders.{name}: truth {truth} is a bag; training takes folders only")
        try:
            self._truth: TruthSource = open_truth(str(truth), DRIVING, config.format)
        except SourceError as error:
            raise ConfigError(f"folders.{name}: {error}") from error
        self._codes, self._instances = _code_table(self._truth, config.label_map)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        try:
            truth = self._truth.find(path.stem, 0)
        except SourceError as error:
            raise ConfigError(f"folders.{self._name}: {error}") from error
        image = read_rgb(path)
        if truth is None or image is None:
            what = "cannot be read" if image is None else f"has no truth in {self._config.truth}"
            raise ConfigError(f"folders.{self._name}: image {path} {what}")
        if truth.map.shape != image.shape[:2]:
            raise ConfigError(f"folders.{self._name}: {path} is {image.shape[:2]}, its truth {truth.map.shape} (H, W)")
        table = self._codes[CLASS_OF_ID if truth.classes is None else truth.classes]
        if self._instances and truth.map.dtype == np.uint16:
            return _with_instances(image, truth, table)
        codes = table[truth.map]
        if self._config.guess_instances:
            return Sample(image, codes, *guess_instances(codes))
        return Sample(image, codes, unknown_instances(codes), np.zeros(1, np.uint8))


def _images(name: str, folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if is_image(path, _SUFFIXES))
    if not found:
        raise ConfigError(f"folders.{name}: no image ({' '.join(sorted(_SUFFIXES))}) in {folder}; check data_root")
    return found


def _code_table(truth: TruthSource, label_map: str) -> tuple[NDArray[np.uint8], bool]:
    """uint8 (256,) from the truth's class ids to codes, and whether it tells objects apart."""
    chosen = label_map or truth.label_map
    bound = bind(load_map(chosen), DRIVING, truth.classes) if chosen else LabelMap.identity(DRIVING)
    codes = np.full(256, VOID, np.uint8)
    for scored in range(len(bound.labels)):
        ours = np.flatnonzero(bound.predicted[: len(DRIVING)] == scored).tolist()
        if ours:
            codes[bound.truth == scored] = code_of(ours)
    return codes, truth.instances and bound.instances


def _with_instances(image: NDArray[np.uint8], truth: Truth, table: NDArray[np.uint8]) -> Sample:
    """Objects whose class is one of our things are instances; crowds and objects of an uncertain class are unknown.

    Args:
        table: uint8 (N,) codes by values of the truth.
    """
    instance_of_value = np.zeros(1 << 16, np.uint16)
    classes = [0]
    for value in np.flatnonzero(np.bincount(truth.map.reshape(-1))).tolist():
        code = int(table[value])
        if code in _THING_IDS and value not in truth.crowds:
            instance_of_value[value] = len(classes)
            classes.append(code)
        elif is_thing(code):
            instance_of_value[value] = UNKNOWN_INSTANCE
    return Sample(image, table[truth.map], instance_of_value[truth.map], np.array(classes, np.uint8))
