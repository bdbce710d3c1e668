"""The process around a node: transports before rclpy starts, signals, spinning, an orderly end."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rclpy import init
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import ok, try_shutdown

from drive_seg.errors import ConfigError, DriveSegError
from drive_seg.ros.creation import creating
from drive_seg.ros.transport import prepare_process
from drive_seg.signals import requests_to_end

_REFUSALS = (rclpy_implementation.RCLError, rclpy_implementation.UnknownROSArgsError)
"""Of ``init``: a parameter file that is not there, a name that cannot be one, an option that ROS does not have; a log
that cannot be opened, a domain that is no number."""


class StopSignals:
    """SIGINT, SIGTERM, SIGHUP as a flag, so the node ends in order; one repeated later ends the process at once."""

    _PATIENCE_S = 2.0

    def __init__(self) -> None:
        self._since: float | None = None
        self._before = {number: signal.signal(number, self._on_signal) for number in requests_to_end()}

    @property
    def requested(self) -> bool:
        """Whether to stop."""
        return self._since is not None

    def give_back(self) -> None:
        """To whoever had them before: nobody asks ``requested`` any more."""
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # it is None where it was not Python that set it

    def close(self) -> None:
        """The end has come: an interrupt that a launcher repeats is not for Python, which takes it for its death while
        it unloads libraries.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif now - self._since > self._PATIENCE_S:
            os._exit(128 + number)


def start_ros(args: Sequence[str] | None) -> None:
    """``rclpy.init`` without its signal handlers: they would invalidate the context while the worker still publishes.

    Raises:
        ConfigError: ROS does not take the arguments, or cannot work in this environment.
    """
    try:
        init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    except _REFUSALS as error:
        reason = str(error)
        if reason.startswith("failed to initialize logging"):
            raise ConfigError(f"ROS 2 {reason}; ROS_LOG_DIR=FOLDER puts its log elsewhere") from error
        if "ROS_DOMAIN_ID" in reason:
            raise ConfigError(f"ROS 2 {reason}; it has {os.environ.get('ROS_DOMAIN_ID')!r}") from error
        raise ConfigError(f"the ROS arguments are refused: {reason}") from error
    except RuntimeError as error:  # the log's own, as of a folder that is root's since a node was started with sudo
        if "Failed opening file" not in str(error):
            raise
        raise ConfigError(f"ROS 2 cannot write its log: {error}; ROS_LOG_DIR=FOLDER puts it elsewhere") from error


def spin(node: Node, until: Callable[[], bool]) -> None:
    """Serve callbacks until ``until()`` is true or the context is shut down."""
    # Python runs signal handlers between callbacks only, so there is always one soon.
    pulse = node.create_timer(0.1, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while ok() and not until():
            executor.spin_once()
    finally:
        executor.remove_node(node)
        executor.shutdown()
        node.destroy_timer(pulse)


class _NodeLog(logging.Handler):
    """What the library says goes into the log of a node."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # A line each: rclpy takes one level only from a line of source.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


@contextmanager
def _library_heard(node: Node) -> Iterator[None]:
    """Without this Python drops the progress of an engine build, which takes minutes."""
    library, handler = logging.getLogger("drive_seg"), _NodeLog(node)
    level = library.level
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)


def run(make_node: Callable[[], Any], args: Sequence[str] | None = None) -> int:
    """Run one node until it is ``finished`` or a signal comes, then ``close()`` it while its context is still valid.

    Returns:
        The exit code: 0 in order, 1 when something it needs failed on the way (a source that cannot be read any more),
        2 when the node refused to be made with these parameters, or ROS did not start.
    """
    prepared = prepare_process()
    stop = StopSignals()
    try:
        start_ros(args)
    except ConfigError as error:
        get_logger("drive_seg").fatal(str(error))
        return 2
    try:
        try:
            with creating("the node"):
                node = make_node()
        except (DriveSegError, ParameterException) as error:  # rclpy's: of a parameter of its own, as use_sim_time
            get_logger("drive_seg").fatal(str(error))
            return 2
        node.get_logger().info(prepared)
        try:
            with _library_heard(node):
                spin(node, lambda: stop.requested or node.finished)
        except DriveSegError as error:
            node.get_logger().fatal(str(error))
            return 1
        finally:
            node.close()
            node.destroy_node()
        return 0
    finally:
        try_shutdown()
        stop.close()
