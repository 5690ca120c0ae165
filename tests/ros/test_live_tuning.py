"""Parameter changes while the node runs: atomic, models loaded in the background, and the true values shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import FrameStatus
from rcl_interfaces.msg import ParameterType

from feature_frontend.extractors.networks.opencv_sift import OPENCV
from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk
from feature_frontend.models.catalog import WEIGHTS
from feature_frontend.models.weights import own_weights
from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.settings import PARAMETERS
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.remote import Remote

_FRAME_NS = 100_000_000
_SHIPPED = "silk-vggnp-mu@a11c5f53"
_START = ("extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable", "max_num_keypoints:=100")
Uint8Array = npt.NDArray[np.uint8]


class Stream:
    """Sends images of one sequence and waits for their status."""

    def __init__(self, client: Client, images: list[Uint8Array]) -> None:
        self._client = client
        self._images = images
        self.count = 0

    def next(self) -> FrameStatus:
        """The status of the next image."""
        self.count += 1
        self._client.send_pixels(self._images[self.count % len(self._images)], self.count * _FRAME_NS)
        return self._client.wait_for("status", self.count)[-1]

    def has_latest(self, topic: str) -> bool:
        """Whether the latest image's message of a topic has come."""
        received = self._client.received[topic]
        return bool(received) and stamp_to_ns(received[-1].header.stamp) == self.count * _FRAME_NS

    def latest(self, topic: str) -> Any:
        """The latest image's message of a topic."""
        wait_until(lambda: self.has_latest(topic), f"the latest of {topic}")
        return self._client.received[topic][-1]

    def until(self, extractor: str) -> FrameStatus:
        """Goes on until an image's features come from another extractor; the first such image's status."""
        for _ in range(200):
            status = self.next()
            features = self.latest("features")
            if features.extractor == extractor:
                return status
        pytest.fail(f"no features of {extractor} after 200 images")


@pytest.fixture(scope="module")
def small(photographs: list[Uint8Array]) -> list[Uint8Array]:
    return [np.ascontiguousarray(image[120:240, 160:320]) for image in photographs]


@pytest.fixture(scope="module")
def seeded_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the small SiLK: another model."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = Silk(SILK_CONFIGS["silk-vggnp-mu"])
    path = tmp_path_factory.mktemp("seeded") / "seeded.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def running(domain_id: int, small: list[Uint8Array]) -> Iterator[tuple[RunningNode, Remote, Stream]]:
    with RunningNode(domain_id, *_START) as node, Client(domain_id) as client:
        client.wait_for_node()
        yield node, Remote(client.node), Stream(client, small)


def test_a_model_is_swapped_in_between_two_frames(
    running: tuple[RunningNode, Remote, Stream], seeded_weights: Path
) -> None:
    _, remote, stream = running
    assert [stream.next().state, stream.next().state] == [FrameStatus.FIRST, FrameStatus.OK]
    before = stream.latest("tracks")
    seeded = own_weights("silk-vggnp-mu", seeded_weights).identity
    assert remote.set(weights_path=str(seeded_weights)) == [(True, "")]
    swapped = stream.until(seeded)
    assert swapped.state == FrameStatus.FIRST
    assert swapped.reason == (
        f"the model is now {seeded} on cpu, float32; descriptors of different models do not compare"
    )
    assert (stream.latest("matches").count, stream.latest("matches").run_id0) == (0, 0)
    after = stream.latest("tracks")
    assert min(after.ids) > max(before.ids)
    assert (after.run_id, after.resets > before.resets) == (before.run_id, True)
    assert set(after.ages) == {1}
    status = stream.next()
    assert (status.state, status.reason) == (FrameStatus.OK, "")
    matches = stream.latest("matches")
    assert stamp_to_ns(matches.stamp0) == (stream.count - 1) * _FRAME_NS
    assert status.frames_received == status.frames_processed == stream.count

    # The same weights in another number format are a model of their own: the node goes through the same steps.
    assert remote.set_atomically(precision="bfloat16", max_num_keypoints=40) == (True, "")
    for _ in range(200):
        status = stream.next()
        if status.state == FrameStatus.FIRST:
            break
    assert status.reason.startswith(f"the model is now {seeded} on cpu, bfloat16")
    assert status.keypoints == 40
    assert remote.set(weights_path="", precision="float32") == [(True, ""), (True, "")]
    assert stream.until(_SHIPPED).state == FrameStatus.FIRST

    # An extractor without a network, and back: a file of weights goes with the extractor that it was given for.
    assert remote.set(weights_path=str(seeded_weights)) == [(True, "")]
    stream.until(seeded)
    assert remote.set(extractor="sift") == [(True, "")]
    assert stream.until(f"sift@{OPENCV}").state == FrameStatus.FIRST
    assert remote.get("weights_path") == ""
    features = stream.latest("features")
    assert features.count == len(features.sizes) == len(features.angles) > 0
    assert remote.set(extractor="silk-vggnp-mu") == [(True, "")]
    assert stream.until(_SHIPPED).state == FrameStatus.FIRST

    # The parameter names what "auto" stands for.
    assert remote.set_atomically(extractor="auto", device="cpu") == (True, "")
    assert stream.until(f"dotlet@{WEIGHTS['dotlet'].sha256[:8]}").state == FrameStatus.FIRST
    assert remote.get("extractor") == "dotlet"
    assert remote.set_atomically(extractor="silk-vggnp-mu", device="auto") == (True, "")
    assert stream.until(_SHIPPED).state == FrameStatus.FIRST


