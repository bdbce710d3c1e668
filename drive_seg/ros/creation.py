"""What ROS refuses to create, said by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

from drive_seg.errors import ConfigError


@contextmanager
def creating(what: str) -> Iterator[None]:
    """Around the creation of a node or topic: ROS does not say which one it refuses, nor that SROS 2 may be why.

    Raises:
        ConfigError: instead of rclpy's RCLError.
    """
    try:
        yield
    except rclpy_implementation.RCLError as error:
        reason = " ".join(str(error).split())
        if os.environ.get("ROS_SECURITY_ENABLE") == "true":
            domain = os.environ.get("ROS_DOMAIN_ID") or "0"
            reason += f"; with ROS_SECURITY_ENABLE=true the enclave's permissions must allow it in domain {domain}, "
            reason += "and the RMW must have DDS security (docs/security.md)"
        raise ConfigError(f"{what} cannot be created: {reason}") from error


def resolved(node: Node, topic: str) -> str:
    """What ``topic`` is called in full: in the node's namespace, with substitutions and remaps.

    Raises:
        ConfigError: ROS refuses what the substitutions make of it, as an unknown one or the // of ``/a/{ns}``.
    """
    with creating(f"the topic {topic}"):
        return str(node.resolve_topic_name(topic))
