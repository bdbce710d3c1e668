"""QoS profiles by the names Isaac ROS uses; ``qos_overrides`` parameters work on top of them."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSPolicyKind,
    QoSPresetProfiles,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from drive_seg.errors import ConfigError

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Late joiners get the last message: label_info."""

_NAMED: dict[QoSPolicyKind, Any] = {
    QoSPolicyKind.DURABILITY: DurabilityPolicy,
    QoSPolicyKind.HISTORY: HistoryPolicy,
    QoSPolicyKind.LIVELINESS: LivelinessPolicy,
    QoSPolicyKind.RELIABILITY: ReliabilityPolicy,
}
"""Policies whose value is a name; of the others it is a number, or whether they are wanted."""


def profile(name: str, depth: int) -> QoSProfile:
    """A fresh profile (overrides write into it) called ``name`` with ``keep_last`` ``depth``.

    Raises:
        ConfigError: this ROS distribution has no such profile.
    """
    # Humble has no DEFAULT among the presets; SERVICES_DEFAULT has the same policies everywhere.
    preset = QoSPresetProfiles.__members__.get("SERVICES_DEFAULT" if name == "DEFAULT" else name)
    if preset is None:
        known = ", ".join(QoSPresetProfiles.__members__)
        raise ConfigError(f"QoS profile {name} is not known to this ROS distribution, which has {known}")
    base = preset.value
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=base.reliability, durability=base.durability
    )


def overrides(node: Node, topic: str, entity: str) -> QoSOverridingOptions:
    """Those ``qos_overrides.<topic>.<publisher|subscription>.<policy>`` that were given at start-up.

    rclpy declares them read-only with the profile that an entity has when it is created first, and forces that on all
    later ones: declared for all, ``input_qos`` and its like could never be changed.

    Args:
        entity: ``publisher`` or ``subscription``.

    Raises:
        ConfigError: one of them has a value that its policy does not.
    """
    prefix = f"qos_overrides.{node.resolve_topic_name(topic)}.{entity}."
    given = getattr(node, "_parameter_overrides", {})
    real = (kind for kind in QoSPolicyKind if kind is not QoSPolicyKind.INVALID)
    kinds = [kind for kind in real if prefix + kind.name.lower() in given]
    for kind in kinds:
        name = prefix + kind.name.lower()
        _check(name, kind, given[name].value)
    return QoSOverridingOptions(kinds)


def _check(name: str, kind: QoSPolicyKind, value: Any) -> None:
    if kind in _NAMED:
        names = [policy.lower() for policy in _NAMED[kind].__members__ if policy != "UNKNOWN"]
        if not isinstance(value, str) or value.lower() not in names:
            raise ConfigError(f"{name} must be one of {', '.join(names)}; got {value!r}")
    elif kind.name.startswith("AVOID"):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, got {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{name} must be a number >= 0, got {value!r}")
