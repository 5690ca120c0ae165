"""Random messages of every type through rclpy, `record`, `process` and back: none refused, none changed."""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("rosbags", reason="needs rosbags")

import rclpy
from ament_index_python.packages import get_package_share_directory
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from feature_frontend.sources.bag import BagImage, BagSource
from feature_frontend.sources.bags.messages import MessageReader
from feature_frontend.sources.bags.sequence import Bag
from feature_frontend.sources.playback import PlaybackSettings
from feature_frontend.tools.common.bag_writer import BagWriter, message_type_name, typestore_with
from feature_frontend.tools.process.inputs import input_frames
from feature_frontend.tools.process.output import BagMessages
from feature_frontend.tools.record import TOPICS, Recorder
from tests.campaign import Campaign

_RESULTS: list[type] = [Features, Matches, Tracks, FrameStatus]
_READ: list[type] = [Image, CompressedImage, CameraInfo]
_EVERY = [*_RESULTS, *_READ]
_BATCH = 50


def random_value(kind: str, chance: random.Random) -> Any:
    if kind in {"float", "double"}:
        return float(np.float32(chance.uniform(-1e4, 1e4)))
    if kind == "boolean":
        return chance.random() < 0.5
    signed = not kind.startswith("u") and kind != "octet"
    bits = {"octet": 8}.get(kind) or int(kind.removeprefix("u").removeprefix("int"))
    return chance.randrange(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - int(signed)))


def fill(message: Any, chance: random.Random, *, is_empty: bool) -> Any:
    """Fills every field; strings of 0 to 8 letters, and sequences of 0 to 20 elements or of none."""
    for name, kind in message.get_fields_and_field_types().items():
        current = getattr(message, name)
        if hasattr(current, "get_fields_and_field_types"):
            fill(current, chance, is_empty=is_empty)
        elif kind == "string":
            setattr(message, name, "".join(chance.choices("abcdäz", k=chance.randrange(9))))
        elif kind.startswith("sequence<"):
            element = kind.removeprefix("sequence<").removesuffix(">")
            count = 0 if is_empty else chance.choice((0, 0, 1, 2, 3, chance.randrange(21)))
            setattr(message, name, array(current.typecode, [random_value(element, chance) for _ in range(count)]))
        elif "[" in kind:
            element, _, count = kind.removesuffix("]").partition("[")
            setattr(message, name, [random_value(element, chance) for _ in range(int(count))])
        else:
            setattr(message, name, random_value(kind, chance))
    # What a stamp can be: a recorder writes it as the time in the bag.
    message_header = getattr(message, "header", None)
    if message_header is not None:
        message_header.stamp.sec = chance.randrange(2**31)
        message_header.stamp.nanosec = chance.randrange(10**9)
    return message


def random_messages(kind: type, count: int, chance: random.Random) -> list[Any]:
    """The first ones have empty sequences, and frame ids of 0 to 8 letters."""
    messages = [fill(kind(), chance, is_empty=number < 9 or number % 10 == 0) for number in range(count)]
    for number, message in enumerate(messages[:9]):
        message.header.frame_id = "x" * number
    return messages


def read_back(bag: Path, kind: type) -> list[Any]:
    """The messages of a type, read by our reader, serialized by rosbags, and read by rclpy."""
    name = message_type_name(kind)
    store = typestore_with({name}, get_package_share_directory)
    reader = MessageReader()
    opened = Bag(bag)
    names = {topic.name for topic in opened.topics if topic.type_name == name}
    found = [
        deserialize_message(bytes(store.serialize_cdr(reader.read(message), name)), kind)
        for message in opened.messages(names)
    ]
    assert opened.losses.missing == []
    return found


