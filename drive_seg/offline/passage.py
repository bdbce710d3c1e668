"""Messages of a bag on their way into another one, untouched but for what ROS 1 wrote differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drive_seg.offline.salvage import SalvagedMessage, ros2_name

RESULTS = "/segmentation/"
"""Topics that are not copied: those of an earlier run, which the new ones replace."""


@dataclass(frozen=True)
class Channel:
    """A topic of a bag with all that another bag must know of it.

    Attributes:
        definition: text of the message definition, .msg or .idl.
        digest: its RIHS01 hash.
        qos: offered profiles, of rosbags.
    """

    topic: str
    msgtype: str
    definition: str
    digest: str
    qos: Sequence[Any] = ()


@dataclass(frozen=True)
class Passage:
    """One serialised (CDR) message that is copied."""

    channel: Channel
    recorded_ns: int
    data: bytes | memoryview


class Copier:
    """Makes passages of what the library rosbags reads.

    Args:
        reader: an open AnyReader, or None for salvaged messages.
    """

    def __init__(self, reader: Any = None) -> None:
        from rosbags.typesys import Stores, get_typestore

        self._reader = reader
        self._store = get_typestore(Stores.ROS2_HUMBLE)
        self._channels: dict[tuple[str, str], Channel | None] = {}
        self._defaults: dict[str, object] = {}
        self.left_out: set[str] = set()
        """Topics of salvaged messages whose type is not one of ROS' own."""

    def copied(self, connection: Any, recorded_ns: int, raw: bytes | memoryview) -> Passage | None:
        """The message of a connection; None where its type is not known or its topic not copied."""
        key = (connection.topic, connection.msgtype)
        if key not in self._channels:
            self._channels[key] = self._channel(connection)
        channel = self._channels[key]
        if channel is None:
            return None
        return Passage(channel, recorded_ns, raw if self._reader.is2 else self._as_ros2(channel.msgtype, raw))

    def salvaged(self, message: SalvagedMessage) -> Passage | None:
        """As ``copied``, of a bag that has lost its index."""
        key = (message.topic, message.msgtype)
        if key not in self._channels:
            self._channels[key] = self._from_store(*key)
            if self._channels[key] is None and not message.topic.startswith(RESULTS):
                self.left_out.add(message.topic)
        channel = self._channels[key]
        return None if channel is None else Passage(channel, message.recorded_ns, message.data)

    def _channel(self, connection: Any) -> Channel | None:
        if not self._reader.is2:
            from rosbags.convert.converter import LATCH

            self._adopt(connection.msgtype)
            return self._from_store(connection.topic, connection.msgtype, LATCH[:1] if connection.ext.latching else ())
        qos = connection.ext.offered_qos_profiles
        if connection.msgdef.data and not connection.topic.startswith(RESULTS):
            # A single MCAP file has no hashes where rosbags looks for them.
            digest = connection.digest or self._digest(connection.msgtype)
            return (
                Channel(connection.topic, connection.msgtype, _definition(connection), digest, qos) if digest else None
            )
        return self._from_store(connection.topic, ros2_name(connection.msgtype), qos)

    def _digest(self, msgtype: str) -> str:
        """Empty where the bag's definition is of another type, or uses one that the bag does not define."""
        try:
            return str(self._reader.typestore.hash_rihs01(msgtype))
        except KeyError:
            return ""

    def _from_store(self, topic: str, msgtype: str, qos: Sequence[Any] = ()) -> Channel | None:
        if topic.startswith(RESULTS) or msgtype not in self._store.fielddefs:
            return None
        definition, _ = self._store.generate_msgdef(msgtype, ros_version=2)
        return Channel(topic, msgtype, definition, self._store.hash_rihs01(msgtype), qos)

    def _adopt(self, msgtype: str) -> None:
        """Know a ROS 1 type under the name it has in ROS 2."""
        from rosbags.typesys import get_types_from_msg

        if msgtype not in self._store.fielddefs:
            text, _ = self._reader.typestore.generate_msgdef(msgtype, ros_version=2)
            types = get_types_from_msg(text, msgtype)
            self._store.register({name: fields for name, fields in types.items() if name not in self._store.fielddefs})

    def _as_ros2(self, msgtype: str, raw: bytes | memoryview) -> bytes | memoryview:
        from rosbags.convert.converter import migrate_bytes

        theirs = self._reader.typestore
        return migrate_bytes(theirs, self._store, msgtype, msgtype, self._defaults, raw, src_is2=False, dst_is2=True)


def _definition(connection: Any) -> str:
    """The text of a message definition; rosbags takes IDL for .msg where it has not the heading that rosbag2 writes."""
    from rosbags.interfaces import MessageDefinitionFormat

    text, heading = str(connection.msgdef.data), f"{'=' * 80}\nIDL: "
    bare = connection.msgdef.format == MessageDefinitionFormat.IDL and not text.startswith(heading)
    return f"{heading}{connection.msgtype}\n{text}" if bare else text
