"""`export colmap --reconstruct`: COLMAP's models of exact drives and orbits, what is said, and what fails."""

from __future__ import annotations

import os
import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.errors import SettingsError
from feature_frontend_lab.export import reconstruction
from feature_frontend_lab.export.colmap_database import PINHOLE, ColmapCamera, ColmapDatabase, guessed_camera
from feature_frontend_lab.export.command import main
from feature_frontend_lab.export.mapper import LOG, MappedModel, MapperError, has_pycolmap, run_mapper
from feature_frontend_lab.export.reconstruction import Exported, reconstruct
from feature_frontend_lab.rendering import flight, write_euroc
from tests.campaign import Campaign

FloatArray = npt.NDArray[np.float64]

_needs_pycolmap = pytest.mark.skipif(not has_pycolmap(), reason="needs pycolmap: pip install pycolmap")
_FOCAL_PX = 500.0
_CAMERA = ColmapCamera(PINHOLE, 480, 640, (_FOCAL_PX, _FOCAL_PX, 320.0, 240.0), is_known=True)
_MAP = ("--max-num-keypoints", "1000", "--reconstruct")


def _drive(count: int) -> list[FloatArray]:
    """Straight ahead, 1 m a frame."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 2, 3] = np.arange(count)
    return list(poses)


def _orbit(count: int, radius_m: float = 6.0) -> list[FloatArray]:
    """Around a point 10 m in front of the first camera, 5 degrees a frame; with no radius, on the spot."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    for number, pose in enumerate(poses):
        angle = np.radians(5.0 * number)
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        pose[:3, :3] = turn
        pose[:3, 3] = [0, 0, 10] - turn @ [0, 0, radius_m] if radius_m else 0
    return list(poses)


def _beside(rng: np.random.Generator) -> FloatArray:
    """Points on both sides of the drive, in no plane."""
    points = rng.uniform([2, -3, 3], [5, 3, 30], (1500, 3))
    points[::2, 0] *= -1
    return points


def _ball(rng: np.random.Generator) -> FloatArray:
    return rng.uniform([-2, -2, 8], [2, 2, 12], (300, 3))


def _exported(
    folder: Path,
    scenes: list[tuple[list[FloatArray], FloatArray]],
    camera: ColmapCamera = _CAMERA,
    apart: int | None = None,
) -> Exported:
    """A database of exact views, with noise of 0.2 px, of scenes that share nothing; image `apart` has no matches."""
    rng = np.random.default_rng(5)
    path = folder / "database.db"
    truth: dict[str, FloatArray | None] = {}
    with ColmapDatabase(path) as database:
        camera_id = database.add_camera(camera)
        for poses, points in scenes:
            views = []
            for pose in poses:
                seen = (points - pose[:3, 3]) @ pose[:3, :3]
                pixels = _FOCAL_PX * seen[:, :2] / seen[:, 2:] + [319.5, 239.5]
                inside = (seen[:, 2] > 1) & (pixels > 0).all(axis=1) & (pixels < [640, 480]).all(axis=1)
                keypoints = pixels + rng.normal(0, 0.2, pixels.shape)
                name = f"{len(truth):06d}.png"
                image_id = database.add_image(name, camera_id, keypoints[inside])
                truth[name] = pose
                views.append((image_id, np.flatnonzero(inside)))
            for gap in (1, 2, 3, 5):
                for (id0, rows0), (id1, rows1) in zip(views, views[gap:], strict=False):
                    _, at0, at1 = np.intersect1d(rows0, rows1, return_indices=True)
                    if apart is None or apart + 1 not in {id0, id1}:
                        rows = np.column_stack([at0, at1])
                        inlier = np.ones(len(rows), np.bool_)
                        database.add_pair(id0, id1, rows, inlier, is_calibrated=camera.is_known)
    return Exported(path, {camera: camera_id}, truth, None)


def _ates_m(said: str) -> list[float]:
    return [float(found) for found in re.findall(r"ATE ([0-9.]+) m", said)]


