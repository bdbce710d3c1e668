"""QoS profiles by the names Isaac ROS uses; ``qos_overrides`` parameters work on top of them."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSPresetProfiles,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from drive_seg.errors import ConfigError

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Late joiners get the last message: label_info."""


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
    """
    prefix = f"qos_overrides.{node.resolve_topic_name(topic)}.{entity}."
    given = getattr(node, "_parameter_overrides", {})
    return QoSOverridingOptions([kind for kind in QoSPolicyKind if prefix + kind.name.lower() in given])
