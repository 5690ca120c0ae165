"""A node with a stream while its model, budget and threshold change continuously at random."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend.extractors.networks.silk import SILK_CONFIGS, Silk
from feature_frontend.models.weights import own_weights
from tests.campaign import Campaign
from tests.memory import resident_mib
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.remote import Remote
from tests.ros.streaming import Camera, check_account, check_models

_RATE_HZ = 20
_SHIPPED = "silk-vggnp-mu@a11c5f53"
Uint8Array = npt.NDArray[np.uint8]
Model = tuple[str, str]


def _weights(folder: Path, name: str, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Silk(SILK_CONFIGS[name])
    path = folder / f"{name}.pth"
    torch.save(network.state_dict(), path)
    return path


def _identity(model: Model) -> str:
    name, path = model
    return own_weights(name, Path(path)).identity if path else _SHIPPED


def _is_used(client: Client, identity: str) -> bool:
    return bool(client.received["features"][-1].extractor == identity)


def _change(
    remote: Remote, chance: random.Random, models: list[Model], wrong: list[Model]
) -> tuple[bool, Model | None]:
    """Makes one change; whether it was one that the node had to accept, and the model that it now has to load."""
    kind = chance.choice(("model", "model", "budget", "threshold", "wrong model", "impossible"))
    if kind == "impossible":
        assert not remote.set_atomically(max_num_keypoints=100, detection_threshold=7.0)[0]
        return False, None
    if kind == "budget":
        assert remote.set(max_num_keypoints=chance.randint(1, 400)) == [(True, "")]
    elif kind == "threshold":
        assert remote.set(detection_threshold=chance.choice((0.0, 0.3, 0.5, 0.9, 1.0))) == [(True, "")]
    else:
        name, path = chance.choice(models if kind == "model" else wrong)
        assert remote.set_atomically(extractor=name, weights_path=path) == (True, "")
        return True, (name, path) if kind == "model" else None
    return True, None


@pytest.mark.slow
@pytest.mark.alone  # models must come to be used under the stream
def test_random_changes_under_a_stream(
    domain_id: int,
    photographs: list[Uint8Array],
    tmp_path: Path,
    campaign: Campaign,
    report_figure: Callable[[str], None],
) -> None:
    count = campaign.count(1000, "changes")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a network")
    seeded, wider = _weights(tmp_path, "silk-vggnp-mu", 1), _weights(tmp_path, "silk-vggnp-1", 2)
    models = [("silk-vggnp-mu", ""), ("silk-vggnp-mu", str(seeded)), ("silk-vggnp-1", str(wider))]
    # A file that is no model, and one that belongs to another: the stream must not notice.
    wrong = [("silk-vggnp-mu", str(broken)), ("silk-vggnp-1", str(seeded))]
    known = {_identity(model) for model in models}
    chance = random.Random(7 + campaign.seed)
    images = [np.ascontiguousarray(image[180:300, 240:400]) for image in photographs]
    parameters = ("extractor:=silk-vggnp-mu", "image_qos:=reliable", "max_num_keypoints:=200")
    accepted = loads = 0
    with RunningNode(domain_id, *parameters) as running, Client(domain_id) as client:
        client.wait_for_node()
        remote = Remote(client.node)
        camera = Camera(client, images, _RATE_HZ)
        camera.start()
        client.wait_for("status", 1)
        before_mib = resident_mib(running.process.pid)
        for _ in range(count):
            is_accepted, model = _change(remote, chance, models, wrong)
            accepted += is_accepted
            loads += model is not None
            if model is not None and loads % 3 == 0:
                # However slow the machine is: every third model comes to be used before the next change.
                wait_until(partial(_is_used, client, _identity(model)), f"the model {model}")
            else:
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
        statuses = client.received["status"]
        code, _, output = running.interrupt()

    assert code == 0
    assert "Traceback" not in output, output
    last = check_account(statuses)
    assert last.frames_refused == 0
    assert last.frames_received > 0.95 * camera.sent
    swaps = check_models(client, known)
    assert swaps >= 10
    assert any("the model stays" in status.reason for status in statuses)
    frames = f"{last.frames_received} of {camera.sent} frames received"
    fates = f"{last.frames_processed} processed + {last.frames_dropped} dropped + {last.frames_refused} refused"
    report_figure(
        f"{accepted} of {count} random changes accepted at {_RATE_HZ} Hz: {frames} = {fates}; {swaps} models "
        f"swapped in, {len(client.received['matches'])} pairs matched, none across models; "
        f"{before_mib:.0f} -> {after_mib:.0f} MiB"
    )
