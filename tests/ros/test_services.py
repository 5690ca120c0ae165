"""`~/match_frames` and `~/reset` of the real node."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import FrameStatus
from feature_frontend_msgs.srv import MatchFrames
from std_msgs.msg import Empty

from feature_frontend import load_extractor, load_matcher
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.services import MOST_WAITING
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.remote import Remote

_FRAME_NS = 100_000_000
Uint8Array = npt.NDArray[np.uint8]


@pytest.fixture
def connected(domain_id: int) -> Iterator[tuple[Client, Remote]]:
    parameters = ("extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable", "store_frames:=4")
    with RunningNode(domain_id, *parameters, "max_num_keypoints:=200") as _, Client(domain_id) as client:
        client.wait_for_node()
        yield client, Remote(client.node)


def _match(remote: Remote, frame0: int, frame1: int) -> MatchFrames.Response:
    request = MatchFrames.Request(stamp0=stamp_from_ns(frame0 * _FRAME_NS), stamp1=stamp_from_ns(frame1 * _FRAME_NS))
    return remote.call(MatchFrames, "match_frames", request)


def test_two_earlier_frames_are_matched_on_request(
    connected: tuple[Client, Remote], photographs: list[Uint8Array]
) -> None:
    client, remote = connected
    images = [np.ascontiguousarray(image[100:340, 100:420]) for image in photographs]
    nothing = _match(remote, 1, 2)
    assert not nothing.ok
    assert nothing.reason.startswith("no frame with stamp 0.100000000 is held: none is")
    for index in range(6):
        client.send_pixels(images[index % 3], (index + 1) * _FRAME_NS)
    client.wait_for("status", 6)

    extractor = load_extractor("silk-vggnp-mu", device="cpu", compile=False, max_num_keypoints=200)
    features0, features1 = extractor.extract(images[0]), extractor.extract(images[2])
    expected = load_matcher("mnn").match(features0, features1)
    response = _match(remote, 4, 6)
    assert (response.ok, response.reason) == (True, "")
    matches = response.matches
    assert stamp_to_ns(matches.stamp0) == 4 * _FRAME_NS
    assert stamp_to_ns(matches.header.stamp) == 6 * _FRAME_NS
    assert (matches.header.frame_id, matches.matcher, matches.count) == ("camera", "mnn", len(expected))
    assert len(expected) > 50
    np.testing.assert_array_equal(matches.indices0, expected.indices0.numpy())
    np.testing.assert_array_equal(matches.indices1, expected.indices1.numpy())
    keypoints0 = np.frombuffer(matches.keypoints0, np.float32).reshape(-1, 2)
    np.testing.assert_array_equal(keypoints0, features0.keypoints[expected.indices0].numpy())
    assert {matches.run_id, matches.run_id0} == {client.received["status"][0].run_id}
    assert len(matches.normalized_keypoints0) == len(matches.normalized_keypoints1) == 0

    # The matcher's live parameters hold here too, and any order of the two frames is fine.
    assert remote.set(min_similarity=1.0) == [(True, "")]
    assert _match(remote, 6, 4).matches.count == 0
    gone = _match(remote, 1, 6)
    assert (gone.ok, gone.matches.count) == (False, 0)
    assert "no frame with stamp 0.100000000 is held; expected one of 4 held frames" in gone.reason
    assert "0.300000000, 0.400000000, 0.500000000, 0.600000000" in gone.reason

    assert remote.set(precision="bfloat16", min_similarity=-1.0) == [(True, ""), (True, "")]
    assert remote.set(precision="float32") == [(True, "")]
    assert remote.set(store_frames=0) == [(True, "")]
    wait_until(lambda: not _match(remote, 4, 6).ok, "an empty store")


def test_many_requests_at_once_are_answered_or_refused(
    connected: tuple[Client, Remote], photographs: list[Uint8Array]
) -> None:
    client, remote = connected
    image = np.ascontiguousarray(photographs[0][:120, :160])
    for count in (1, 2):
        client.send_pixels(image, count * _FRAME_NS)
    client.wait_for("status", 2)
    request = MatchFrames.Request(stamp0=stamp_from_ns(_FRAME_NS), stamp1=stamp_from_ns(2 * _FRAME_NS))
    # The history of a client by default holds 10 answers, which may be too few for 300 that come at once.
    qos = qos_profile("reliable", 1000)
    caller = client.node.create_client(MatchFrames, "/frontend/match_frames", qos_profile=qos)
    wait_until(caller.service_is_ready, "the service")
    futures = [caller.call_async(request) for _ in range(300)]
    wait_until(lambda: all(future.done() for future in futures), "300 answers")
    responses = [future.result() for future in futures]
    assert sum(response.ok for response in responses) >= MOST_WAITING
    busy = f"busy: {MOST_WAITING} requests wait for their answer; ask again once some have theirs"
    assert {response.reason for response in responses if not response.ok} <= {busy}
    # Nobody is turned away for what is over.
    assert _match(remote, 1, 2).ok
    client.send_pixels(image, 3 * _FRAME_NS)
    assert client.wait_for("status", 3)[-1].state == FrameStatus.OK


def test_frames_of_different_models_are_refused(
    connected: tuple[Client, Remote], photographs: list[Uint8Array], weights_dir: str
) -> None:
    client, remote = connected
    image = np.ascontiguousarray(photographs[0][:120, :160])
    client.send_pixels(image, _FRAME_NS)
    client.wait_for("status", 1)
    assert remote.set_atomically(extractor="aliked-t16", weights_dir=weights_dir) == (True, "")
    for count in range(2, 200):
        client.send_pixels(image, count * _FRAME_NS)
        if client.wait_for("status", count)[-1].state == FrameStatus.FIRST:
            break
    assert remote.set(store_frames=300) == [(True, "")]
    response = _match(remote, count - 1, count)
    assert not response.ok
    assert response.reason.startswith("descriptors of silk-vggnp-mu@a11c5f53 and aliked-t16@56782336 do not compare")


def test_a_reset_and_a_gap_restarts_and_ids_go_on(
    connected: tuple[Client, Remote], photographs: list[Uint8Array]
) -> None:
    client, remote = connected
    image = np.ascontiguousarray(photographs[0][:120, :160])
    for count in (1, 2):
        client.send_pixels(image, count * _FRAME_NS)
    client.wait_for("status", 2)
    ids = client.wait_for("tracks", 2)[-1].ids
    try:
        from std_srvs.srv import Empty as EmptyService
    except ImportError:
        reset = client.node.create_publisher(Empty, "/frontend/reset", 1)
        wait_until(lambda: reset.get_subscription_count() == 1, "the topic reset")
        reset.publish(Empty())
    else:
        Remote(client.node).call(EmptyService, "reset", EmptyService.Request())
    # A topic is not ordered against the images: the reset acts from some early frame on.
    for count in range(3, 50):
        client.send_pixels(image, count * _FRAME_NS)
        status = client.wait_for("status", count)[-1]
        if status.state == FrameStatus.FIRST:
            break
    assert (status.state, status.reason, status.matches) == (FrameStatus.FIRST, "a reset was requested", 0)
    after = client.wait_for("tracks", count)[-1]
    assert min(after.ids) > max(ids)
    client.send_pixels(image, (count + 1) * _FRAME_NS)
    status = client.wait_for("status", count + 1)[-1]
    assert (status.state, status.reason) == (FrameStatus.OK, "")

    later_ns = (count + 1) * _FRAME_NS + 20_300_000_000
    client.send_pixels(image, later_ns)
    status = client.wait_for("status", count + 2)[-1]
    said = "20.3 s have passed since the previous image (max_gap_s is 1): nothing is matched across"
    assert (status.state, status.reason, status.matches) == (FrameStatus.FIRST, said, 0)
    behind = client.wait_for("tracks", count + 2)[-1]
    assert min(behind.ids) > max(after.ids)
    assert (behind.resets, status.resets) == (after.resets + 1,) * 2
    assert remote.set(max_gap_s=0.0) == [(True, "")]
    client.send_pixels(image, later_ns + 10**15)
    status = client.wait_for("status", count + 3)[-1]
    assert (status.state, status.reason, status.resets) == (FrameStatus.OK, "", behind.resets)
