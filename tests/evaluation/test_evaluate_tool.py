from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend_lab.evaluation.commands.evaluate import main
from feature_frontend_lab.evaluation.homography.benchmark import select_images

Image = npt.NDArray[np.uint8]


@pytest.fixture
def images(tmp_path: Path, photographs: list[Image]) -> Path:
    """A folder of two small photographs."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, photograph in enumerate(photographs[:2]):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(photograph[100:340, 100:420], cv2.COLOR_RGB2BGR))
    return folder


def _run(images: Path, output: Path, *options: str) -> dict[str, Any]:
    arguments = ["homography", "--images", str(images), "--output", str(output), "--short-side", "240"]
    assert main([*arguments, "--homographies", "2", "--methods", "orb", "sift", "random", *options]) == 0
    return json.loads((output / "homography.json").read_text(encoding="utf-8"))


def test_the_tool_writes_a_table_json_and_a_chart(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "output"
    document = _run(images, output, "--keypoints", "100", "300")
    table = (output / "homography.md").read_text(encoding="utf-8")
    assert [len(re.findall(rf"^\| {name} ", table, re.MULTILINE)) for name in ("orb", "sift", "random")] == [2, 2, 2]
    assert "Rep@1 | Rep@3 | MMA@1 | MMA@3 |  MS@1 |  MS@3 |" in table
    assert table in capsys.readouterr().out.replace("\r", "")
    assert document["images"] == ["0.png", "1.png"]
    results = {(row["method"], row["budget"]): row for row in document["results"]}
    assert len(results) == 6
    for (method, budget), row in results.items():
        assert row["pairs"] == 4
        assert 0 < row["mean_points"] <= budget
        assert 0 <= row["repeatability"][0] <= row["repeatability"][1] <= 1
        if method == "random":
            assert row["matching_accuracy"] is None
        else:
            # Warped photographs are easy for both; a wrong direction of the homography would leave nothing.
            assert row["matching_accuracy"][1] > 0.4
            assert row["homography_accuracy"][1] >= 0.5
    for budget in (100, 300):
        assert results["sift", budget]["repeatability"][0] > 2 * results["random", budget]["repeatability"][0]
    chart = cv2.imread(str(output / "homography.png"))
    assert chart is not None
    assert chart.shape[0] > 300
    assert chart.shape[1] > 1000


def test_the_numbers_are_the_same_twice_and_follow_the_seed(images: Path, tmp_path: Path) -> None:
    first, again, other = (
        _run(images, tmp_path / name, "--keypoints", "200", "--seed", seed)
        for name, seed in (("a", "5"), ("b", "5"), ("c", "6"))
    )
    assert first["results"] == again["results"]
    assert (tmp_path / "a" / "homography.md").read_bytes() == (tmp_path / "b" / "homography.md").read_bytes()
    assert (tmp_path / "a" / "homography.png").read_bytes() == (tmp_path / "b" / "homography.png").read_bytes()
    assert first["results"] != other["results"]


def test_the_ratio_test_keeps_points_and_sharpens_matches(images: Path, tmp_path: Path) -> None:
    document = _run(images, tmp_path, "--keypoints", "200", "--ratio-thresholds", "1", "0.7")
    results = {(row["method"], row["ratio_threshold"]): row for row in document["results"]}
    for method in ("orb", "sift"):
        loose, tight = results[method, 1.0], results[method, 0.7]
        assert loose["repeatability"] == tight["repeatability"]
        assert 0 < tight["mean_matches"] < loose["mean_matches"]
        assert tight["matching_accuracy"][1] > loose["matching_accuracy"][1]
    assert "At most 200 keypoints, ratio test 0.7:" in (tmp_path / "homography.md").read_text(encoding="utf-8")


def test_a_method_gets_the_same_numbers_whoever_else_runs(images: Path, tmp_path: Path) -> None:
    together = _run(images, tmp_path / "a", "--keypoints", "200")
    alone = _run(images, tmp_path / "b", "--keypoints", "200", "--methods", "sift")
    assert alone["results"] == [row for row in together["results"] if row["method"] == "sift"]


def test_a_large_folder_is_sampled_by_the_seed(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").touch()
    (tmp_path / "notes.txt").touch()
    chosen = [select_images(tmp_path, 10, seed) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]
    assert [int(path.stem) for path in chosen[0]] == sorted(int(path.stem) for path in chosen[0])
    assert len(set(chosen[0])) == 10
    assert len(select_images(tmp_path, 100, 0)) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "surf"], "surf"),
        (["--methods", "orb", "--weights", "aliked-t16"], "--weights is 'aliked-t16'.* NAME=PATH"),
        (["--methods", "aliked-t16", "--weights", "aliked-t16=/nowhere.pth"], "/nowhere.pth"),
        (["--methods", "orb", "--ratio-thresholds", "0"], "ratio thresholds .*0.0.* above 0, at most 1"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str], message: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["homography", "--images", str(images), "--output", str(tmp_path / "out"), *options]) == 1
    _one_line(capsys, message)


@pytest.mark.parametrize("option", ["--keypoints", "--homographies", "--count", "--seed", "--ratio-thresholds"])
@pytest.mark.parametrize("value", ["-1", "nan", "1e400", "9" * 40, "9" * 5000, ""])
def test_a_number_out_of_bounds_is_wrong_usage(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    if (option, value) in {("--ratio-thresholds", "-1"), ("--ratio-thresholds", "9" * 40)}:
        pytest.skip("a finite number, refused later")
    with pytest.raises(SystemExit) as ended:
        main(["homography", "--images", "nowhere", f"{option}={value}"])
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "number" in lines[0]
    assert lines[1] == "see: feature_frontend evaluate homography --help"


def test_no_images_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["homography", "--methods", "orb", "--output", str(tmp_path / "out"), "--images"]
    assert main([*arguments, str(tmp_path / "nowhere")]) == 1
    _one_line(capsys, "nowhere is no folder")
    (tmp_path / "empty").mkdir()
    assert main([*arguments, str(tmp_path / "empty")]) == 1
    _one_line(capsys, "contains no images")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    assert main([*arguments, str(tmp_path / "broken")]) == 1
    _one_line(capsys, "a.png")


def test_an_output_that_cannot_be_written_is_one_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    # Found before the run, which may take hours.
    monkeypatch.setattr(
        "feature_frontend_lab.evaluation.commands.evaluate.evaluate_methods", lambda *_: pytest.fail("it ran")
    )
    arguments = ["homography", "--images", str(images), "--methods", "random", "--output", str(tmp_path / "file")]
    assert main(arguments) == 1
    _one_line(capsys, "cannot be made")


def _one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
