"""`evaluate pairs`: matching over gaps, on a rendered sequence with known poses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from feature_frontend.tools.common.arguments import INCOMPLETE
from feature_frontend_lab.demo.sequence import render_sequence
from feature_frontend_lab.evaluation.commands.evaluate import main


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rendered images with camera.yaml and poses.txt."""
    return render_sequence(tmp_path_factory.mktemp("rendered") / "hall", 4).folder


def test_matches_of_rendered_images_are_true(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--gaps", "1", "3", "--methods", "sift", "orb", "random", "--keypoints", "300"]
    assert main(["pairs", str(rendered), *arguments, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "pairs.md").read_text().strip() in capsys.readouterr().out
    (results,) = json.loads((tmp_path / "pairs.json").read_text())["sequences"].values()
    found = {(one["method"], one["gap"]): one for one in results}
    assert [found["sift", gap]["pairs"] for gap in (1, 3)] == [3, 1]
    for gap in (1, 3):
        for method in ("sift", "orb"):
            one = found[method, gap]
            assert one["matches"] > 100
            assert one["precision"] > 0.8
            assert one["right"] == pytest.approx(one["precision"] * one["matches"], rel=0.05)
            assert one["rotation_deg"] < 3
            assert one["without_pose"] == 0
        # What finds nothing scores nothing; no pair is left out.
        nothing = found["random", gap]
        assert (nothing["matches"], nothing["precision"], nothing["rotation_deg"]) == (0, 0, 180)
        assert nothing["without_pose"] == nothing["pairs"]


def test_what_cannot_be_measured_is_one_line(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--methods", "orb", "--output", str(tmp_path / "out")]
    assert main(["pairs", str(rendered), "--gaps", "4", *output]) == 1
    assert re.search("error: hall .* 4 frames", capsys.readouterr().err)
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in rendered.glob("*.png"):
        shutil.copy(path, bare)
    assert main(["pairs", str(bare), "--gaps", "1", *output]) == 1
    assert re.search("error: bare .* 1 frame", capsys.readouterr().err)


def test_a_lost_image_is_reported_and_changes_the_exit_status(
    rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hall = tmp_path / "hall"
    shutil.copytree(rendered, hall)
    last = sorted(hall.glob("*.png"))[-1]
    last.write_bytes(last.read_bytes()[:5000])
    arguments = ["--gaps", "1", "--methods", "orb", "--output", str(tmp_path / "out")]
    assert main(["pairs", str(hall), *arguments]) == INCOMPLETE
    assert last.name in capsys.readouterr().err
    (results,) = json.loads((tmp_path / "out" / "pairs.json").read_text())["sequences"].values()
    assert [one["pairs"] for one in results] == [2]
