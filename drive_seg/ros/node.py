"""The lifecycle node ``drive_seg``: transitions here, the work of a configured node in ``session``."""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from lifecycle_msgs.msg import Transition
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from drive_seg.config import Config
from drive_seg.errors import DriveSegError, EngineLost
from drive_seg.ros.diagnostics import Diagnostics
from drive_seg.ros.opening import Improver, Opener, improve, open_configured
from drive_seg.ros.parameters import NodeParameters
from drive_seg.ros.process import run
from drive_seg.ros.session import Session

_WATCH_S = 0.5
_TRANSITIONS = {
    Transition.TRANSITION_CONFIGURE: "configure",
    Transition.TRANSITION_CLEANUP: "cleanup",
    Transition.TRANSITION_ACTIVATE: "activate",
    Transition.TRANSITION_DEACTIVATE: "deactivate",
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN: "shutdown",
    Transition.TRANSITION_INACTIVE_SHUTDOWN: "shutdown",
    Transition.TRANSITION_ACTIVE_SHUTDOWN: "shutdown",
}

Callback = Callable[["SegmentationNode", LifecycleState], TransitionCallbackReturn]


def _logged(transition: Callback) -> Callback:
    """Say what went wrong: rclpy swallows what a transition raises. Expected errors leave the state as it was."""

    def run(node: SegmentationNode, state: LifecycleState) -> TransitionCallbackReturn:
        name = transition.__name__.removeprefix("on_")
        try:
            result = transition(node, state)
        except EngineLost as error:  # nothing that is configured can go on
            node.trouble = str(error)
            node.get_logger().error(node.trouble)
            return TransitionCallbackReturn.ERROR
        except DriveSegError as error:
            node.trouble = f"{name} failed: {error}"
            node.get_logger().error(node.trouble)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # noqa: BLE001 - anything, or it would vanish without a trace
            node.trouble = f"{name} failed unexpectedly: {type(error).__name__}: {error}"
            node.get_logger().error(f"{node.trouble}\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        node.trouble = ""
        return result

    return run


class SegmentationNode(LifecycleNode):  # type: ignore[misc]  # rclpy is untyped
    """Camera images in, masks, panoptic maps and instances out.

    Args:
        opener: opens the pipeline of a configuration.
        improver: says what would be better than the pipeline that serves.

    Raises:
        ConfigError: a parameter given at start-up is refused.
    """

    finished = False  # it serves until it is told to stop

    def __init__(
        self,
        name: str = "drive_seg",
        opener: Opener = open_configured,
        improver: Improver = improve,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self.session: Session | None = None
        """What is configured, None when nothing is."""
        self.trouble = ""
        """Why it could not be configured or activated; empty when nothing is wrong."""
        self.opening_since: float | None = None
        """When it began to open the engine, monotonic seconds; None while it does not."""
        self._opener = opener
        self._improver = improver
        self._settings = NodeParameters(self, lambda: self.session is not None)
        for line in self._settings.unknown_at_start():
            self.get_logger().warning(line)
        self._diagnostics = Diagnostics(self)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._autostart = self.create_timer(0.0, self._start, clock=steady)
        self._watch = self.create_timer(_WATCH_S, self._look_after_engine, clock=steady)

    def _LifecycleNodeMixin__change_state(self, transition: int) -> TransitionCallbackReturn:  # noqa: N802
        """Refuse a transition that the present state does not have; rclpy before Kilted lets it end the process.

        A manager that configures a node which has configured itself would be enough.
        """
        if transition in {number for number, *_ in self._state_machine.available_transitions}:
            return super()._LifecycleNodeMixin__change_state(transition)
        wanted, (_, state) = _TRANSITIONS.get(transition, transition), self._state_machine.current_state
        self.get_logger().error(f"transition {wanted} is not possible now: the node is {state}")
        return TransitionCallbackReturn.FAILURE

    @property
    def config(self) -> Config:
        """The current configuration."""
        return self._settings.config

    def _start(self) -> None:
        """Once, as soon as the node spins."""
        self.destroy_timer(self._autostart)
        if self.config.autostart and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _look_after_engine(self) -> None:
        """An engine whose device is gone takes the node through the error state to unconfigured; a better one may be
        had by now.
        """
        if self.session is None:
            return
        if self.session.worker.lost is not None:
            self.trigger_deactivate()
        else:
            self.session.improve()
            self.session.announce()

    @_logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, open the engine, create the publishers; FAILURE leaves the node unconfigured and alive."""
        started = self.opening_since = time.monotonic()
        try:
            # This thread serves the timers too: without help /diagnostics would be silent while an engine is built.
            self.session = Session(self, lambda: self.config, self._opener, self._improver, self._diagnostics.publish)
        finally:
            self.opening_since = None
        info = self.session.pipeline.engine.info
        self.get_logger().info(
            f"configured in {time.monotonic() - started:.1f} s: model {self.config.model} on "
            f"{info.backend} {info.precision} ({info.device}; {info.reason})"
        )
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras."""
        assert self.session is not None
        self.session.activate()
        topics = ", ".join(self.resolve_topic_name(camera.image_topic) for camera in self.session.cameras)
        self.get_logger().info(f"active, listening to {topics}")
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and let the frame in work end; an ERROR where the engine's device is lost."""
        assert self.session is not None
        if self.session.worker.lost is None:
            self.session.deactivate()  # it may be lost with the frame in work
        if self.session.worker.lost is not None:
            raise self.session.worker.lost
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the worker, close the engine, destroy the publishers."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, for good."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured with nothing left over; why stays in /diagnostics."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Release everything a configured node holds; does nothing on another."""
        if self.session is None:
            return
        try:
            self.session.close()
        finally:
            self.session = None  # only now: until its engine is done, /diagnostics is about it
        # Callbacks and their owners refer to each other: freed now, not whenever Python comes to it.
        gc.collect()

    def destroy_node(self) -> None:
        """``close()`` first: who spins the node in a process of their own need know no more than of any other node."""
        self.close()
        super().destroy_node()


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of ``segmentation_node``: 0 after SIGINT, SIGTERM or SIGHUP, 2 when a parameter is refused."""
    return run(SegmentationNode, args)


if __name__ == "__main__":
    sys.exit(main())
