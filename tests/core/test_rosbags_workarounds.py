"""Each workaround is still needed: these tests fail once rosbags is fixed and the workaround can be removed."""

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs the Python package rosbags")
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from feature_frontend.sources.bags.rosbags_workarounds import deserialize_cdr

_IMAGE = "sensor_msgs/msg/Image"
_TYPE = "example/msg/Ids"
# As rclpy of Jazzy serializes it with `text` of four letters and an empty `ids`: 4 bytes more than the message.
_FROM_RCLPY = bytes.fromhex("000100000500000061626364000000000000000000000000deadbeef")


def test_empty_sequences_of_8_byte_elements_by_rclpy() -> None:
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("string text\nuint64[] ids\nuint32[] ages", _TYPE))
    # Version 0.10 asserts.
    with pytest.raises((SerdeError, AssertionError)):
        store.deserialize_cdr(_FROM_RCLPY, _TYPE)
    message = deserialize_cdr(store, _FROM_RCLPY, _TYPE)
    assert (message.text, len(message.ids), len(message.ages)) == ("abcd", 0, 0)
    for damaged in (_FROM_RCLPY[:3], _FROM_RCLPY[:12], _FROM_RCLPY + bytes(8), b"\1" + _FROM_RCLPY[1:]):
        with pytest.raises(SerdeError):
            deserialize_cdr(store, damaged, _TYPE)


@pytest.mark.parametrize("little_endian", [True, False])
def test_a_frame_id_that_is_no_utf8(little_endian: bool) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    header = store.types["std_msgs/msg/Header"](store.types["builtin_interfaces/msg/Time"](7, 8), "kam_ra")
    data = np.arange(9, dtype=np.uint8)
    whole = store.types[_IMAGE](header, 3, 3, "mono8", 0, 3, data)
    latin = bytes(store.serialize_cdr(whole, _IMAGE, little_endian=little_endian)).replace(b"kam_ra", b"kam\xe9ra")
    with pytest.raises((SerdeError, UnicodeDecodeError)):
        store.deserialize_cdr(latin, _IMAGE)
    message = deserialize_cdr(store, latin, _IMAGE)
    # As rclpy has it.
    assert (message.header.frame_id, message.encoding) == ("kam\ufffdra", "mono8")
    np.testing.assert_array_equal(message.data, data)
    with pytest.raises(SerdeError, match="utf-8"):
        deserialize_cdr(store, latin.replace(b"mono8", b"mono\xff"), _IMAGE)
