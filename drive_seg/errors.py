"""The exceptions of drive_seg. Vendor errors are translated into these at the boundary where they arise."""

from __future__ import annotations

import shlex
import sys
import unicodedata
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_EXTRAS = {
    "offline": ("rosbags>=0.11.7,<0.12", "matplotlib", "jinja2", "av"),
    "cluster": ("rosbags>=0.11.7,<0.12", "matplotlib", "jinja2", "av", "ray>=2.9"),
    "gpu": ("tensorrt<12", "pycuda>=2025.1.2", "nvidia-ml-py", "onnx"),
    "train": ("torch>=2.5", "onnx"),
}
"""What the extras of setup.py add."""


def pip_install(*packages: str, extra: str = "") -> str:
    """The command that installs ``packages``, or those of one of our extras, for the Python that runs.

    Not ``drive_seg[extra]``: PyPI has no drive_seg, and where colcon installed it it would bring a NumPy and an OpenCV
    beside the system's. And not a bare ``pip``, which is another Python's where a virtual environment is not activated.
    NumPy 1 stays NumPy 1: a ROS installation that has it has modules of its own built against it.
    """
    wanted = [*packages, *_EXTRAS.get(extra, ()), *(["numpy<2"] if _has_numpy_1() else [])]
    return shlex.join([sys.executable or "python3", "-m", "pip", "install", *wanted])


def _has_numpy_1() -> bool:
    try:
        return version("numpy").startswith("1.")  # not imported: asking for help needs none of it
    except PackageNotFoundError:
        return False


def printable(message: str) -> str:
    """``message`` with control characters as escapes, but for ends of lines and tabs: it may quote what a file says,
    and a terminal obeys them."""
    return "".join(c if unicodedata.category(c) != "Cc" or c in "\n\t" else f"\\x{ord(c):02x}" for c in message)


def one_line(error: BaseException) -> str:
    """A vendor's message without its line breaks, so that ours is one line."""
    return " ".join(str(error).split())


def counted(count: int, noun: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


class DriveSegError(Exception):
    """Root of everything this package raises on purpose; the message is fit for a user to read."""


class ConfigError(DriveSegError, ValueError):
    """A parameter or a configuration file has a value that cannot be used."""


class ModelError(DriveSegError):
    """A model sidecar or one of its ONNX files is missing, damaged or inconsistent."""


class EngineError(DriveSegError):
    """An inference backend could not be opened or failed while running."""


class PlanMissing(EngineError):
    """A compiled engine is not in the cache, and compiling it was not wanted."""


class PlanRefused(EngineError):
    """A compiled engine is whole, but not one that TensorRT takes on this machine."""


class EngineLost(EngineError):
    """The device an engine runs on is gone: every further frame would fail, so the engine has to be opened again."""


class MalformedImage(DriveSegError, ValueError):
    """An image message or file whose fields contradict each other, or whose encoding is not accepted."""


class SourceError(DriveSegError):
    """A video, folder, bag or device cannot be read (any further)."""


class MissingDependency(DriveSegError, ImportError):
    """An optional package is needed and absent; the message holds the command that installs it."""

    def __init__(self, package: str, needed_for: str, install: str) -> None:
        super().__init__(
            f"{needed_for} needs the package '{package}', which is not installed; install it with: {install}"
        )
        self.package = package
        self.needed_for = needed_for
        self.install = install

    def __str__(self) -> str:
        """The message; of a package that is there and does not load (a library, another version) the reason."""
        cause = self.__cause__
        if not isinstance(cause, ImportError) or isinstance(cause, ModuleNotFoundError):
            return super().__str__()
        return (
            f"{self.needed_for} needs the package '{self.package}', which does not load: {one_line(cause)}; "
            f"if it is damaged or of another version: {self.install}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.package, self.needed_for, self.install)  # else pickle gives it the message alone