@_needs_pycolmap
@pytest.mark.slow
def test_a_drive_straight_ahead_starts_with_two_images_one_behind_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = _exported(tmp_path, [(_drive(12), _beside(np.random.default_rng(1)))])
    before = exported.database.read_bytes()
    reconstruct(exported)
    said = capsys.readouterr().out
    assert "start with COLMAP defaults: no initial pair\n" in said
    assert "start with init_max_forward_motion=1, init_min_tri_angle=2: 12 of 12 images" in said
    assert "sparse/0: 12 of 12 images" in said
    assert "PINHOLE 500, 500, 320, 240, calibrated: kept" in said
    (ate,) = _ates_m(said)
    assert ate < 0.05, "of 11 m"
    assert "over 12 images" in said
    assert exported.database.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"database.db", "sparse"}
    assert [path.name for path in (tmp_path / "sparse").iterdir()] == ["0"]
    # COLMAP's binary files: numbers of cameras and images, and the camera.
    camera = (tmp_path / "sparse" / "0" / "cameras.bin").read_bytes()
    assert struct.unpack("<QIiQQ4d", camera) == (1, 1, PINHOLE, 640, 480, *_CAMERA.parameters)
    assert struct.unpack_from("<Q", (tmp_path / "sparse" / "0" / "images.bin").read_bytes()) == (12,)


@_needs_pycolmap
def test_a_guessed_camera_is_refined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = _exported(tmp_path, [(_orbit(12), _ball(np.random.default_rng(1)))], guessed_camera(480, 640))
    reconstruct(exported)
    said = capsys.readouterr().out
    assert "start with COLMAP defaults: 12 of 12 images" in said
    assert said.count(": kept\n") == 1
    assert "SIMPLE_RADIAL 768, 320, 240, 0, guessed: refined" in said
    (focal_px,) = re.findall(r"camera 1 refined: ([0-9.]+),", said)
    assert float(focal_px) == pytest.approx(_FOCAL_PX, rel=0.03)
    assert _ates_m(said)[0] < 0.1


@_needs_pycolmap
def test_scenes_that_share_nothing_give_a_model_each_and_a_lone_image_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    reconstruct(_exported(tmp_path, [(_orbit(13), _ball(rng)), (_orbit(12), _ball(rng))], apart=6))
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "sparse").iterdir()} == {"0", "1"}
    assert sorted(re.findall(r"sparse/\d: (\d+) of 25 images", said)) == ["12", "12"]
    assert max(_ates_m(said)) < 0.05
    assert "1 of 25 images are not registered: 000006.png" in said


@_needs_pycolmap
def test_a_camera_that_only_turns_gives_no_model(tmp_path: Path) -> None:
    exported = _exported(tmp_path, [(_orbit(4, radius_m=0), _ball(np.random.default_rng(1)))])
    with pytest.raises(SettingsError, match="no two images to start"):
        reconstruct(exported)
    assert [path.name for path in tmp_path.iterdir()] == ["database.db"]


@_needs_pycolmap
def test_an_interrupt_leaves_no_model_and_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = _exported(tmp_path, [(_orbit(12), _ball(np.random.default_rng(1)))])
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def remembered(*arguments: object, **options: object) -> subprocess.Popen[str]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remembered)
    monkeypatch.setattr("feature_frontend_lab.export.reconstruction.tqdm.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(exported)
    assert [path.name for path in tmp_path.iterdir()] == ["database.db"]
    assert [process.poll() for process in started] == [-9]


@_needs_pycolmap
def test_the_mapper_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    exported = _exported(tmp_path, [(_drive(12), _beside(np.random.default_rng(1)))])
    request = '{"database": "%s", "images": null, "output": "%s", "constant_cameras": [1], "mapper": {}}'
    command = [sys.executable, "-m", "feature_frontend_lab.export.mapping_process"]
    with subprocess.Popen(
        [*command, request % (exported.database, tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 1
        assert process.stdout is not None
        assert process.stdout.read() == b""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os.abort()", "status -6: nothing was said"),
        ("raise ImportError('libx.so.3 is missing')", "libx.so.3 is missing"),
        (
            "__version__ = '0.6.1'\n"
            "class logging:\n    class ERROR:\n        value = 2\n"
            "class IncrementalPipelineOptions: pass",
            "pycolmap 0.6.1 .*expected 3.13",
        ),
        (
            "import sys; print('E1130 no space', flush=True); sys.exit(1)",
            "E1130 no space",
        ),
    ],
)
def test_a_mapper_that_fails_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    (tmp_path / "pycolmap.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    with pytest.raises(MapperError, match=expected):
        run_mapper(tmp_path / "database.db", None, tmp_path, [1], {})


@pytest.fixture
def without_pycolmap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)


def _commands(said: str) -> list[list[str]]:
    return [shlex.split(line) for line in said.splitlines() if line.startswith("mkdir")]


@pytest.mark.parametrize("camera", [_CAMERA, guessed_camera(480, 640)])
def test_without_pycolmap_the_commands_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], without_pycolmap: None, camera: ColmapCamera
) -> None:
    folder = tmp_path / "my drive"
    folder.mkdir()
    exported = _exported(folder, [(_orbit(2), _ball(np.random.default_rng(1)))], camera)
    with pytest.raises(SettingsError, match=r"pip install pycolmap.*is written"):
        reconstruct(exported)
    plain, forward = _commands(capsys.readouterr().out)
    models = str(folder / "sparse")
    fixed = ["--Mapper.ba_refine_focal_length", "0", "--Mapper.ba_refine_extra_params", "0"] if camera.is_known else []
    expected = ["mkdir", "-p", models, "&&", "colmap", "mapper", "--database_path", str(exported.database)]
    expected += ["--image_path", ".", "--output_path", models, *fixed, "--Mapper.extract_colors", "0"]
    assert plain == expected
    expected = [f"{models}_forward" if word == models else word for word in expected]
    assert forward == [*expected, "--Mapper.init_max_forward_motion", "1", "--Mapper.init_min_tri_angle", "2"]
    assert [path.name for path in folder.iterdir()] == ["database.db"]


