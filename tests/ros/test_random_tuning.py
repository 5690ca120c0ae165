"""A node whose model, budget and threshold change all the time, at random, under a stream."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import FrameStatus

from feature_frontend.extractors.silk import SILK_CONFIGS, Silk
from feature_frontend.extractors.weights import own_weights
from feature_frontend.ros.message_encoding import stamp_to_ns
from tests.memory import resident_mib
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.remote import Remote

_RATE_HZ = 20
_FRAME_NS = 1_000_000_000 // _RATE_HZ
_CHANGES = 200
_SHIPPED = "silk-vggnp-mu@a11c5f53"
Uint8Array = npt.NDArray[np.uint8]
Model = tuple[str, str]


class _Camera(threading.Thread):
    """Sends images at a steady rate until it is told to end."""

    def __init__(self, client: Client, images: list[Uint8Array]) -> None:
        super().__init__(daemon=True)
        self._client, self._images = client, images
        self._ended = threading.Event()
        self.sent = 0

    def run(self) -> None:
        next_s = time.monotonic()
        while not self._ended.is_set():
            self.sent += 1
            self._client.send_pixels(self._images[self.sent % len(self._images)], self.sent * _FRAME_NS)
            next_s += 1 / _RATE_HZ
            self._ended.wait(max(0.0, next_s - time.monotonic()))

    def end(self) -> None:
        self._ended.set()
        self.join()


def _weights(folder: Path, name: str, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Silk(SILK_CONFIGS[name])
    path = folder / f"{name}.pth"
    torch.save(network.state_dict(), path)
    return path


def _change(remote: Remote, chance: random.Random, models: list[Model], wrong: list[Model]) -> bool:
    """Makes one change; whether it was one that the node had to accept."""
    kind = chance.choice(("model", "model", "budget", "threshold", "wrong model", "impossible"))
    if kind == "impossible":
        assert not remote.set_atomically(max_num_keypoints=100, detection_threshold=7.0)[0]
        return False
    if kind == "budget":
        assert remote.set(max_num_keypoints=chance.randint(1, 400)) == [(True, "")]
    elif kind == "threshold":
        assert remote.set(detection_threshold=chance.choice((0.0, 0.3, 0.5, 0.9, 1.0))) == [(True, "")]
    else:
        name, path = chance.choice(models if kind == "model" else wrong)
        assert remote.set_atomically(extractor=name, weights_path=path) == (True, "")
    return True


def _check_account(statuses: list[FrameStatus]) -> FrameStatus:
    """Every frame has one status, and the counters say the same; the last status."""
    assert len(statuses) == len({stamp_to_ns(status.header.stamp) for status in statuses})
    for status in statuses:
        assert status.frames_received == status.frames_processed + status.frames_dropped + status.frames_refused
    last = max(statuses, key=lambda status: status.frames_received)
    states = [status.state for status in statuses]
    assert last.frames_received == len(statuses)
    assert states.count(FrameStatus.ERROR) == last.frames_refused
    assert states.count(FrameStatus.DROPPED) == last.frames_dropped
    return last


def _check_models(client: Client, known: set[str]) -> int:
    """No match joins two models, and a frame after a swap is a first one; the number of swaps."""
    extractors = {stamp_to_ns(message.header.stamp): message.extractor for message in client.received["features"]}
    assert set(extractors.values()) == known
    for message in client.received["matches"]:
        pair = extractors[stamp_to_ns(message.stamp0)], extractors[stamp_to_ns(message.header.stamp)]
        assert pair[0] == pair[1], f"matched across models: {pair}"
    by_stamp = {stamp_to_ns(status.header.stamp): status for status in client.received["status"]}
    swapped = [
        stamp1 for stamp0, stamp1 in itertools.pairwise(sorted(extractors)) if extractors[stamp0] != extractors[stamp1]
    ]
    for stamp in swapped:
        status = by_stamp[stamp]
        assert status.state in {FrameStatus.FIRST, FrameStatus.DEGENERATE}, status
        if status.state == FrameStatus.FIRST:
            assert status.reason.startswith(f"the model is now {extractors[stamp]}")
    return len(swapped)


@pytest.mark.slow
def test_200_random_changes_under_a_stream(
    domain_id: int, photographs: list[Uint8Array], tmp_path: Path, report_figure: Callable[[str], None]
) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a network")
    seeded, wider = _weights(tmp_path, "silk-vggnp-mu", 1), _weights(tmp_path, "silk-vggnp-1", 2)
    models = [("silk-vggnp-mu", ""), ("silk-vggnp-mu", str(seeded)), ("silk-vggnp-1", str(wider))]
    # A file that is no model, and one that belongs to another: the stream must not notice.
    wrong = [("silk-vggnp-mu", str(broken)), ("silk-vggnp-1", str(seeded))]
    known = {_SHIPPED} | {own_weights(name, Path(path)).identity for name, path in models if path}
    chance = random.Random(7)
    images = [np.ascontiguousarray(image[180:300, 240:400]) for image in photographs]
    parameters = ("extractor:=silk-vggnp-mu", "image_qos:=reliable", "max_num_keypoints:=200")
    accepted = 0
    with RunningNode(domain_id, *parameters) as running, Client(domain_id) as client:
        client.wait_for_node()
        remote = Remote(client.node)
        camera = _Camera(client, images)
        camera.start()
        client.wait_for("status", 1)
        before_mib = resident_mib(running.process.pid)
        for _ in range(_CHANGES):
            accepted += _change(remote, chance, models, wrong)
            # Some changes come before the one before has been loaded, most do not.
            time.sleep(chance.choice((0.02, 0.1, 0.3)))
        # The last word: what is wanted then must be what runs in the end.
        assert remote.set_atomically(
            extractor="silk-vggnp-mu", weights_path="", detection_threshold=0.0, max_num_keypoints=150
        ) == (True, "")

        def is_settled() -> bool:
            last = client.received["features"][-1]
            return last.extractor == _SHIPPED and last.count == 150

        wait_until(is_settled, "the model that was asked for last")
        after_mib = resident_mib(running.process.pid)
        camera.end()
        # What the middleware loses on a busy machine, because the node did not take it in time, never was the node's.
        last_ns = camera.sent * _FRAME_NS
        wait_until(lambda: stamp_to_ns(client.received["status"][-1].header.stamp) == last_ns, "the last status")
        statuses = client.received["status"]
        code, _, output = running.interrupt()

    assert code == 0
    assert "Traceback" not in output, output
    last = _check_account(statuses)
    assert last.frames_refused == 0
    assert last.frames_received > 0.95 * camera.sent
    swaps = _check_models(client, known)
    assert swaps >= 10
    assert any("the model stays" in status.reason for status in statuses)
    frames = f"{last.frames_received} of {camera.sent} frames received"
    fates = f"{last.frames_processed} processed + {last.frames_dropped} dropped + {last.frames_refused} refused"
    report_figure(
        f"{accepted} of {_CHANGES} random changes accepted at {_RATE_HZ} Hz: {frames} = {fates}; {swaps} models "
        f"swapped in, {len(client.received['matches'])} pairs matched, none across models; "
        f"{before_mib:.0f} -> {after_mib:.0f} MiB"
    )
