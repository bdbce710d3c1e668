"""Training sets in a few files of bounded size, for machines that data reaches in pieces.

``python -m drive_seg.network.pack CONFIG -o out/packed --chunk-mib 60`` writes every set of a training configuration
but ``sim`` (render that where you train) as ``SET-000.zip``, ``SET-001.zip``...; ``drive_seg train --data out/packed``
takes them as they are. What a teacher has decided (``taught``) is packed in.

A zip holds, per image, ``000000.jpg``, ``000000.codes.png`` (uint8) and, where objects are known,
``000000.instances.png`` (uint16), and the objects' classes in ``classes.json``. The last zip of a set also has an empty
``last``, so that one that got lost on the way is missed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drive_seg.errors import ConfigError
from drive_seg.network.samples import InMemory, Sample, SampleSet
from drive_seg.network.tool import run

_QUALITY = 93
_MIB = 1 << 20
_LAST = "last"


def pack(name: str, samples: SampleSet, folder: Path, chunk_bytes: int) -> list[Path]:
    """Write ``samples`` as zips of at most ``chunk_bytes`` each (or one image); return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in _parts(name, folder):
        old.unlink()
    written: list[Path] = []
    entries: dict[str, bytes] = {}
    classes: dict[str, list[int]] = {}
    size = 0
    for number in range(len(samples)):
        files = _files(number, samples[number])
        here = sum(map(len, files.values()))
        if entries and size + here > chunk_bytes:
            written.append(_write(name, folder, len(written), entries, classes))
            entries, classes, size = {}, {}, 0
        entries |= files
        classes[f"{number:06d}"] = samples[number].classes.tolist()
        size += here
    return [*written, _write(name, folder, len(written), entries | {_LAST: b""}, classes)]


def _files(number: int, sample: Sample) -> dict[str, bytes]:
    stem = f"{number:06d}"
    files = {
        f"{stem}.jpg": _encode(".jpg", sample.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]),
        f"{stem}.codes.png": _encode(".png", sample.codes, []),
    }
    if sample.instances.any():
        files[f"{stem}.instances.png"] = _encode(".png", sample.instances, [])
    return files


def _encode(suffix: str, image: NDArray[Any], options: list[int]) -> bytes:
    _, data = cv2.imencode(suffix, np.ascontiguousarray(image), options)
    return bytes(data.tobytes())


def _write(name: str, folder: Path, part: int, entries: dict[str, bytes], classes: dict[str, list[int]]) -> Path:
    path = folder / _part(name, part)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for entry, data in entries.items():
            file.writestr(entry, data)
        file.writestr("classes.json", json.dumps(classes))
    return path


def is_packed(name: str, root: Path) -> bool:
    """Whether ``root`` holds the set ``name`` in packed form."""
    return root.is_dir() and bool(_parts(name, root))


def read_packed(name: str, root: Path) -> InMemory:
    """The set that ``pack`` wrote, decoded into memory.

    Raises:
        ConfigError: a zip is damaged, not one of ours, or missing.
    """
    samples = []
    ended = False
    for number, path in enumerate(_parts(name, root)):
        if path.name != _part(name, number):
            raise ConfigError(f"{root / _part(name, number)} is missing, although there is {path.name}")
        try:
            with zipfile.ZipFile(path) as file:
                ended = _LAST in file.namelist()
                classes = json.loads(file.read("classes.json"))
                samples += [_sample(file, stem, classes[stem]) for stem in sorted(classes)]
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ConfigError(
                f"{path} is not a packed training set ({error}); write it again with: python -m drive_seg.network.pack"
            ) from error
    if not ended:
        raise ConfigError(f"the last files of the packed set {name} are missing in {root}")
    return InMemory(samples)


def _part(name: str, number: int) -> str:
    return f"{name}-{number:03d}.zip"


def _parts(name: str, folder: Path) -> list[Path]:
    """The zips of the set ``name``, in their order; those of a set NAME-night are not among them."""
    found = ((re.fullmatch(rf"{re.escape(name)}-(\d+)\.zip", path.name), path) for path in folder.iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def _sample(file: zipfile.ZipFile, stem: str, classes: list[int]) -> Sample:
    image = _decode(file.read(f"{stem}.jpg"), cv2.IMREAD_COLOR)[..., ::-1]
    codes = _decode(file.read(f"{stem}.codes.png"), cv2.IMREAD_UNCHANGED)
    instances = np.zeros(codes.shape, np.uint16)
    if f"{stem}.instances.png" in file.namelist():
        instances = _decode(file.read(f"{stem}.instances.png"), cv2.IMREAD_UNCHANGED).astype(np.uint16)
    return Sample(np.ascontiguousarray(image), codes.astype(np.uint8), instances, np.array(classes, np.uint8))


def _decode(data: bytes, how: int) -> NDArray[Any]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    if image is None:
        raise ValueError("an image in it cannot be decoded")
    return np.asarray(image)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Pack the sets of a training configuration.")
    parser.add_argument("config", type=Path, help="training configuration, whose sets are packed")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("out/packed"), help="folder of the packed sets (default: %(default)s)"
    )
    parser.add_argument("--chunk-mib", type=int, default=60, help="largest size of a file, MiB (default: %(default)s)")
    parser.add_argument("--data", default="", help="folder of the data sets, instead of the configuration's")
    arguments = parser.parse_args()
    from drive_seg.network.mixture import is_rendered, open_set
    from drive_seg.network.train_config import load_train_config

    config = load_train_config(arguments.config, **({"data_root": arguments.data} if arguments.data else {}))
    for name in config.sets:
        if not is_rendered(name, config):
            for path in pack(name, open_set(name, config), arguments.out, arguments.chunk_mib * _MIB):
                sys.stderr.write(f"{path} {path.stat().st_size / _MIB:.1f} MiB\n")


if __name__ == "__main__":
    run(main)