@pytest.fixture
def node() -> Iterator[Node]:
    rclpy.init()
    made = Node("round_trips")
    yield made
    made.destroy_node()
    rclpy.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_what_is_published_is_recorded_and_read(tmp_path: Path, node: Node, campaign: Campaign, storage: str) -> None:
    chance = random.Random(campaign.seed)
    count = campaign.count(5000, "messages of each type, recorded")
    topics = {name: kind for name, kind in TOPICS.items() if kind in _EVERY}
    sent = {name: random_messages(kind, count, chance) for name, kind in topics.items()}
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    typestore = typestore_with({message_type_name(kind) for kind in topics.values()}, get_package_share_directory)
    with BagWriter(tmp_path / "bag", storage, typestore) as bag:
        # In the order of arrival: random stamps would be sorted.
        recorder = Recorder(node, bag, list(topics), "reliable", by_header=False)
        publishers = {name: node.create_publisher(kind, name, QoSProfile(depth=1000)) for name, kind in topics.items()}
        wait(executor, lambda: all(publisher.get_subscription_count() for publisher in publishers.values()))
        for first in range(0, count, _BATCH):
            for name, publisher in publishers.items():
                for message in sent[name][first : first + _BATCH]:
                    publisher.publish(message)
            done = min(first + _BATCH, count)
            wait(executor, lambda done=done: all(found == done for found in recorder.counts.values()))
    for name, kind in topics.items():
        assert read_back(tmp_path / "bag", kind) == sent[name], name


def wait(executor: SingleThreadedExecutor, is_done: Any) -> None:
    deadline_s = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < deadline_s
        executor.spin_once(timeout_sec=0.1)


@pytest.mark.parametrize("kind", _RESULTS, ids=lambda kind: kind.__name__)
def test_what_process_writes_is_read(tmp_path: Path, campaign: Campaign, kind: type) -> None:
    chance = random.Random(campaign.seed)
    messages = random_messages(kind, campaign.count(5000, f"messages of {kind.__name__}, processed"), chance)
    collected = BagMessages("/", {"results": kind})
    for message in messages:
        # Times in ms become 0 as they are published.
        collected.publish("results", message)
    with BagWriter(tmp_path / "bag", "mcap", collected.typestore) as bag:
        bag.add_topic("/results", collected.topics["/results"])
        for number, (topic, data) in enumerate(collected.take()):
            bag.write(topic, number, data)
    assert read_back(tmp_path / "bag", kind) == messages


@pytest.mark.parametrize("kind", _READ, ids=lambda kind: kind.__name__)
def test_what_a_bag_holds_is_processed(tmp_path: Path, campaign: Campaign, kind: type) -> None:
    chance = random.Random(campaign.seed)
    messages = random_messages(kind, campaign.count(5000, f"messages of {kind.__name__}, read"), chance)
    typestore = typestore_with(set(), get_package_share_directory)
    topic = "/cam/camera_info" if kind is CameraInfo else "/cam/image_raw"
    with BagWriter(tmp_path / "bag", "sqlite3", typestore) as bag:
        bag.add_topic("/cam/image_raw", message_type_name(Image if kind is CameraInfo else kind))
        bag.add_topic("/cam/camera_info", message_type_name(CameraInfo))
        if kind is CameraInfo:
            bag.write("/cam/image_raw", 0, serialize_message(Image()))
        for number, message in enumerate(messages, 1):
            # As rclpy leaves it, with what was in memory behind the last field.
            bag.write(topic, number, serialize_message(message))
    if kind is CameraInfo:
        ((_, infos),) = BagSource(tmp_path / "bag").messages()
        # The first one of a bag is also that of the images before it.
        found = infos[1:]
    else:
        frames = list(input_frames(BagSource(tmp_path / "bag"), PlaybackSettings(), None, None))
        found = [frame.found.message for frame in frames if isinstance(frame.found, BagImage)]
        for frame, message in zip(frames, messages, strict=True):
            expected = message.header.stamp, message.header.frame_id or "camera"
            assert (frame.header.stamp, frame.header.frame_id) == expected
    name = message_type_name(kind)
    assert [deserialize_message(bytes(typestore.serialize_cdr(one, name)), kind) for one in found] == messages
