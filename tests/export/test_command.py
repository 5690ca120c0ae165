"""Export to COLMAP: the database's contents, and COLMAP's reconstruction of a rendered flight from it."""

from __future__ import annotations

import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from examples.visual_odometry.compare import align
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from feature_frontend.sources import open_source
from feature_frontend_lab.demo.sequence import CAMERA_FILE, RenderedSequence, render_sequence
from feature_frontend_lab.export.command import main
from feature_frontend_lab.export.mapper import has_pycolmap, run_mapper
from tests.datasets import Flight, noise_flight, write_layout

_COUNT = 10
_MAX_IMAGES = 2147483647
_KEYPOINTS = 500
_FRONTEND = ("--extractor", "silk-vggnp-mu", "--max-num-keypoints", str(_KEYPOINTS))


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> RenderedSequence:
    return render_sequence(tmp_path_factory.mktemp("export") / "images", _COUNT)


@pytest.fixture(scope="module")
def database(flight: RenderedSequence) -> Path:
    """The flight's, with its calibration and the default gaps."""
    path = flight.folder.parent / "database.db"
    camera = str(flight.folder / CAMERA_FILE)
    assert main(["colmap", str(flight.folder), "--output", str(path), "--camera-info", camera, *_FRONTEND]) == 0
    return path


