"""`process` on datasets: their stamps and calibration, and what counts as another input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend_msgs.msg import Features
from rclpy.serialization import deserialize_message

from feature_frontend.ros.stamps import stamp_to_ns
from feature_frontend.sources.datasets.layouts import LAYOUTS, open_dataset
from feature_frontend.tools.common.arguments import INCOMPLETE
from feature_frontend.tools.process import main
from feature_frontend.tools.process.locations import find_inputs
from tests.datasets import Flight, noise_flight, write_layout
from tests.tools.offline import OPTIONS, messages, moving

Photographs = list[npt.NDArray[np.uint8]]
PINHOLE = (100.0, 101.0, 63.5, 47.5)
# The file that says which images these are, and that of the calibration.
TABLES = {
    "EuRoC": ("mav0/cam0/data.csv", "mav0/cam0/sensor.yaml"),
    "TUM RGB-D": ("rgb.txt", "camera.yaml"),
    "KITTI odometry": ("times.txt", "calib.txt"),
    "KITTI raw": ("image_00/timestamps.txt", "../calib_cam_to_cam.txt"),
}


def _flight(photographs: Photographs) -> Flight:
    noise = noise_flight(2)
    return Flight([moving(photographs, index) for index in range(2)], noise.stamps_ns, noise.poses, PINHOLE)


@pytest.mark.parametrize("layout", [layout.layout for layout in LAYOUTS])
def test_a_dataset_is_processed_as_it_is(
    layout: str, photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_layout(layout, tmp_path, _flight(photographs))
    command = [str(folder), "-o", str(tmp_path / "out"), *OPTIONS]
    assert main(command) == 0
    features = [deserialize_message(data, Features) for _, data in messages(tmp_path / "out")["/features"]]
    source = open_dataset(folder)
    assert [stamp_to_ns(message.header.stamp) for message in features] == list(source.stamps_ns or ())
    for message in features:
        assert message.header.frame_id == ("cam0" if layout == "EuRoC" else "camera")
        keypoints = np.reshape(message.keypoints, (-1, 2))
        assert len(keypoints) > 10
        expected = (keypoints - PINHOLE[2:]) / PINHOLE[:2]
        np.testing.assert_allclose(np.reshape(message.normalized_keypoints, (-1, 2)), expected, atol=1e-6)
    assert "was finished before" not in capsys.readouterr().out
    assert main(command) == 0
    assert "was finished before" in capsys.readouterr().out
    for name in TABLES[layout]:
        text = (folder / name).read_text()
        (folder / name).write_text(f"{text}\n")
        assert main(command) == 1
        assert "made with other options" in capsys.readouterr().err
        (folder / name).write_text(text)


def test_folders_of_a_folder_that_are_left_out_are_told(
    photographs: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_layout("TUM RGB-D", tmp_path, _flight(photographs))
    assert find_inputs([str(tmp_path)]).locations == [str(folder)]
    assert caplog.messages == []
    deeper = write_layout("EuRoC", tmp_path / "more", _flight(photographs))
    (tmp_path / "notes.txt").touch()
    assert find_inputs([str(tmp_path)]).locations == [str(folder)]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: more left out, in which there is no bag, dataset or image")
    assert find_inputs([f"{tmp_path}/*/*0*"]).locations == [str(deeper)]


@pytest.mark.parametrize("layout", [layout.layout for layout in LAYOUTS])
def test_a_folder_holds_datasets_and_a_url_of_one_is_refused(
    layout: str, photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    folder = write_layout(layout, tmp_path, _flight(photographs))
    assert find_inputs([str(folder)]).locations == [str(folder)]
    assert find_inputs([str(folder.parent)]).locations == [str(folder)]
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), f"/flights/{folder.name}", recursive=True)
    try:
        # By its own name, and as one of all in a folder or of a pattern.
        for location in (f"memory://flights/{folder.name}", "memory://flights", "memory://flights/*"):
            assert main([location, "-o", str(tmp_path / "out"), *OPTIONS]) == 1
            refused = f"{folder.name} is a dataset in the layout of {layout}, which is not read from URLs; copy it"
            assert refused in capsys.readouterr().err
    finally:
        memory.rm("/flights", recursive=True)


def test_an_image_that_is_missing_has_a_status_and_is_a_loss(
    photographs: Photographs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flight = _flight(photographs)
    folder = write_layout("EuRoC", tmp_path, flight)
    (folder / "mav0" / "cam0" / "data" / f"{flight.stamps_ns[0]}.png").unlink()
    assert main([str(folder), "-o", str(tmp_path / "out"), *OPTIONS]) == INCOMPLETE
    record = json.loads((tmp_path / "out" / "process.json").read_text())
    assert record["images"] == {"received": 2, "processed": 1, "refused": 1}
    assert f"incomplete: 1 image of {folder} cannot be read" in capsys.readouterr().err