@_needs_pycolmap
def test_the_commands_name_options_of_colmap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], without_pycolmap: None
) -> None:
    with pytest.raises(SettingsError):
        reconstruct(_exported(tmp_path, [(_orbit(2), _ball(np.random.default_rng(1)))]))
    words = {word for line in _commands(capsys.readouterr().out) for word in line}
    names = sorted(word.removeprefix("--Mapper.") for word in words if word.startswith("--Mapper."))
    assert len(names) == 5
    # Not in this process, whose handlers of signals pycolmap would replace.
    code = "import pycolmap, sys; o = pycolmap.IncrementalPipelineOptions()\n"
    code += "print([name for name in sys.argv[1:] if not hasattr(o, name) and not hasattr(o.mapper, name)])"
    unknown = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert unknown.stdout.strip() == "[]"


def test_the_tool_says_beforehand_what_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], without_pycolmap: None
) -> None:
    output = ["--output", str(tmp_path / "database.db")]
    assert main(["colmap", str(tmp_path / "none"), *output, "--ground-truth", "poses.txt"]) == 1
    assert "--reconstruct" in capsys.readouterr().err
    (tmp_path / "sparse").mkdir()
    assert main(["colmap", str(tmp_path / "none"), *output, "--reconstruct"]) == 1
    assert "sparse exists already" in capsys.readouterr().err
    (tmp_path / "sparse").rmdir()
    assert main(["colmap", str(tmp_path / "none"), *output, "--reconstruct"]) == 1
    assert "only the database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def _mapped_whole(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str, float]:
    """Runs the tool; returns registered and all images, and the ATE in m."""
    assert main(["colmap", *arguments]) == 0
    said = capsys.readouterr().out
    (line,) = re.findall(r"sparse/0: (\d+) of (\d+) images", said)
    (ate,) = _ates_m(said)
    return *line, ate


@_needs_pycolmap
@pytest.mark.slow
def test_a_rendered_drive_is_mapped_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], campaign: Campaign, report_figure: Callable[[str], None]
) -> None:
    if not campaign.is_whole:
        pytest.skip("renders and maps 51 images: make campaign")
    write_euroc(flight("street", 0, count=51), tmp_path)
    arguments = [str(tmp_path), "--output", str(tmp_path / "map" / "database.db"), "--extractor", "sift", *_MAP]
    registered, total, ate = _mapped_whole(arguments, capsys)
    report_figure(f"COLMAP of 51 images of street, sift: {registered} registered, ATE {ate:.3f} m on 25 m")
    assert (registered, total) == ("51", "51")
    assert ate < 0.25, "1 % of the way"


@_needs_pycolmap
@pytest.mark.slow
def test_kitti_is_mapped_whole(
    tmp_path: Path,
    shared: Path,
    capsys: pytest.CaptureFixture[str],
    campaign: Campaign,
    report_figure: Callable[[str], None],
) -> None:
    if not campaign.is_whole:
        pytest.skip("maps 20 images: make campaign")
    folder = shared / "data" / "kitti00"
    arguments = [str(folder), "--camera-info", str(folder / "camera.yaml"), "--extractor", "sift", *_MAP]
    registered, total, ate = _mapped_whole([*arguments, "--output", str(tmp_path / "database.db")], capsys)
    report_figure(f"COLMAP of KITTI 00, sift: {registered} of 20 registered, ATE {ate:.3f} m on 7.4 m")
    assert (registered, total) == ("20", "20")
    assert ate < 0.074, "1 % of the way"


