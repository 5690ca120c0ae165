"""Commands and code in the documents work."""

from __future__ import annotations

import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.__main__ import main
from feature_frontend.extractors import compilation
from feature_frontend.settings import PARAMETERS
from feature_frontend.tools.common.arguments import Parser
from tests.conftest import REPOSITORY
from tests.datasets import noise_flight, write_layout

_DOCUMENTS = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
_PARSED = 99
_LEFT_CAMERA = """%YAML:1.0
image_width: 160
image_height: 120
camera_name: left
camera_matrix: {{rows: 3, cols: 3, data: [100, 0, 80, 0, 100, 60, 0, 0, 1]}}
distortion_model: plumb_bob
distortion_coefficients: {{rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}}
rectification_matrix: {{rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}}
projection_matrix: {{rows: 3, cols: 4, data: [100, 0, 80, {tx}, 0, 100, 60, 0, 0, 0, 1, 0]}}
"""


def _blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Page and words of each command line in the documents; what follows `|`, `>` or `&` is left out."""
    for document in _DOCUMENTS:
        for block in _blocks(document, "(?:bash|console)?"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True) if line.count("'") % 2 == 0 else []
                ends = [words.index(sign) for sign in ("|", ">", "&", "&&") if sign in words]
                yield document.name, words[: min(ends, default=len(words))]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photographs: list[npt.NDArray[np.uint8]]) -> Path:
    """A folder with what the snippets read: images, a mask, two calibrations, a dataset."""
    monkeypatch.chdir(tmp_path)
    for index in range(20):
        cv2.imwrite(f"{index}.png", photographs[index % len(photographs)][:120, index : index + 160])
    cv2.imwrite("road.png", np.full((120, 160), 255, np.uint8))
    write_layout("EuRoC", tmp_path, noise_flight())
    for name, tx in (("left", 0), ("right", -10)):
        Path(f"{name}.yaml").write_text(_LEFT_CAMERA.format(tx=tx), encoding="utf-8")
    return tmp_path


def _execute(document: str, given: dict[str, Any]) -> dict[str, Any]:
    """Runs the Python blocks of a page one after the other, in one namespace."""
    blocks = _blocks(REPOSITORY / document, "python")
    assert blocks
    for block in blocks:
        exec(compile(block, document, "exec"), given)
    return given


def _latest(topic: str, kind: Any) -> Any:
    from rclpy.serialization import deserialize_message
    from rosbags.highlevel import AnyReader

    with AnyReader([Path("my_bag_features")]) as bag:
        return [deserialize_message(data, kind) for found, _, data in bag.messages() if found.topic == topic][-1]


@pytest.mark.parametrize("document", ["README.md", "docs/python_api.md"])
@pytest.mark.usefixtures("desk")
def test_the_python_api_as_written(
    document: str, weights_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEATURE_FRONTEND_WEIGHTS", weights_dir)
    # Without a compiler the network runs uncompiled: 20 frames are not worth half a minute of compiling beside them.
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compilation, "_COMPILERS", ())
    names = _execute(document, {})
    assert len(names["result"].features) > 100
    assert len(capsys.readouterr().out.splitlines()) == 20


@pytest.mark.usefixtures("desk")
def test_stereo_as_written() -> None:
    left, right = (cv2.imread("0.png", cv2.IMREAD_GRAYSCALE)[:, first : first + 140] for first in (0, 10))
    names = _execute(
        "docs/stereo.md", {"left": np.pad(left, ((0, 0), (0, 20))), "right": np.pad(right, ((0, 0), (0, 20)))}
    )
    assert len(names["found"].points) > 10


@pytest.mark.usefixtures("desk")
def test_the_imu_of_a_dataset_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert _execute("docs/datasets.md", {})["source"].frame_count == 4
    assert capsys.readouterr().out.startswith("39 measurements ")


def test_reading_a_bag_and_the_back_end_as_written(
    desk: Path, domain_id: int, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags")
    rclpy = pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
    messages = pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
    for name in ("road.png", "left.yaml", "right.yaml"):
        (desk / name).unlink()
    options = ["--extractor", "silk-vggnp-mu", "--device", "cpu", "--compile", "false", "--output", "my_bag_features"]
    assert main(["process", str(desk), *options]) == 0
    capsys.readouterr()
    names = _execute("docs/tutorials/your_bag.md", {})
    assert len(capsys.readouterr().out.splitlines()) == 20
    assert names["tracks"].count > 0

    features = _latest("/features", messages.Features)
    names = _execute("docs/messages.md", {"message": features, "numpy": np})
    assert names["keypoints"].shape == (features.count, 2)
    assert names["descriptors"].shape == (features.count, features.descriptor_dim)

    names = _execute("docs/tutorials/your_back_end.md", {})
    rclpy.init(domain_id=domain_id)
    try:
        node, tracks = names["BackEnd"](), _latest("/tracks", messages.Tracks)
        node.on_tracks(tracks)
        node.on_tracks(messages.Tracks())
        assert node.run == (0, 0)
        node.destroy_node()
    finally:
        rclpy.shutdown()


def test_commands_parse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("rclpy", "feature_frontend_msgs.msg", "matplotlib"):
        pytest.importorskip(name, reason=f"needs {name}: tools import it before they parse")
    parse = Parser.parse_args

    def parse_only(self: Parser, *arguments: Any) -> None:
        parse(self, *arguments)
        sys.exit(_PARSED)

    monkeypatch.setattr(Parser, "parse_args", parse_only)
    seen = 0
    for page, words in _commands():
        if words[:1] != ["feature_frontend"] or words[1] in {"TOOL", "frontend", "vins", "rtabmap", "--help"}:
            continue
        try:
            status = main(words[1:])
        except SystemExit as ended:
            status = ended.code
        assert status == _PARSED, f"{page}: {shlex.join(words)}: {capsys.readouterr().err}"
        seen += 1
    assert seen > 20


def test_parameters_that_are_set_exist() -> None:
    seen = 0
    for page, words in _commands():
        names = []
        if words[:4] == ["ros2", "param", "set", "/frontend"]:
            names = [words[4]]
        elif "frontend" in words[:4] and "--ros-args" in words:
            names = [word.partition(":=")[0] for flag, word in itertools.pairwise(words) if flag == "-p"]
        for name in names:
            assert name in PARAMETERS, f"{page}: {shlex.join(words)}"
        seen += len(names)
    assert seen > 10


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {(page, words[1]) for page, words in _commands() if words[:1] == ["make"]}
    assert len(asked) > 5
    assert {(page, target) for page, target in asked if target not in targets} == set()
