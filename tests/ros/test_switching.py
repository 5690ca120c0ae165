"""`ros2 param set` through every registered extractor and matcher, one after another, under a stream of images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import Features, FrameStatus, Matches

from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.matchers.registry import MATCHERS
from feature_frontend.models.catalog import MATCHER_MODELS
from feature_frontend.models.weights import WEIGHTS_VARIABLE, find_weights, own_weights
from feature_frontend.ros.stamps import stamp_to_ns
from tests.conftest import shared_folder
from tests.core.seeded import save_lightglue
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.remote import Remote
from tests.ros.streaming import Camera, check_account, check_models

_RATE_HZ = 15
_BUDGET = 80
_START = "silk-vggnp-mu"
Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Offer:
    """How an extractor is asked for, and what comes of it.

    Attributes:
        values: Parameters to set.
        identity: What the messages name it.
        descriptor_dim: Length of its descriptors.
    """

    values: dict[str, str]
    identity: str
    descriptor_dim: int


def _offer(name: str, folder: Path) -> _Offer:
    """The published weights where they are on this machine, else random ones."""
    record = EXTRACTORS[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = record.build()
    if record.library:
        return _Offer({"extractor": name}, f"{name}@{record.library}", network.descriptor_dim)
    published = None if record.weights is None else find_weights(record.weights)
    if published is not None:
        return _Offer({"extractor": name}, published.identity, network.descriptor_dim)
    # Under its name in `weights_dir`, where that is enough.
    path = folder / f"{name}.{'pth' if record.weights is None else 'seeded.pth'}"
    torch.save(network.state_dict(), path)
    further = {} if record.weights is None else {"weights_path": str(path)}
    return _Offer({"extractor": name, **further}, own_weights(name, path).identity, network.descriptor_dim)


def _has_surf() -> bool:
    try:
        cv2.xfeatures2d.SURF_create()
    except (AttributeError, cv2.error):
        return False
    return True


class _Switching:
    """Changes parameters of a node under a stream, and sees what its next frames say."""

    def __init__(self, client: Client, remote: Remote) -> None:
        self._client, self._remote = client, remote
        self.identity = ""
        # What the messages say who matched: a matcher, or the persistent tracker.
        self.matched_by = "mnn"

    def _first(self, topic: str, wanted: Callable[..., bool], what: str) -> object:
        """The first message of `topic` from now on that is `wanted`."""
        messages = self._client.received[topic]
        begin = len(messages)
        wait_until(lambda: any(map(wanted, messages[begin:])), what)
        return next(filter(wanted, messages[begin:]))

    def _sees_pairs(self, since_ns: int = 0) -> None:
        """Waits for matches of two frames of the model in use, by the matcher in use."""

        def is_pair(message: Matches) -> bool:
            is_recent = stamp_to_ns(message.stamp0) >= since_ns
            return is_recent and message.count > 0 and message.matcher == self.matched_by

        self._first("matches", is_pair, f"matches of {self.identity} by {self.matched_by}")

    def extractor(self, offer: _Offer) -> None:
        """Goes over to an extractor, and waits for its features and their matches."""
        assert self._remote.set(**offer.values) == [(True, "")] * len(offer.values)
        features = self._first("features", lambda one: one.extractor == offer.identity, f"features of {offer.identity}")
        assert isinstance(features, Features)
        assert 0 < features.count <= _BUDGET
        assert features.descriptor_dim == offer.descriptor_dim
        assert len(features.descriptors) == 4 * features.count * offer.descriptor_dim
        self.identity = offer.identity
        self._sees_pairs(stamp_to_ns(features.header.stamp))

    def matcher(self, name: str) -> None:
        """Goes over to a matcher, and waits for its matches."""
        assert self._remote.set(matcher=name) == [(True, "")]
        status = self._first("status", lambda one: one.reason.startswith(f"matcher is now {name}"), f"a swap to {name}")
        assert isinstance(status, FrameStatus)
        self.matched_by = name
        self._sees_pairs(stamp_to_ns(status.header.stamp))

    def tracker(self, name: str, matched_by: str) -> None:
        """Goes over to a tracker, and waits for its matches."""
        assert self._remote.set(tracker=name) == [(True, "")]
        self.matched_by = matched_by
        self._sees_pairs()

    def stays(self, reason: str, **values: str) -> None:
        """Asks for what cannot be loaded: the stream says why, and goes on as it was."""
        before = self._remote.dump()
        assert self._remote.set(**values) == [(True, "")] * len(values)
        told = f"the model stays {self.identity}: "

        def is_reported(status: FrameStatus) -> bool:
            return status.reason.startswith(told) and reason in status.reason

        status = self._first("status", is_reported, f"a status with {reason!r}")
        assert isinstance(status, FrameStatus)
        assert status.state == FrameStatus.OK
        assert status.matches > 0
        assert self._remote.dump() == before

    def refuses(self, reason: str, **values: str) -> None:
        """Asks for what does not go together: nothing is set, and the answer says why."""
        before = self._remote.dump()
        ((accepted, why),) = self._remote.set(**values)
        assert not accepted
        assert reason in why
        assert self._remote.dump() == before
        self._sees_pairs()


def _through_the_extractors(switch: _Switching, offers: dict[str, _Offer]) -> None:
    for name in EXTRACTORS:
        if name in offers:
            switch.extractor(offers[name])
        else:
            switch.stays("this OpenCV", extractor=name)


def _through_the_matchers(switch: _Switching, remote: Remote, offers: dict[str, _Offer], folder: Path) -> None:
    has_kornia = importlib.util.find_spec("kornia") is not None
    if has_kornia:
        path = folder / "lightglue.pth"
        save_lightglue(path)
        assert remote.set(lightglue_weights_path=str(path), lightglue_threshold=0.0) == [(True, "")] * 2
    for name in MATCHERS:
        for extractor in MATCHER_MODELS[name].extractors:
            switch.extractor(offers[extractor])
            if name == "lightglue" and not has_kornia:
                switch.stays("matcher lightglue needs the Python package kornia", matcher=name)
                continue
            switch.matcher(name)
            switch.refuses("expected one of aliked-n16", extractor="sift")
            switch.matcher("mnn")


@pytest.mark.slow
def test_every_extractor_and_every_matcher(
    domain_id: int,
    photographs: list[Uint8Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    report_figure: Callable[[str], None],
) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(shared_folder() / "weights"))
    offers = {name: _offer(name, tmp_path) for name in EXTRACTORS if name != "residual-surf" or _has_surf()}
    images = [np.ascontiguousarray(image[180:276, 240:368]) for image in photographs]
    parameters = (f"extractor:={_START}", f"weights_dir:={tmp_path}", f"max_num_keypoints:={_BUDGET}")
    with RunningNode(domain_id, *parameters, "image_qos:=reliable") as running, Client(domain_id) as client:
        client.wait_for_node()
        remote = Remote(client.node)
        switch = _Switching(client, remote)
        camera = Camera(client, images, _RATE_HZ)
        camera.start()
        switch.extractor(offers[_START])
        _through_the_extractors(switch, offers)

        switch.extractor(offers["sift"])
        switch.refuses("sift has no score map; expected tracker chain, or one of the extr", tracker="persistent")
        switch.refuses("extractor 'sift'; expected one of aliked-n16", matcher="lightglue")
        switch.extractor(offers["aliked-t16"])
        switch.refuses("extractor 'aliked-t16'; expected one of aliked-n16", matcher="lightglue")
        switch.tracker("persistent", matched_by="persistent")
        switch.refuses("sift has no score map; expected tracker chain", extractor="sift")
        # What "auto" chose gives way to the model.
        switch.tracker("auto", matched_by="persistent")
        switch.matched_by = "mnn"
        switch.extractor(offers["sift"])
        switch.matched_by = "persistent"
        switch.extractor(offers[_START])
        switch.tracker("chain", matched_by="mnn")

        _through_the_matchers(switch, remote, offers, tmp_path)
        camera.end()
        code, _, output = running.interrupt()

    assert code == 0
    assert "Traceback" not in output, output
    last = check_account(client.received["status"])
    assert last.frames_refused == 0
    swaps = check_models(client, {offer.identity for offer in offers.values()})
    assert swaps >= len(offers)
    report_figure(
        f"{len(offers)} of {len(EXTRACTORS)} extractors and {len(MATCHERS)} matchers set live at {_RATE_HZ} Hz, "
        f"{swaps} swaps of the extractor: {last.frames_received} of {camera.sent} frames received = "
        f"{last.frames_processed} processed + {last.frames_dropped} dropped + {last.frames_refused} refused; "
        f"{len(client.received['matches'])} pairs matched, none across models"
    )