def _models(*images_and_errors: tuple[range, float]) -> list[MappedModel]:
    return [
        MappedModel({f"{row:06d}.png": [2.0 * row, row % 2, 0.0] for row in rows}, 100, error_px, {"1": [1.0]})
        for rows, error_px in images_and_errors
    ]


@pytest.mark.parametrize(
    ("defaults", "forward", "kept"),
    [
        (_models((range(4), 1.07)), _models((range(4), 0.51)), "forward"),
        (_models((range(4), 0.51)), _models((range(4), 1.07)), "defaults"),
        (_models((range(4), 1.07)), _models((range(3), 0.51)), "defaults"),
        (_models((range(2), 0.3), (range(2, 4), 0.3)), _models((range(4), 0.51)), "forward"),
        (_models((range(4), 0.51)), [], "defaults"),
    ],
)
def test_more_images_in_fewer_models_with_a_smaller_error_are_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    defaults: list[MappedModel],
    forward: list[MappedModel],
    kept: str,
) -> None:
    def mapped(database: Path, _: object, output: Path, __: object, options: object, ___: object) -> list[MappedModel]:
        (output / LOG).touch()
        (output / ("forward" if options else "defaults")).touch()
        return forward if options else defaults

    monkeypatch.setattr(reconstruction, "run_mapper", mapped)
    monkeypatch.setattr(reconstruction, "has_pycolmap", lambda: True)
    (tmp_path / "database.db").touch()
    poses: dict[str, FloatArray | None] = {f"{row:06d}.png": None for row in range(5)}
    reconstruct(Exported(tmp_path / "database.db", {_CAMERA: 1}, poses, None))
    assert [path.name for path in (tmp_path / "sparse").iterdir()] == [kept]
    said = capsys.readouterr().out
    assert "ATE" not in said, "no pose is known"
    assert re.search(r"\d of 5 images are not registered: .*000004.png", said)


def test_an_ate_is_over_the_images_whose_pose_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mapped(database: Path, _: object, output: Path, *__: object) -> list[MappedModel]:
        (output / LOG).touch()
        return _models((range(5), 0.5))

    monkeypatch.setattr(reconstruction, "run_mapper", mapped)
    monkeypatch.setattr(reconstruction, "has_pycolmap", lambda: True)
    cases = (
        (4, "ATE 0.000 m over 4 images"),
        (2, "no ATE: the true poses of 2 of them"),
        (0, "no ATE: no image falls into the time of the poses in truth.txt"),
    )
    for known, expected in cases:
        folder = tmp_path / str(known)
        folder.mkdir()
        (folder / "database.db").touch()
        # The model's positions times 3, turned and shifted.
        truth = {f"{row:06d}.png": np.eye(4) for row in range(5)}
        for row, pose in enumerate(truth.values()):
            pose[:3, 3] = [7 - 3.0 * (row % 2), 6.0 * row, 1]
        poses = {name: pose if row < known else None for row, (name, pose) in enumerate(truth.items())}
        reconstruct(Exported(folder / "database.db", {_CAMERA: 1}, poses, None, Path("truth.txt")))
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("refined", "is_doubtful"),
    [
        ([500.0, 320.0, 240.0, 0.1], False),
        ([50.0, 320.0, 240.0, 0.1], True),
        ([7000.0, 320.0, 240.0, 0.1], True),
        ([500.0, 320.0, 240.0, -4.4], True),
        ([500.0, 320.0, 240.0, float("nan")], True),
    ],
)
def test_a_camera_that_no_lens_can_be_is_named(
    refined: list[float],
    is_doubtful: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def mapped(database: Path, _: object, output: Path, *__: object) -> list[MappedModel]:
        (output / LOG).touch()
        return [replace(model, cameras={"1": refined}) for model in _models((range(5), 0.5))]

    monkeypatch.setattr(reconstruction, "run_mapper", mapped)
    monkeypatch.setattr(reconstruction, "has_pycolmap", lambda: True)
    (tmp_path / "database.db").touch()
    reconstruct(Exported(tmp_path / "database.db", {guessed_camera(480, 640): 1}, {}, None))
    said = capsys.readouterr().out
    assert f"camera 1 refined: {refined[0]:g}, 320, 240, {refined[3]:g}" in said
    assert ("do not trust this model; give the calibration by --camera-info" in said) == is_doubtful