def test_a_model_that_cannot_be_had_disturbs_nothing(
    running: tuple[RunningNode, Remote, Stream], tmp_path: Path
) -> None:
    node, remote, stream = running
    stream.next()
    ((accepted, why),) = remote.set(matcher="lightglue")
    assert not accepted
    assert re.search("'lightglue' .*'silk-vggnp-mu'.* aliked-n16", why)
    (tmp_path / "aliked-n16.pth").write_bytes(b"not a network")
    (tmp_path / "wrong.pth").write_bytes(b"not a network")
    problems = {
        "is not the published aliked-n16.pth": {"extractor": "aliked-n16", "weights_dir": str(tmp_path)},
        "no published weights of residual-sift": {"extractor": "residual-sift"},
        "cannot read weights": {"weights_path": str(tmp_path / "wrong.pth")},
    }
    for problem, values in problems.items():
        assert remote.set_atomically(**values) == (True, "")
        reasons = []
        for _ in range(200):
            status = stream.next()
            assert status.state == FrameStatus.OK
            features = stream.latest("features")
            assert features.extractor == _SHIPPED
            reasons.append(status.reason)
            if status.reason:
                break
        assert f"the model stays {_SHIPPED}: " in reasons[-1]
        assert problem in reasons[-1]
        assert stream.next().reason == ""
        assert (remote.get("extractor"), remote.get("weights_path")) == ("silk-vggnp-mu", "")
        assert remote.get("weights_dir") == ""

    # A tracker that only the model to come can serve waits for it, and goes back with it where it cannot be had.
    assert remote.set_atomically(extractor="sift") == (True, "")
    stream.until(f"sift@{OPENCV}")
    assert remote.set_atomically(extractor="silk-vggnp-3", tracker="persistent") == (True, "")
    wait_until(lambda: "the model stays sift" in stream.next().reason, "what became of the model")
    in_use = {"extractor": "sift", "tracker": "chain"}
    wait_until(lambda: {name: remote.get(name) for name in in_use} == in_use, "the parameters in use")
    assert remote.set_atomically(extractor="silk-vggnp-mu", tracker="persistent") == (True, "")
    stream.until(_SHIPPED)
    assert stream.latest("matches").matcher == "persistent"
    _, _, output = node.interrupt()
    assert "Traceback" not in output
    for problem in problems:
        assert output.count(problem) == 1


def test_all_changes_or_none(running: tuple[RunningNode, Remote, Stream]) -> None:
    _, remote, stream = running
    stream.next()
    before = remote.dump()
    for name, value, reason in (
        ("ratio_threshold", 7.0, "out of range"),
        ("extractor", "superglue", "extractor is 'superglue'.* aliked-t16"),
        ("device", "cuda:99", "device is 'cuda:99'.* auto, cpu"),
        (
            "weights_path",
            "/no/such/file",
            "weights_path is '/no/such/file'",
        ),
        ("queue_policy", "newest", "read-only"),
        ("max_num_keypoints", "many", "Wrong parameter type"),
    ):
        successful, why = remote.set_atomically(min_similarity=0.5, **{name: value})
        assert not successful
        assert re.search(reason, why)
    assert remote.dump() == before
    assert stream.next().state == FrameStatus.OK


