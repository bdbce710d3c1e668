"""What is started by name: no traceback where ROS is not there, or where Ctrl-C comes while the rest is loaded."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable

from drive_seg.errors import MissingDependency
from drive_seg.standard_streams import occupy

INSTALL = "source /opt/ros/DISTRO/setup.bash; or, in a clone of drive_seg, make venv"


def command_line() -> None:
    """``drive_seg``, see ``drive_seg.cli``."""
    patient = signal.getsignal(signal.SIGINT)
    if patient is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)
    from drive_seg.cli import main

    if patient is signal.default_int_handler:
        signal.signal(signal.SIGINT, patient)
    main()


def _interrupted(number: int, frame: object) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"drive_seg: error: interrupted\n")
    os._exit(1)


def segmentation_node() -> int:
    """See ``drive_seg.ros.node``; 2 where ROS is missing."""
    return _run("segmentation_node", "drive_seg.ros.node")


def sim_camera() -> int:
    """See ``drive_seg.ros.sim_camera``; 2 where ROS is missing."""
    return _run("sim_camera", "drive_seg.ros.sim_camera")


def _run(name: str, module: str) -> int:
    occupy()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does, and for its reasons
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until the node takes it for a request to end, which it is. As an exception it may come within the import of an
        # extension, which makes an ImportError of it; and one repeated would be the death of Python while it unloads.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    try:
        return int(_load(name, module)())
    except MissingDependency as error:
        sys.stderr.write(f"{name}: error: {error}\n")
        return 2


def _load(name: str, module: str) -> Callable[[], int]:
    try:
        main: Callable[[], int] = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("drive_seg"):
            raise
        raise MissingDependency(missing(error), name, INSTALL) from error
    return main


def missing(error: ImportError) -> str:
    """The package that is named where something with ROS cannot be imported: rclpy where there is no ROS at all."""
    # Whichever of its packages is imported first.
    return (error.name or "rclpy") if importlib.util.find_spec("rclpy") else "rclpy"
