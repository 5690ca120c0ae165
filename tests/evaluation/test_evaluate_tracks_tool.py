"""`evaluate tracks`: real runs on rendered images with known poses, the report, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SettingsError
from feature_frontend_lab.demo.sequence import render_sequence
from feature_frontend_lab.evaluation.commands.evaluate import main
from feature_frontend_lab.evaluation.tracks.configurations import parse_configurations
from feature_frontend_lab.evaluation.tracks.ground_truth import read_ground_truth
from tests.conftest import REPOSITORY

Image = npt.NDArray[np.uint8]

_SILK = "chain+extractor=silk-vggnp-mu"
_PHOTOGRAPH = REPOSITORY / "tests" / "data" / "tum_fr2_desk" / "1311868169.163498.jpg"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven rendered images with camera.yaml and poses.txt."""
    return render_sequence(tmp_path_factory.mktemp("rendered") / "hall", 7).folder


@pytest.fixture(scope="module")
def report(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a report on them: SiLK, Lucas-Kanade and ORB."""
    output = tmp_path_factory.mktemp("report") / "new"
    options = ["--set", "max_num_keypoints=400", "--set", "resize_height=240", "--unrelated", str(_PHOTOGRAPH)]
    assert main(["tracks", str(rendered), "--compare", f"{_SILK},lk,orb", "--output", str(output), *options]) == 0
    return output


def _document(report: Path) -> dict[str, Any]:
    return json.loads((report / "tracks.json").read_text(encoding="utf-8"))


def _results(report: Path) -> dict[str, Any]:
    (sequence,) = _document(report)["sequences"]
    return {result["configuration"]: result for result in sequence["results"]}


def test_rendered_images_are_tracked_truly(report: Path) -> None:
    results = _results(report)
    assert list(results) == [_SILK, "lk", "orb"]
    for result in results.values():
        assert result["frames"] == 7
        assert 200 < result["keypoints"] <= 400
        assert result["matches"] > 100
        assert 0.5 < result["alive"]["1"] <= 1
        assert result["alive"]["1"] > result["alive"]["5"] > 0
        assert result["alive"]["10"] is None
        assert result["coverage"] > 0.2
        assert result["precision"]["1"] > 0.6
        assert result["pose"]["1"]["pairs"] == 6
        assert result["pose"]["1"]["median_rotation_deg"] < 0.3
        assert result["pose"]["1"]["median_translation_deg"] < 20
        assert result["trajectory"]["poses"] == 7
    assert results["lk"]["precision"]["1"] > 0.95
    assert results["lk"]["pose"]["1"]["median_rotation_deg"] < 0.05
    assert results["lk"]["pose"]["1"]["median_translation_deg"] < 2
    assert results["lk"]["trajectory_rmse_m"] < 0.01
    assert results["lk"]["nearest_precision"] is None
    assert results["lk"]["alive"]["5"] > results["orb"]["alive"]["5"]
    # Of two images, nearest neighbours without a test of their likeness always find some.
    assert results["lk"]["unrelated"] < 0.05 < results["orb"]["unrelated"]
    # Lucas-Kanade's motions of this rendered flight are much nearer to the truth, beyond chance.
    lk, silk = results["lk"]["pose"]["1"], results[_SILK]["pose"]["1"]
    differences = _document(report)["sequences"][0]["pose_differences"]
    difference = differences["lk"]["rotation@1"]
    assert difference["mean"] == pytest.approx(lk["mean_rotation_deg"] - silk["mean_rotation_deg"])
    assert difference["verdict"] == "smaller"
    assert len(lk["rotations_deg"]) == len(lk["translations_deg"]) == 6
    assert _SILK not in differences
    # Matches of ORB are linked as they are; a chain leaves out those that no motion of the camera explains.
    assert results["orb"]["nearest_precision"]["1"] == pytest.approx(results["orb"]["precision"]["1"])
    assert results[_SILK]["nearest_precision"]["1"] < results[_SILK]["precision"]["1"]
    for name in (_SILK, "orb"):
        assert results[name]["drift_px"] == 0


def test_the_report_is_one_file_with_its_pictures_in_it(report: Path) -> None:
    page = (report / "tracks.html").read_text(encoding="utf-8")
    assert "://" not in page.replace("data:image", "")
    assert page.count("data:image/png;base64,") == 1
    assert page.count("<table>") == page.count("</table>") == 4
    assert all(f"<td>{name}</td>" in page for name in (_SILK, "lk", "orb"))
    table = (report / "tracks.md").read_text(encoding="utf-8")
    assert "| lk " in table
    assert "alive@1 2 5 10" in table
    picture = cv2.imread(str(report / "tracks_hall.png"))
    assert picture.shape[0] > 900
    assert picture.shape[1] == 1240


def test_trajectories_are_files_for_evo(report: Path) -> None:
    truth = read_ground_truth(report / "hall_ground_truth.tum")
    for name in (_SILK, "lk", "orb"):
        found = read_ground_truth(report / f"hall_{name}.tum")
        assert found.stamps_ns is not None
        assert truth.stamps_ns is not None
        assert found.stamps_ns.tolist() == truth.stamps_ns.tolist()
        np.testing.assert_allclose(found.poses[0], np.eye(4), atol=1e-8)


def test_images_alone_give_what_needs_no_truth(photographs: list[Image], tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, photograph in enumerate(photographs):
        cv2.imwrite(str(folder / f"{number}.png"), photograph)
    assert main(["tracks", str(folder), "--compare", "lk", "--output", str(tmp_path / "out")]) == 0
    result = _results(tmp_path / "out")["lk"]
    assert result["alive"]["2"] > 0.7
    assert result["inlier_ratio"]["1"] > 0.8
    assert result["pose"] is result["precision"] is result["trajectory"] is result["unrelated"] is None
    assert not list((tmp_path / "out").glob("*.tum"))


def test_blank_images_give_a_report_without_values(tmp_path: Path) -> None:
    folder = tmp_path / "blank"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((120, 160), 128, np.uint8))
    arguments = ["--unrelated", str(_PHOTOGRAPH), "--output", str(tmp_path / "out")]
    assert main(["tracks", str(folder), "--compare", f"{_SILK},lk,orb", *arguments]) == 0
    for result in _results(tmp_path / "out").values():
        assert result["keypoints"] == result["matches"] == result["coverage"] == result["unrelated"] == 0
        assert result["alive"]["1"] is result["inlier_ratio"]["1"] is result["drift_px"] is None
        assert result["lengths"] == {}


def test_a_part_of_a_sequence_keeps_its_poses(rendered: Path, tmp_path: Path) -> None:
    options = ["--start", "2", "--count", "3", "--output", str(tmp_path)]
    assert main(["tracks", str(rendered), "--compare", "lk", *options]) == 0
    result = _results(tmp_path)["lk"]
    assert result["frames"] == 3
    assert result["pose"]["1"]["pairs"] == 2
    assert result["precision"]["1"] > 0.95


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compare", "surf"], "'surf'.* chain"),
        (["--compare", "lk,lk"], "lk .*twice"),
        (["--compare", "lk+nms_radius=2"], "lk .*max_num_keypoints"),
        (["--compare", "speed=2"], "'speed=2'.*KEY=VALUE .*extractor"),
        (["--compare", "max_num_keypoints=many"], "max_num_keypoints is 'many'"),
        (["--compare", "nowhere.yaml"], "nowhere.yaml"),
        (["--compare", "lk", "--set", "max_num_keypoints"], "'max_num_keypoints'"),
        (["--compare", "lk", "--ground-truth", "nowhere.txt"], "nowhere.txt"),
        (["--compare", "lk", "--camera-info", "nowhere.yaml"], "calibration .*nowhere.yaml"),
        (["--compare", "lk", "--unrelated", "nowhere.png"], "--unrelated .*nowhere.png"),
        (["--compare", "lk", "--count", "1"], "1 image.* at least 2"),
        (["--compare", "lk", "--start", "7"], "image 7 of 7"),
        (["webcam:0", "--camera-info", "camera.yaml"], "--camera-info .*2 sources"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str], message: str, rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tracks", str(rendered), *options, "--output", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)


def test_files_that_do_not_fit_are_one_line(rendered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tracks", str(rendered), "--compare", "lk", "--output", str(tmp_path / "out")]
    (tmp_path / "later.txt").write_text("5 0 0 0 0 0 0 1\n6 0 0 0 0 0 0 1\n")
    assert main([*arguments, "--ground-truth", str(tmp_path / "later.txt")]) == 1
    small = (rendered / "camera.yaml").read_text().replace("image_width: 640", "image_width: 320")
    (tmp_path / "small.yaml").write_text(small)
    assert main([*arguments, "--camera-info", str(tmp_path / "small.yaml")]) == 1
    times, sizes = capsys.readouterr().err.splitlines()
    assert "hall" in times
    assert re.search("640x480 px.* 320x480 px", sizes)


def test_configurations_are_named_by_what_they_say() -> None:
    files = [str(REPOSITORY / "config" / name) for name in ("silk-vggnp-mu+mnn.yaml", "aliked-t16+mnn.yaml")]
    texts = ["chain,lk", f"{files[0]}, {files[1]}+nms_radius=3", "orb+max_num_keypoints=50"]
    configurations = parse_configurations(texts, {"max_num_keypoints": 70})
    names = ["chain", "lk", "silk-vggnp-mu+mnn", "aliked-t16+mnn+nms_radius=3", "orb+max_num_keypoints=50"]
    assert [configuration.name for configuration in configurations] == names
    image = cv2.imread(str(_PHOTOGRAPH), cv2.IMREAD_GRAYSCALE)
    assert len(configurations[1].make().process(image, 0).tracks) == 70
    assert 0 < len(configurations[4].make().process(image, 0).tracks) <= 50
    with pytest.raises(SettingsError, match="''"):
        parse_configurations(["chain,"], {})