def _rows(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _pairs(path: Path, table: str = "matches") -> dict[tuple[int, int], npt.NDArray[np.uint32]]:
    found = {}
    for pair_id, rows, columns, data in _rows(path, f"SELECT pair_id, rows, cols, data FROM {table}"):
        pair = pair_id // _MAX_IMAGES, pair_id % _MAX_IMAGES
        found[pair] = np.frombuffer(data, np.uint32).reshape(rows, columns)
    return found


@pytest.mark.slow
def test_the_database_holds_what_the_front_end_found(database: Path, flight: RenderedSequence) -> None:
    images = sorted(path.name for path in flight.folder.glob("*.png"))
    assert _rows(database, "SELECT image_id, name, camera_id FROM images") == [
        (number, name, 1) for number, name in enumerate(images, 1)
    ]
    ((model, width, height, parameters, is_known),) = _rows(
        database, "SELECT model, width, height, params, prior_focal_length FROM cameras"
    )
    assert (model, width, height, is_known) == (1, 640, 480, 1)
    focal_px = flight.camera.matrix[0, 0]
    # The middle of the image is at 320, 240 where pixels are counted from its corner.
    np.testing.assert_allclose(np.frombuffer(parameters), [focal_px, focal_px, 320, 240])

    settings = Settings(extractor="silk-vggnp-mu", max_num_keypoints=_KEYPOINTS, device="cpu", tracker="chain")
    frontend = Frontend(Extractor.from_pretrained(settings), settings)
    first, second = (
        frontend.process(frame.image, frame.stamp_ns or 0)
        for frame, _ in zip(open_source(str(flight.folder)).frames(), range(2), strict=False)
    )
    ((rows, columns, data),) = _rows(database, "SELECT rows, cols, data FROM keypoints WHERE image_id = 1")
    stored = np.frombuffer(data, np.float32).reshape(rows, columns)
    np.testing.assert_array_equal(stored, first.features.keypoints.numpy() + np.float32(0.5))
    pairs, verified = _pairs(database), _pairs(database, "two_view_geometries")
    expected = np.column_stack([second.matches.indices0, second.matches.indices1])
    np.testing.assert_array_equal(pairs[1, 2], expected)
    assert 0.3 * len(expected) < len(verified[1, 2]) < len(expected)
    gaps = {1, 2, 3, 5}
    assert set(pairs) == {(i, i + gap) for gap in gaps for i in range(1, _COUNT + 1 - gap)}
    assert {config for (config,) in _rows(database, "SELECT config FROM two_view_geometries")} == {2}


@pytest.mark.slow
def test_colmap_reconstructs_the_flight(
    database: Path, flight: RenderedSequence, tmp_path: Path, report_figure: Callable[[str], None]
) -> None:
    if not has_pycolmap():
        pytest.skip("needs pycolmap: pip install pycolmap")
    working = tmp_path / "database.db"  # COLMAP adds tables of its own
    working.write_bytes(database.read_bytes())
    model = max(run_mapper(working, flight.folder, tmp_path, [1], {}), key=lambda one: len(one.positions))
    positions = np.array([model.positions[name] for name in sorted(model.positions)])
    truth = np.array([pose[:3, 3] for pose in flight.poses.values()])
    assert len(positions) == _COUNT
    scale, rotation, shift = align(positions, truth)
    off_m = float(np.linalg.norm(scale * positions @ rotation.T + shift - truth, axis=1).max())
    length_m = float(np.linalg.norm(np.diff(truth, axis=0), axis=1).sum())
    report_figure(
        f"COLMAP from the exported database: {len(positions)} of {_COUNT} images, {model.points} points, mean "
        f"reprojection error {model.error_px:.2f} px, positions off by at most {100 * off_m:.1f} cm on {length_m:.1f} m"
    )
    assert model.error_px < 1.0
    assert off_m < 0.02 * length_m


@pytest.mark.slow
def test_tracks_make_pairs_without_a_calibration(
    flight: RenderedSequence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, images = tmp_path / "new" / "tracks.db", tmp_path / "images"
    bare = shutil.copytree(flight.folder, tmp_path / "bare", ignore=shutil.ignore_patterns("camera.yaml"))
    arguments = ["colmap", str(bare), "--output", str(path), "--by", "tracks", "--gaps", "2", "1"]
    assert main([*arguments, "--frames", "4", "--images", str(images), *_FRONTEND]) == 0
    assert "has no calibration: the camera is guessed; --camera-info gives one" in capsys.readouterr().err
    assert [model for (model,) in _rows(path, "SELECT model FROM cameras")] == [2]
    assert _rows(path, "SELECT prior_focal_length FROM cameras") == [(0,)]
    assert sorted(one.name for one in images.iterdir()) == [name for (name,) in _rows(path, "SELECT name FROM images")]
    pairs = _pairs(path)
    assert set(pairs) == {(1, 2), (2, 3), (3, 4), (1, 3), (2, 4)}
    # A chain's points of gap 2 are those whose two steps meet in one keypoint.
    steps0, steps1 = (dict(pairs[pair].tolist()) for pair in ((1, 2), (2, 3)))
    chained = {(row, steps1[middle]) for row, middle in steps0.items() if middle in steps1}
    assert set(map(tuple, pairs[1, 3].tolist())) == chained


def _record(folder: Path, flight: RenderedSequence, *, descriptors: bool) -> None:
    """A bag as `record` writes it, of the first four images."""
    from ament_index_python.packages import get_package_share_directory
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Header

    from feature_frontend.ros.output.messages import Origin, encode_features, encode_tracks
    from feature_frontend.ros.stamps import stamp_from_ns
    from feature_frontend.tools.common.bag_writer import BagWriter, typestore_with

    kinds = {"features": "feature_frontend_msgs/msg/Features", "tracks": "feature_frontend_msgs/msg/Tracks"}
    settings = Settings(extractor="silk-vggnp-mu", max_num_keypoints=_KEYPOINTS, device="cpu", tracker="chain")
    frontend = Frontend(Extractor.from_pretrained(settings), settings)
    typestore = typestore_with(set(kinds.values()), get_package_share_directory)
    with BagWriter(folder, "sqlite3", typestore) as bag:
        for name, kind in kinds.items():
            bag.add_topic(f"/front/{name}", kind)
        for frame, _ in zip(open_source(str(flight.folder)).frames(), range(4), strict=False):
            stamp_ns = frame.stamp_ns or 0
            header = Header(stamp=stamp_from_ns(stamp_ns), frame_id="camera")
            result = frontend.process(frame.image, stamp_ns)
            features = encode_features(Origin(header), result.features, None, "float32" if descriptors else None)
            bag.write("/front/features", stamp_ns, bytes(serialize_message(features)))
            tracks = encode_tracks(Origin(header), result, None)
            bag.write("/front/tracks", stamp_ns, bytes(serialize_message(tracks)))


@pytest.mark.slow
def test_recorded_features_give_the_same_pairs(
    database: Path, flight: RenderedSequence, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
    _record(tmp_path / "bag", flight, descriptors=True)
    output = tmp_path / "bag.db"
    assert main(["colmap", str(tmp_path / "bag"), "--output", str(output), "--gaps", "1", "3"]) == 0
    pairs, of_images = _pairs(output), _pairs(database)
    assert set(pairs) == {(1, 2), (2, 3), (3, 4), (1, 4)}
    for pair, rows in pairs.items():
        np.testing.assert_array_equal(rows, of_images[pair])
    stamps = list(flight.poses)[:4]
    assert [name for (name,) in _rows(output, "SELECT name FROM images")] == [f"{stamp}.png" for stamp in stamps]

    _record(tmp_path / "bare", flight, descriptors=False)
    arguments = ["colmap", str(tmp_path / "bare"), "--output", str(tmp_path / "bare.db"), "--gaps", "1"]
    assert main(arguments) == 1
    assert re.search("descriptors.*--by tracks", capsys.readouterr().err)
    assert list(tmp_path.glob("bare.db*")) == [], "nothing is left of an export that failed"
    assert main([*arguments, "--by", "tracks"]) == 0
    by_tracks = {pair: set(map(tuple, rows.tolist())) for pair, rows in _pairs(tmp_path / "bare.db").items()}
    assert set(by_tracks) == {(1, 2), (2, 3), (3, 4)}
    for pair, rows in by_tracks.items():
        matched = set(map(tuple, of_images[pair].tolist()))
        # Tracks leave out matches that no motion of the camera explains.
        assert rows <= matched
        assert len(rows) > 0.6 * len(matched)
    assert main([*arguments, "--by", "tracks"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments[:3], str(tmp_path / "x.db"), "--topic", "left/features"]) == 1
    assert re.search("/front/features.* 'left/features'", capsys.readouterr().err)


def test_images_that_share_nothing_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import cv2

    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 64), 50, np.uint8))
    assert main(["colmap", str(tmp_path), "--output", str(tmp_path / "x.db"), *_FRONTEND]) == 1
    assert "2 images" in capsys.readouterr().err
    assert list(tmp_path.glob("x.db*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("full", ["database", "images"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path, full: str) -> None:
    # No file may grow beyond the limit, which is less than a photograph has, and more or less than an empty database.
    render_sequence(tmp_path / "images", 2)
    arguments = [
        "export",
        "colmap",
        str(tmp_path / "images"),
        "--output",
        str(tmp_path / "database.db"),
        "--extractor",
        "sift",
    ]
    arguments += ["--images", str(tmp_path / "copies")] if full == "images" else []
    limit = (100_000, 100_000) if full == "images" else (20_000, 20_000)
    result = subprocess.run(
        [sys.executable, "-m", "feature_frontend", *arguments],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert "cannot be written: " in line
    assert str(tmp_path / ("copies" if full == "images" else "database.db")) in line
    assert not list(tmp_path.glob("database.db*"))
    assert not (tmp_path / "copies").exists() or list((tmp_path / "copies").iterdir()) == []


def test_a_dataset_is_exported_with_its_calibration(tmp_path: Path, photographs: list[npt.NDArray[np.uint8]]) -> None:
    noise = noise_flight(2)
    pinhole = (520.0, 521.0, 320.0, 240.0)
    folder = write_layout("EuRoC", tmp_path, Flight(photographs[:2], noise.stamps_ns, noise.poses, pinhole))
    output = tmp_path / "database.db"
    assert main(["colmap", str(folder), "--output", str(output), "--extractor", "sift"]) == 0
    assert _rows(output, "SELECT name FROM images") == [(f"{stamp_ns}.png",) for stamp_ns in noise.stamps_ns]
    ((width, height, parameters, is_known),) = _rows(
        output, "SELECT width, height, params, prior_focal_length FROM cameras"
    )
    assert (width, height, is_known) == (640, 480, 1)
    # COLMAP counts from the corner of the image.
    np.testing.assert_allclose(np.frombuffer(parameters)[:4], [520, 521, 320.5, 240.5])
