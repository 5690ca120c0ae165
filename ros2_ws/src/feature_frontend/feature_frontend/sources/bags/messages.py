"""Deserializes messages to objects with the fields of their types.

Parses only the types of topics in use; uses known definitions for sensor_msgs, whatever a bag contains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from feature_frontend.errors import SourceError
from feature_frontend.sources.bags.storage import BagMessage, BagTopic
from feature_frontend.system.text import printable, quoted, short_text

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

__all__ = ["ENCODINGS", "MessageReader"]

ENCODINGS = ("cdr", "ros1")
"""Supported serializations."""


class MessageReader:
    """Deserializes messages of any topic.

    Args:
        installed: Returns the definitions of types that are neither standard nor stored in a bag; None for none.
    """

    def __init__(self, installed: Callable[[str], Typestore | None] | None = None) -> None:
        self._installed = installed
        self._stores: dict[tuple[str, str, str], Typestore] = {}

    def read(self, message: BagMessage) -> Any:
        """Deserializes a message.

        Raises:
            ValueError: It is damaged, or its type is unknown.
            SourceError: The package rosbags is not installed.
        """
        if message.problem:
            raise ValueError(message.problem)
        topic = message.topic
        key = (topic.type_name, topic.encoding, topic.definition)
        if key not in self._stores:
            self._stores[key] = self._store(topic)
        try:
            if topic.encoding == "ros1":
                return self._stores[key].deserialize_ros1(message.data, topic.type_name)
            from feature_frontend.sources.bags.rosbags_workarounds import deserialize_cdr

            return deserialize_cdr(self._stores[key], message.data, topic.type_name)
        except Exception as error:
            # For damaged messages, the deserializer raises anything from struct.error to IndexError and AssertionError.
            raise ValueError(f"the message is damaged: {type(error).__name__}: {short_text(error)}") from error

    def _store(self, topic: BagTopic) -> Typestore:
        if topic.encoding not in ENCODINGS:
            kind = quoted(topic.encoding)
            raise ValueError(
                f"the messages of {printable(topic.name, 60)} are in {kind}; expected one of {', '.join(ENCODINGS)}"
            )
        known = _known(topic.encoding)
        if topic.type_name in known.fielddefs:
            return known
        defined = _defined(topic)
        if defined is not None:
            return defined
        installed = None if self._installed is None else self._installed(topic.type_name)
        if installed is None:
            raise ValueError(f"the definition of {quoted(topic.type_name)} is neither in the bag nor installed")
        return installed


@lru_cache(maxsize=2)
def _known(encoding: str) -> Typestore:
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise SourceError("reading bags needs the Python package rosbags: pip install rosbags") from error
    # The sensor_msgs types read here are identical from Foxy to Rolling.
    return get_typestore(Stores.ROS1_NOETIC if encoding == "ros1" else Stores.ROS2_HUMBLE)


def _defined(topic: BagTopic) -> Typestore | None:
    """The definitions stored in a bag; None if they cannot be used."""
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    parse = {"ros2msg": get_types_from_msg, "ros1msg": get_types_from_msg}.get(topic.definition_format)
    try:
        if parse is not None:
            types = parse(topic.definition, topic.type_name)
        elif topic.definition_format == "ros2idl":
            # Several files in one text, each after a line of "=" and a line with its name.
            separator = "=" * 80 + "\n"
            parts = topic.definition.split(separator)
            types = {}
            for part in parts:
                types.update(get_types_from_idl(part.partition("\n")[2] if part.startswith("IDL: ") else part))
        else:
            return None
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        store.get_msgdef(topic.type_name)
    except Exception:  # definitions that are damaged, or that rosbags cannot parse
        return None
    return store
