"""ROS parameters as a front for ``drive_seg.config``: declared from it, checked by it, refused with its reasons."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from drive_seg.config import PARAMETERS, Config, Parameter, camera_parameters, load
from drive_seg.errors import ConfigError

# What rclpy itself declares or reads, in any of its releases.
_FOREIGN = ("use_sim_time", "qos_overrides.", "start_type_description_service")
_AT_START_ONLY = {"autostart"}


class NodeParameters:
    """The node's parameters and the configuration they make.

    Args:
        node: where they are declared.
        configured: whether the node is configured now; then only live parameters may change.

    Raises:
        ConfigError: a value given at start-up is refused.
    """

    def __init__(self, node: Node, configured: Callable[[], bool]) -> None:
        self._node = node
        self._configured = configured
        self._known: dict[str, Parameter] = {}
        self._declaring = False
        self._declare(PARAMETERS)
        for camera in node.get_parameter("cameras").value:
            self._declare(camera_parameters(camera))
        self.config = self._load({})
        """The current configuration; replaced as a whole when a parameter changes."""
        node.add_on_set_parameters_callback(self._on_set)

    def unknown_at_start(self) -> list[str]:
        """One line per value given at start-up that no parameter takes, with the name that was probably meant; one of a
        camera is taken when ``cameras`` has it."""
        # A parameter file may serve several nodes, so these are worth a warning and not a refusal.
        given: Iterable[str] = getattr(self._node, "_parameter_overrides", {})
        lines = []
        for name in given:
            if name not in self._known and not name.startswith(_FOREIGN):
                close = difflib.get_close_matches(name, self._known, 1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                camera = name.rpartition(".")[0]
                later = camera and any(name == parameter.name for parameter in camera_parameters(camera))
                fate = f"has no effect while 'cameras' has no '{camera}'" if later else "is unknown and ignored"
                lines.append(f"parameter '{name}' {fate}{hint}")
        return lines

    def _declare(self, parameters: Iterable[Parameter]) -> None:
        for parameter in parameters:
            self._known[parameter.name] = parameter
            if not self._node.has_parameter(parameter.name):  # one that was refused is to be refused again
                declare(self._node, parameter, at_start_only=parameter.name in _AT_START_ONLY)

    def _load(self, changes: dict[str, Any]) -> Config:
        def lookup(parameter: Parameter) -> Any:
            if parameter.name in changes:
                return changes[parameter.name]
            if self._node.has_parameter(parameter.name):
                return self._node.get_parameter(parameter.name).value
            return parameter.default

        return load(lookup)

    def _on_set(self, given: Sequence[RosParameter]) -> SetParametersResult:
        if self._declaring:  # rclpy asks for these, too; they are checked with the change that they belong to
            return SetParametersResult(successful=True)
        try:
            self._accept({parameter.name: parameter.value for parameter in given})
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _accept(self, given: dict[str, Any]) -> None:
        changes = {name: value for name, value in given.items() if not name.startswith(_FOREIGN)}
        for name, value in changes.items():
            parameter = self._known.get(name)
            if parameter is None:
                raise ConfigError(f"there is no parameter '{name}'")
            same = self._node.get_parameter_or(name).value == value  # `ros2 param load` sets all that a file has
            if self._configured() and not parameter.live and not same:
                raise ConfigError(  # an active node refuses cleanup
                    f"{name} takes effect on configure: `ros2 lifecycle set {self._node.get_fully_qualified_name()} "
                    "deactivate` and `cleanup` first, then set it, `configure` and `activate`"
                )
        config = self._load(changes)
        if "cameras" in changes:
            self._declaring = True
            try:
                for camera in config.cameras:
                    self._declare(camera_parameters(camera.name))
            finally:
                self._declaring = False
            config = self._load(changes)  # a parameter file may name their topics
        self.config = config


def declare(node: Node, parameter: Parameter, at_start_only: bool) -> Any:
    """Declare one parameter; returns the value it was given at start-up or its default.

    Args:
        at_start_only: nobody may change it later.

    Raises:
        ConfigError: that value is refused.
    """
    try:
        value = node.declare_parameter(parameter.name, parameter.default, _descriptor(parameter, at_start_only)).value
    except (InvalidParameterValueException, InvalidParameterTypeException) as error:
        raise ConfigError(f"parameter {parameter.name} is refused: {error}") from error
    return parameter.check(value)


def _descriptor(parameter: Parameter, at_start_only: bool) -> ParameterDescriptor:
    """What ``ros2 param describe`` and rqt_reconfigure show."""
    descriptor = ParameterDescriptor(description=parameter.description, read_only=at_start_only)
    constraints = []
    if parameter.choices:
        constraints.append(f"one of: {', '.join(parameter.choices)}")
    if descriptor.read_only:
        constraints.append("read at start-up only")
    elif not parameter.live:
        constraints.append("takes effect on configure")
    descriptor.additional_constraints = "; ".join(constraints)
    if parameter.limits is not None:
        least, most = parameter.limits
        if isinstance(parameter.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(least), to_value=int(most), step=1)]
    return descriptor