def test_whole_numbers_are_taken_for_floats_and_read_only_values_as_they_are(
    running: tuple[RunningNode, Remote, Stream],
) -> None:
    _, remote, _ = running
    assert remote.set(ratio_threshold=1, deadline_ms=250) == [(True, ""), (True, "")]
    for name, value in {"ratio_threshold": 1.0, "deadline_ms": 250.0}.items():
        assert (type(remote.get(name)), remote.get(name)) == (float, value)
        described = remote.describe(name)
        assert (described.type, described.dynamic_typing) == (ParameterType.PARAMETER_DOUBLE, False)
    for name, value in {"ratio_threshold": 7, "min_similarity": True, "max_num_keypoints": 5.0, "border": "1"}.items():
        ((successful, why),) = remote.set(**{name: value})
        assert not successful
        assert why

    before = remote.dump()
    assert remote.set_atomically(queue_policy="every_frame") == (True, "")
    assert remote.set_atomically(queue_policy="every_frame", deadline_ms=0, border=3) == (True, "")
    assert remote.dump() == {**before, "deadline_ms": 0.0, "border": 3}
    successful, why = remote.set_atomically(queue_policy="newest", border=4)
    assert not successful
    assert "read-only" in why
    assert remote.get("border") == 3


def test_what_is_published_can_be_chosen(running: tuple[RunningNode, Remote, Stream]) -> None:
    _, remote, stream = running
    stream.next()
    first = stream.latest("tracks")
    assert remote.set_atomically(publish_descriptors=False, publish_matches=False, publish_tracks=False)[0]
    status = stream.next()
    assert status.matches > 0
    features = stream.latest("features")
    assert (features.count, features.descriptor_dim, len(features.descriptors)) == (100, 0, 0)
    assert remote.set_atomically(publish_descriptors=True, publish_matches=True, publish_tracks=True)[0]
    stream.next()
    features = stream.latest("features")
    assert (features.descriptor_dim, len(features.descriptors)) == (32, 100 * 32 * 4)
    stream.latest("matches")
    tracks = stream.latest("tracks")
    assert set(tracks.ids) & set(first.ids), "tracks go on while they are not published"
    assert max(tracks.ages) == 3


def test_every_parameter_says_when_it_acts(running: tuple[RunningNode, Remote, Stream]) -> None:
    _, remote, _ = running
    for record in PARAMETERS.values():
        described = remote.describe(record.name)
        assert described.read_only != record.live
        assert described.description.endswith(record.when)
    assert not remote.describe("extractor").read_only
    assert "aliked-n32" in remote.describe("extractor").additional_constraints
    assert remote.describe("ratio_threshold").floating_point_range[0].to_value == 1.0


def test_a_dump_loads_back_to_the_same_state(
    domain_id: int, small: list[Uint8Array], seeded_weights: Path, tmp_path: Path
) -> None:
    with RunningNode(domain_id, *_START) as node, Client(domain_id) as client:
        client.wait_for_node()
        remote, stream = Remote(client.node), Stream(client, small)
        stream.next()
        assert remote.set_atomically(
            weights_path=str(seeded_weights), max_num_keypoints=33, detection_threshold=0.25, publish_tracks=False
        )[0]
        seeded = own_weights("silk-vggnp-mu", seeded_weights).identity
        stream.until(seeded)
        dumped = remote.dump()
        assert set(remote.set(**dumped)) == {(True, "")}, "as `ros2 param load` does"
        assert set(remote.set_atomically(**dumped)) == {True, ""}
        assert remote.dump() == dumped
        assert node.interrupt()[0] == 0
    file = tmp_path / "dump.yaml"
    file.write_text(yaml.safe_dump({"/frontend": {"ros__parameters": dumped}}), encoding="utf-8")
    with RunningNode(domain_id, arguments=["--params-file", str(file)]) as _, Client(domain_id) as client:
        client.wait_for_node()
        assert Remote(client.node).dump() == dumped
        stream = Stream(client, small)
        stream.next()
        features = stream.latest("features")
        assert (features.extractor, features.count) == (seeded, 33)


def test_a_deadline_makes_the_image_smaller_and_gives_it_back(running: tuple[RunningNode, Remote, Stream]) -> None:
    _, remote, stream = running

    def until(text: str) -> FrameStatus:
        for _ in range(2000):
            status = stream.next()
            if text in status.reason:
                return status
        pytest.fail(f"no status with {text!r} after 2000 images")

    assert remote.set(deadline_ms=0.01) == [(True, "")]
    assert until("the network now sees at most 24% of its usual pixels").state == FrameStatus.OK
    assert stream.next().keypoints > 20
    features = stream.latest("features")
    # Coordinates stay those of the whole image; the network's own end at half of its height.
    assert max(features.keypoints[1::2]) > 0.6 * features.height
    assert remote.set(deadline_ms=0.0) == [(True, "")]
    assert until("deadline_ms is off: the network sees its usual pixels again").state == FrameStatus.OK
