"""Where the files beside the code are: models/, config/ and launch/.

They are found the same way however drive_seg arrived: in a source checkout they lie beside the package, and
pip and colcon both put them into PREFIX/share/drive_seg, PREFIX being a folder above the installed package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from drive_seg.errors import ConfigError, ModelError

NAME = "drive_seg"
PACKAGE = Path(__file__).resolve().parent
MODEL_SUFFIXES = (".yaml", ".yml")
CACHE = "~/.cache/drive_seg"
"""Where compiled engines are kept unless somebody says otherwise."""
POINTER = "only a pointer of Git LFS: do git lfs pull in the repository it is from"
"""What a file is that ``is_pointer``."""
_POINTER = b"version https://git-lfs.github.com/spec/"


def is_pointer(data: bytes) -> bool:
    """Whether this is what a clone made without Git LFS has in the place of a large file, under its name."""
    return data.startswith(_POINTER)


@lru_cache(maxsize=1)
def share_dir() -> Path:
    """The folder that holds models/, config/ and launch/.

    Raises ConfigError, naming the places looked at, where the installation lacks it.
    """
    places = list(_candidates())
    for place in places:
        if (place / "package.xml").is_file():
            return place
    looked_at = "\n  ".join(str(place) for place in places)
    raise ConfigError(
        f"the models and configuration of {NAME} are in none of\n  {looked_at}\nreinstall it: pip install ."
    )


def find_model(name_or_path: str | Path) -> Path:
    """The sidecar YAML of a model, given by its path or by the name of one that is installed.

    Something that ends in .yaml or holds a path separator is a path. Raises ModelError.
    """
    text = os.fspath(name_or_path)
    try:
        return _find_model(text)
    except (OSError, RuntimeError) as error:  # a folder of others, a name that is too long, the home of nobody
        raise ModelError(f"no model '{text}': {error}") from error


def _find_model(text: str) -> Path:
    if text.endswith(MODEL_SUFFIXES) or Path(text).name != text:
        path = at_home(text)
        if path.is_file():
            return path.resolve()
        raise ModelError(f"no model sidecar at {path.absolute()}: expected the path of a YAML file or a model's name")
    folder = share_dir() / "models"
    path = folder / f"{text}.yaml"
    if path.is_file():
        return path
    raise ModelError(f"no model '{text}' in {folder}: it has {_listing(folder, '*.yaml')}; a path works too")


def at_home(path: str | Path) -> Path:
    """A path with ``~`` and ``~user`` replaced by a home; as it is where there is no such user: then it is a name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_folder(path: str | Path = CACHE) -> Path | None:
    """The folder of compiled engines; None, which keeps none, for a user without a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None


def installed_models() -> list[Path]:
    """The sidecars that ``find_model`` finds by name, by name."""
    return sorted((share_dir() / "models").glob("*.yaml"))


def config_file(name: str) -> Path:
    """The path of a file of config/, such as 'drive_seg.yaml'. Raises ConfigError."""
    folder = share_dir() / "config"
    path = folder / name
    if path.is_file():
        return path
    raise ConfigError(f"no configuration file '{name}' in {folder}: it has {_listing(folder, '*.*')}")


def _candidates() -> Iterator[Path]:
    """Places that may be the share folder, most specific first."""
    yield PACKAGE.parent
    for folder in PACKAGE.parents:
        yield folder / "share" / NAME
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(prefix) / "share" / NAME


def _listing(folder: Path, pattern: str) -> str:
    names = sorted(path.stem if pattern == "*.yaml" else path.name for path in folder.glob(pattern))
    return ", ".join(names) or "none"
