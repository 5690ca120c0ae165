"""`ros2 param set` with hostile names and values: each is answered, and the node survives."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import FrameStatus
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically

from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.settings import PARAMETERS
from tests.campaign import Campaign
from tests.ros.harness import Client, RunningNode, wait_until
from tests.ros.remote import Remote

Uint8Array = npt.NDArray[np.uint8]

_TEXTS = [name for name, record in PARAMETERS.items() if isinstance(record.default, str)]
_PATHS = ("weights_path", "weights_dir", "mask_path", "lightglue_weights_path")


def _paths(folder: Path) -> list[str]:
    """What no file should be called, and what is no file."""
    pipe, png, link = folder / "pipe", folder / "half.png", folder / "loop"
    os.mkfifo(pipe)
    png.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    link.symlink_to(link)
    hidden = folder / "hidden.pth"
    hidden.write_bytes(b"not a network")
    return [
        *("~nobody/x.pth", "~nobody-at-all", "~", "~/", "~root/x", "", ".", "..", "/", "//", "/dev/null", "/dev/zero"),
        *("/dev/stdin", "/proc/self/mem", "/proc/self/fd/0", "/proc/kmsg", "/sys/kernel/notes", "x" * 5000),
        *("/".join(["x" * 200] * 30), "a\0b", "\n", "\x1b[2J", "\u202egnp.ksam", "käse.png", "\U0001f600" * 300),
        *("$(touch x)", "`id`", "; rm -rf x", "file:///etc/passwd", "http://localhost/x", "%s%n", "nan", "1e999"),
        *(str(path) for path in (pipe, png, link, hidden, folder, folder / "half.png" / "x")),
    ]


def _value(chance: random.Random, texts: list[str]) -> ParameterValue:
    """A hostile text mostly, else a value of any type, or one that says it is of none or of another."""
    text = chance.choice(texts)
    if chance.random() < 0.6:
        return ParameterValue(type=4, string_value=text)
    value = ParameterValue(type=chance.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 77, 255]), string_value=text)
    value.bool_value = chance.random() < 0.5
    value.integer_value = chance.choice([0, -1, 2**63 - 1, -(2**63)])
    value.double_value = chance.choice([float("nan"), float("inf"), -1e308])
    value.byte_array_value = [bytes([number]) for number in range(chance.randrange(3))]
    value.string_array_value = [text] * chance.randrange(3)
    value.double_array_value = [float("nan")] * chance.randrange(3)
    return value


def test_hostile_parameters_are_answered_and_the_node_lives(
    domain_id: int, photographs: list[Uint8Array], tmp_path: Path, campaign: Campaign
) -> None:
    count = campaign.count(2000, "changes")
    chance = random.Random(campaign.seed)
    texts = _paths(tmp_path)
    names = [*PARAMETERS, "use_sim_time", "", "no_such_parameter", "qos_overrides./tf.publisher.depth", "x" * 5000]
    image = np.ascontiguousarray(photographs[0][:120, :160])
    start = ("extractor:=silk-vggnp-mu", "queue_policy:=every_frame", "image_qos:=reliable")
    accepted = 0
    # rclpy itself raises where a value says that it is of a type that there is not.
    with RunningNode(domain_id, *start, may_fail=True) as running, Client(domain_id) as client:
        client.wait_for_node()
        remote = Remote(client.node)
        # Each hostile path is tried once for each parameter that names one.
        planned = [(name, ParameterValue(type=4, string_value=text)) for name in _PATHS[::2] for text in texts]
        assert len(planned) < count
        while len(planned) < count:
            name = chance.choice([chance.choice(names), chance.choice(_TEXTS), chance.choice(_PATHS)])
            planned.append((name, _value(chance, texts)))
        sent = 0
        for index, (name, value) in enumerate(planned):
            change = [Parameter(name=name, value=value)]
            if chance.random() < 0.8:
                (result,) = remote.call(
                    SetParameters, "set_parameters", SetParameters.Request(parameters=change)
                ).results
            else:
                request = SetParametersAtomically.Request(parameters=change)
                result = remote.call(SetParametersAtomically, "set_parameters_atomically", request).result
            accepted += result.successful
            assert result.successful or 10 < len(result.reason) < 10_000, (name, value, result)
            # None of the words of others moves a cursor, and a name is cut where it is ours to cut.
            assert name == "" or "\x1b" not in result.reason, result.reason
            if index % 20 == 0:
                sent += 1
                client.send_pixels(image, sent * 100_000_000)
        # What is loaded at last has come to its end, and what is good is still taken.
        good = {"weights_path": "", "weights_dir": "", "mask_path": "", "lightglue_weights_path": "", "matcher": "mnn"}
        assert remote.set(**good, max_num_keypoints=50, max_image_pixels=50_000_000) == [(True, "")] * 7

        def is_well() -> bool:
            nonlocal sent
            sent += 1
            client.send_pixels(image, sent * 100_000_000)
            status: FrameStatus = client.wait_for("status", sent)[-1]
            assert stamp_to_ns(status.header.stamp) == sent * 100_000_000
            return status.state == FrameStatus.OK and 0 < status.keypoints <= 50

        wait_until(is_well, "a frame that is processed")
        assert running.process.poll() is None
        code, _, output = running.interrupt()
    assert code == 0
    assert "Traceback" not in output, output
    assert 0 < accepted < count
    failed = set(re.findall(r": (\S+ \S+) failed in \S+, the node goes on", output))
    assert failed <= {"service frontend/set_parameters", "service frontend/set_parameters_atomically"}, output
