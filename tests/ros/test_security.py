"""SROS 2: the shipped policy compared with the node's graph, and the error if security is not available."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from feature_frontend.errors import SettingsError
from feature_frontend.ros.node import FrontendNode
from feature_frontend.ros.start_errors import readable_start
from tests.conftest import REPOSITORY

_POLICY = REPOSITORY / "config" / "sros2_policy.xml"
# What a keystore has of an enclave.
_ENCLAVE = (
    "identity_ca.cert.pem",
    "cert.pem",
    "key.pem",
    "permissions_ca.cert.pem",
    "governance.p7s",
    "permissions.p7s",
)
_KINDS = {
    ("topics", "publish"): "publisher",
    ("topics", "subscribe"): "subscriber",
    ("services", "reply"): "service",
    ("services", "request"): "client",
}
Names = set[tuple[str, str]]


def _allowed(path: str) -> Names:
    """What a policy's enclave allows, by the rules of sros2's schema: (kind, name in full)."""
    root = ElementTree.parse(_POLICY).getroot()
    assert (root.tag, root.attrib) == ("policy", {"version": "0.2.0"})
    (enclave,) = (enclave for enclave in root.iterfind("enclaves/enclave") if enclave.get("path") == path)
    (profile,) = enclave.iterfind("profiles/profile")
    assert (profile.get("ns"), profile.get("node")) == ("/", "frontend")
    allowed: Names = set()
    for group in profile:
        ((rule, qualifier),) = group.attrib.items()
        assert qualifier == "ALLOW"
        for element in group:
            assert element.tag == group.tag.removesuffix("s")
            assert element.text
            name = element.text.replace("~", "/frontend")
            allowed.add((_KINDS[group.tag, rule], name if name.startswith("/") else f"/{name}"))
    return allowed


def _graph(domain_id: int, *parameters: str) -> Names:
    """What a running node has."""
    given = [part for parameter in parameters for part in ("-p", parameter)]
    rclpy.init(
        args=["--ros-args", "-p", "extractor:=silk-vggnp-mu", "-p", "compile:=false", *given], domain_id=domain_id
    )
    try:
        node = FrontendNode()
        found = {
            (kind, name)
            for kind in _KINDS.values()
            for name, _ in getattr(node, f"get_{kind}_names_and_types_by_node")("frontend", "/")
        }
        node.stop()
        node.destroy_node()
    finally:
        rclpy.shutdown()
    return found


@pytest.mark.parametrize(
    ("enclave", "camera_type"),
    [
        ("/frontend", "mono"),
        pytest.param(
            "/frontend_stereo",
            "stereo",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("message_filters") is None,
                reason="needs the ROS package message_filters, which no wheel brings",
            ),
        ),
    ],
)
def test_the_policy_allows_what_the_node_has_and_nothing_else(domain_id: int, enclave: str, camera_type: str) -> None:
    camera = f"camera_type:={camera_type}"
    plain = _graph(domain_id, camera)
    assert plain < _allowed(enclave)
    everything = ("image_transport:=compressed", "mask_topic:=true", "use_sim_time:=true", "epipolar_check:=true")
    allowed = _allowed(enclave)
    if importlib.util.find_spec("rclpy.type_description_service") is None:  # Humble
        allowed.remove(("service", "/frontend/get_type_description"))
    annotations = "/frontend/annotations"
    for topic, package in ((annotations, "visualization_msgs"), (f"{annotations}/foxglove", "foxglove_msgs")):
        if importlib.util.find_spec(package) is None:
            allowed.remove(("publisher", topic))
    assert plain | _graph(domain_id, camera, *everything) == allowed


def _keystore(folder: Path) -> Path:
    """A keystore with an enclave whose files hold nothing: Fast DDS without security does not read them."""
    enclave = folder / "enclaves" / "frontend"
    enclave.mkdir(parents=True)
    for name in _ENCLAVE:
        (enclave / name).write_text("nothing")
    return folder


@readable_start()
def _start(arguments: list[str]) -> None:
    context = Context()
    rclpy.init(args=["--ros-args", *arguments], context=context)
    try:
        Node("frontend", context=context)
    finally:
        context.try_shutdown()


@pytest.mark.parametrize(
    ("variables", "arguments", "expected"),
    [
        ({"ROS_DOMAIN_ID": "99999"}, [], "ROS_DOMAIN_ID is 99999.* 0 to 232"),
        ({}, ["-r", "__node:=a-b"], "a-b"),
        ({}, ["-r", "="], "="),
        ({"ROS_SECURITY_ENABLE": "true"}, [], "names no keystore"),
        ({"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": "{empty}"}, [], "make the enclave"),
        ({"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": "{keystore}"}, [], "ROS_SECURITY_ENABLE"),
    ],
    ids=["domain", "node name", "arguments", "no keystore", "empty keystore", "keystore"],
)
def test_what_keeps_ros_from_starting_is_one_line(
    domain_id: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str],
    expected: str,
) -> None:
    (tmp_path / "empty").mkdir()
    folders = {"empty": str(tmp_path / "empty"), "keystore": str(_keystore(tmp_path / "keystore"))}
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(**folders))
    with pytest.raises(SettingsError, match=expected) as caught:
        _start(["--enclave", "/frontend", *arguments])
    assert str(caught.value).startswith("cannot start ROS 2: ")
    assert str(caught.value).isprintable(), "one line"
    assert len(str(caught.value)) < 700


def test_the_program_says_so_too(domain_id: int, tmp_path: Path) -> None:
    security = {"ENABLE": "true", "STRATEGY": "Enforce", "KEYSTORE": str(_keystore(tmp_path))}
    run = subprocess.run(
        [sys.executable, "-m", "feature_frontend", "frontend", "--ros-args", "--enclave", "/frontend"],
        env={**os.environ, **{f"ROS_SECURITY_{name}": value for name, value in security.items()}},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    printed = [line for line in (run.stdout + run.stderr).splitlines() if "[rcl]: Found security directory" not in line]
    assert run.returncode == 1
    assert len(printed) == 1, printed
    assert printed[0].startswith("error: cannot start ROS 2: ")
    assert "docs/security.md" in printed[0]
