"""The adapter for VINS-Fusion: the layout of its feature topic, and the adapter behind the real node."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import Tracks
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, PointCloud
from std_msgs.msg import Header

from feature_frontend.ros.adapters.sticky_choice import IDS, StickyChoice
from feature_frontend.ros.adapters.vins import CHANNELS, TOPIC, VinsEncoder
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from tests.campaign import Campaign
from tests.generated import for_each
from tests.ros.harness import Client, RunningNode, wait_until

_FRAME_NS = 100_000_000
_FOCAL_PX = 525.0


def _tracks(stamp_ns: int, rows: list[tuple[int, int, float, float]], run_id: int = 5, resets: int = 0) -> Tracks:
    """Of (id, age, x, y); the keypoints are the rays by 100, the velocities the rays by 2 a second."""
    message = Tracks(header=Header(stamp=stamp_from_ns(stamp_ns), frame_id="camera"), count=len(rows))
    message.ids, message.ages = [row[0] for row in rows], [row[1] for row in rows]
    message.normalized_keypoints = [value for row in rows for value in row[2:]]
    message.keypoints = [100 * value for value in message.normalized_keypoints]
    message.normalized_velocities = [2 * value if row[1] > 1 else 0.0 for row in rows for value in row[2:]]
    message.run_id, message.resets = run_id, resets
    return message


def _encoder(max_tracks: int = 150, min_age: int = 1, min_distance_px: float = 0.0) -> VinsEncoder:
    return VinsEncoder(StickyChoice(max_tracks, min_age, min_distance_px))


def _table(cloud: PointCloud) -> npt.NDArray[np.float64]:
    """(N, 9) of the channels, in their order."""
    assert tuple(channel.name for channel in cloud.channels) == CHANNELS
    assert all(point.z == 1.0 for point in cloud.points)
    return np.array([channel.values for channel in cloud.channels]).T.reshape(-1, 9)


def test_velocities_are_of_the_normalised_plane_and_a_second() -> None:
    encoder = _encoder()
    first = encoder.convert(_tracks(0, [(7, 1, 0.1, 0.2), (8, 1, 0.0, 0.0)])).cloud
    assert first.header.frame_id == "camera"
    assert not _table(first)[:, 4:].any()
    table = _table(encoder.convert(_tracks(_FRAME_NS // 2, [(8, 2, 0.01, -0.02), (9, 1, 0.5, 0.5)])).cloud)
    np.testing.assert_allclose(table[0], [1, 0, 1, -2, 0.02, -0.04, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(table[1], [2, 0, 50, 50, 0, 0, 0, 0, 0], atol=1e-6)
    unknown = _tracks(_FRAME_NS, [(8, 3, 0.9, 0.9)])
    unknown.normalized_velocities = [float("nan"), 1.0]
    np.testing.assert_allclose(_table(encoder.convert(unknown).cloud)[0, 4:6], [0, 1])


def test_what_restarts_says_why() -> None:
    encoder = _encoder()
    sent = [(1, 5, 0), (2, 5, 0), (3, 6, 0), (4, 6, 1), (2, 6, 1), (3, 6, 1)]
    said = [encoder.convert(_tracks(number * _FRAME_NS, [], *run)).restart for number, *run in sent]
    assert [bool(text) for text in said] == [False, False, True, True, True, False]
    assert "restarted" in said[2]
    assert "was reset" in said[3]
    assert "went back by 0.200 s" in said[4]


def test_what_cannot_be_sent_is_reported() -> None:
    encoder = _encoder()
    row = (1, 2, 0.1, 0.1)
    message = _tracks(0, [row])
    assert encoder.problem(message) == ""
    encoder.convert(message)
    assert "with the stamp of those before" in encoder.problem(message)
    assert "same id twice" in encoder.problem(_tracks(_FRAME_NS, [row, row]))
    message = _tracks(_FRAME_NS, [row])
    message.normalized_keypoints = []
    assert "does the front-end get camera_info?" in encoder.problem(message)


def test_free_places_go_to_the_oldest_that_keep_the_distance() -> None:
    # At x = 10, 20, ... px. The third has no ray.
    rows = [(1, 2, 0.1, 0.0), (2, 9, 0.2, 0.0), (3, 5, float("nan"), 0.0), (4, 5, 0.4, 0.0), (5, 1, 0.5, 0.0)]

    def sent(max_tracks: int = 9, min_age: int = 1, min_distance_px: float = 0.0) -> list[float]:
        cloud = _encoder(max_tracks, min_age, min_distance_px).convert(_tracks(0, rows)).cloud
        return _table(cloud)[:, 2].tolist()

    assert sent() == pytest.approx([20, 40, 10, 50])
    assert sent(max_tracks=2) == pytest.approx([20, 40])
    assert sent(min_age=2) == pytest.approx([20, 40, 10])
    assert sent(min_distance_px=15) == pytest.approx([20, 40])
    empty = _encoder().convert(_tracks(0, [])).cloud
    assert (len(empty.points), len(empty.channels)) == (0, 9)


def test_ids_begin_again_where_float32_ends_and_pass_over_those_in_use() -> None:
    choice = StickyChoice(max_tracks=9)
    encoder = VinsEncoder(choice)

    def sent(number: int, tracks: list[int], **message: int) -> list[float]:
        cloud = encoder.convert(
            _tracks(number * _FRAME_NS, [(track, 1, 0.0, 0.0) for track in tracks], **message)
        ).cloud
        return _table(cloud)[:, 0].tolist()

    assert sent(1, [2**40 + 3, 9]) == [0, 1]
    choice.next_id = IDS - 1
    assert sent(2, [9, 2**40 + 3, 4, 5]) == [1, 0, IDS - 1, 2]
    choice.next_id = 0
    # Ended in this very message, and yet not to be continued by others.
    assert sent(3, [4, 5, 6], resets=1) == [3, 4, 5]


@dataclass(frozen=True)
class _Image:
    """Rows of (track, age, x, y), without a ray where x is NaN, of a run and a stamp."""

    rows: list[tuple[int, int, float, float]]
    run: tuple[int, int]
    stamp_ns: int


@st.composite
def _histories(draw: st.DrawFn) -> list[_Image]:
    """Tracks that come, are missed, lose their rays and come back, restarts, resets and stamps that go back."""
    images: list[_Image] = []
    run_id, resets, stamp_ns = 1, 0, 0
    ages: dict[int, int] = {}
    row = st.tuples(st.integers(0, 4), st.integers(0, 9))
    for _ in range(draw(st.integers(1, 8))):
        event = draw(st.sampled_from(["", "", "", "", "run", "reset", "back"]))
        run_id, resets = run_id + (event == "run"), resets + (event == "reset")
        stamp_ns += -_FRAME_NS // 2 if event == "back" else _FRAME_NS
        seen = draw(st.dictionaries(st.integers(1, 7), row, max_size=7))
        for track in seen:
            ages[track] = ages.get(track, 0) + 1
        rows = [
            (track, ages[track], place / 10 if ray else float("nan"), track / 1e4)
            for track, (ray, place) in seen.items()
        ]
        images.append(_Image(rows, (run_id, resets), max(stamp_ns, 0)))
    return images


def _check(images: list[_Image], encoder: VinsEncoder, max_tracks: int, min_age: int, distance_px: int) -> Counter[str]:
    """Checks what the receiver relies on; which situations there were."""
    met: Counter[str] = Counter()
    sightings: dict[int, list[tuple[int, int]]] = {}
    before: dict[int, int] = {}
    last, number = _Image([], (0, 0), -1), 0
    for image in images:
        message = _tracks(image.stamp_ns, image.rows, *image.run)
        if encoder.problem(message):
            # The stamp of the image before: the receiver gets no cloud, and the next one is the next image for it.
            continue
        encoded, number = encoder.convert(message), number + 1
        table = _table(encoded.cloud)
        places = {track: np.array([100 * x, 100 * y]) for track, _, x, y in image.rows if not math.isnan(x)}
        ages = {track: age for track, age, *_ in image.rows}
        tracks = np.rint(table[:, 3] * 100).astype(int).tolist()
        sent = dict(zip(tracks, table[:, 0].astype(int).tolist(), strict=True))
        for track, wire_id in sent.items():
            sightings.setdefault(wire_id, []).append((number, track))
        assert len(sent) == len(table) <= max_tracks
        assert sent.keys() <= places.keys()
        assert all(0 <= wire_id < IDS for wire_id in sent.values())

        goes_on = image.run == last.run and image.stamp_ns > last.stamp_ns
        stays = {track: wire_id for track, wire_id in before.items() if goes_on and track in places}
        assert stays.items() <= sent.items()
        new = sent.keys() - stays.keys()
        assert all(len(sightings[sent[track]]) == 1 for track in new)
        assert all(ages[track] >= min_age for track in new)

        def is_close(track: int, others: Iterable[int], places: dict[int, npt.NDArray[np.float64]] = places) -> bool:
            return any(
                np.linalg.norm(places[track] - places[other]) < distance_px for other in others if other != track
            )

        assert not any(is_close(track, sent) for track in new)
        left_out = {track for track in places.keys() - sent.keys() if ages[track] >= min_age}
        waiting = {track for track in left_out if not is_close(track, sent)}
        assert not waiting or len(sent) == max_tracks
        assert all(ages[track] <= ages[other] for track in waiting for other in new)
        choice = encoded.choice
        young = len(places) - len(left_out) - len(sent)
        assert (choice.without_ray, choice.too_young) == (len(image.rows) - len(places), young)
        assert (choice.too_close, choice.too_many) == (len(left_out) - len(waiting), len(waiting))
        met.update(stays=len(stays), waiting=len(waiting), restarts=not goes_on, ended=len(before) - len(stays))
        before, last = sent, image
    for seen in sightings.values():
        numbers, tracks_of_id = zip(*seen, strict=True)
        assert numbers == tuple(range(numbers[0], numbers[0] + len(numbers)))
        assert len(set(tracks_of_id)) == 1
        met["comes_back"] += any(
            other[0][1] == seen[0][1] and other[-1][0] < seen[0][0] for other in sightings.values() if other is not seen
        )
    return met


def test_the_images_of_an_id_are_consecutive(campaign: Campaign) -> None:
    count = campaign.count(1500, "histories")
    met: Counter[str] = Counter()

    def check(example: tuple[list[_Image], int, int, int]) -> None:
        images, *options = example
        met.update(_check(images, _encoder(*options), *options))

    options = (st.integers(1, 6), st.integers(1, 3), st.sampled_from([0, 15, 35]))
    for_each(st.tuples(_histories(), *options), count, check, campaign.seed)
    assert min(met[name] for name in ("stays", "waiting", "restarts", "ended", "comes_back")) > count // 10, met


def test_behind_the_real_node(domain_id: int, photographs: list[npt.NDArray[np.uint8]]) -> None:
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [_FOCAL_PX, 0.0, 319.5, 0.0, _FOCAL_PX, 239.5, 0.0, 0.0, 1.0]
    arguments = [sys.executable, "-m", "feature_frontend", "vins", "--ros-args", "-p", "max_tracks:=80"]
    clouds: dict[int, PointCloud] = {}
    with (
        RunningNode(domain_id, "extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable"),
        Client(domain_id) as client,
    ):
        adapter = subprocess.Popen(arguments, env=os.environ, stderr=subprocess.PIPE, text=True)
        try:
            client.node.create_subscription(
                PointCloud, TOPIC, lambda cloud: clouds.update({stamp_to_ns(cloud.header.stamp): cloud}), 10
            )
            client.wait_for_node()
            wait_until(
                lambda: client.node.count_subscribers("tracks") == 2 and client.node.count_publishers(TOPIC) == 1,
                "the adapter",
            )
            # The first image has no calibration yet: no cloud. The topics are not ordered against each other.
            for number in range(6):
                client.send_pixels(photographs[number % 3], (number + 1) * _FRAME_NS)
                client.wait_for("status", number + 1)
                client.send_camera_info(info)
            wait_until(lambda: 6 * _FRAME_NS in clouds, "the last cloud")
        finally:
            adapter.send_signal(signal.SIGINT)
            _, printed = adapter.communicate(timeout=20)
    assert adapter.returncode == 0, printed
    assert "does the front-end get camera_info?" in printed
    assert "tracks are sent; left out: " in printed
    assert _FRAME_NS not in clouds
    by_stamp = {stamp_to_ns(message.header.stamp): message for message in client.received["tracks"]}
    images: dict[float, list[int]] = {}
    for number, stamp_ns in enumerate(sorted(clouds)):
        for wire_id in _table(clouds[stamp_ns])[:, 0].tolist():
            images.setdefault(wire_id, []).append(number)
    assert all(seen == list(range(seen[0], seen[0] + len(seen))) for seen in images.values())
    table, tracks = _table(clouds[6 * _FRAME_NS]), by_stamp[6 * _FRAME_NS]
    assert 20 < len(table) <= 80
    keypoints = np.frombuffer(tracks.keypoints, np.float32).reshape(-1, 2)
    rows = [int(np.flatnonzero((keypoints == point).all(axis=1))[0]) for point in table[:, 2:4].astype(np.float32)]
    rays = np.array([(point.x, point.y) for point in clouds[6 * _FRAME_NS].points])
    np.testing.assert_allclose(rays, np.frombuffer(tracks.normalized_keypoints, np.float32).reshape(-1, 2)[rows])
    # Without distortion the plane is the image by the focal length: so are the velocities.
    velocities = np.frombuffer(tracks.velocities, np.float32).reshape(-1, 2)[rows] / _FOCAL_PX
    assert np.abs(velocities).max() > 0.01
    np.testing.assert_allclose(table[:, 4:6], velocities, atol=2e-5)
