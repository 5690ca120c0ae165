"""Training pairs for ALIKED: images, TUM RGB-D and MegaDepth, mixed and reproducible."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from feature_frontend.errors import SettingsError, SourceError
from feature_frontend_lab.rendering import reproject
from feature_frontend_lab.training.aliked.megadepth import read_megadepth
from feature_frontend_lab.training.aliked.object_arrays import load_npz
from feature_frontend_lab.training.aliked.pairs import AlikedPair, AlikedPairs
from feature_frontend_lab.training.aliked.settings import AlikedSettings
from feature_frontend_lab.training.aliked.tum_rgbd import TumSequence, read_tum_sequence
from feature_frontend_lab.training.aliked.warps import HomographyWarp, PerspectiveWarp
from feature_frontend_lab.training.images import ColorImages, images_in_folder
from tests.conftest import REPOSITORY
from tests.training.aliked.scene import CAMERA, frames, poses, write_tum_sequence

_PHOTOGRAPHS = REPOSITORY / "tests" / "data" / "tum_fr2_desk"
_SETTINGS = AlikedSettings(map_side=160, augmentation=0.0, seed=3)


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> TumSequence:
    folder = tmp_path_factory.mktemp("rgbd")
    write_tum_sequence(folder)
    return read_tum_sequence(folder)


def _images() -> ColorImages:
    images = images_in_folder(_PHOTOGRAPHS, ColorImages)
    assert isinstance(images, ColorImages)
    return images


def _correlation(pair: AlikedPair, direction: int) -> float:
    """Of the greys at random points and where they move to."""
    side = pair.views.shape[-1]
    points = torch.rand(1500, 2, generator=torch.Generator().manual_seed(1)) * (side - 1)
    moved, visible = pair.warps[direction].warp(points)
    views = pair.views if direction == 0 else pair.views.flip(0)
    places = [where[visible].numpy()[None] for where in (points, moved)]
    blurred = [cv2.GaussianBlur(view.float().mean(dim=0).numpy(), (0, 0), 1.5) for view in views]
    seen = [cv2.remap(v, p[..., 0], p[..., 1], cv2.INTER_LINEAR)[0] for v, p in zip(blurred, places, strict=True)]
    assert len(seen[0]) > 100
    return float(np.corrcoef(*seen)[0, 1])


def test_warped_pairs_in_colour_show_the_same_both_ways() -> None:
    pairs = AlikedPairs(_images(), [], _SETTINGS)
    for number in range(5):
        pair = pairs[number]
        assert pair.views.shape == (2, 3, 160, 160)
        assert pair.views.dtype == torch.uint8
        assert all(isinstance(warp, HomographyWarp) for warp in pair.warps)
        assert min(_correlation(pair, 0), _correlation(pair, 1)) > 0.95
    upright = AlikedPairs(_images(), [], AlikedSettings(map_side=160, rotation_deg=0.0))
    for number in range(3):
        warp = upright[number].warps[0]
        assert isinstance(warp, HomographyWarp)
        # Without rotation, the homography's derivative at the centre is symmetric: a change of scale.
        ends = warp.warp(torch.tensor([[79.5, 79.5], [80.5, 79.5], [79.5, 80.5]], dtype=torch.float64))[0]
        right, down = ends[1] - ends[0], ends[2] - ends[0]
        assert abs(float(right[1] - down[0])) < 0.02
        assert float(right[0]) > 0.5
    # Red and blue are where a colour file has them.
    image = _images().load(0)
    assert image is not None
    assert np.array_equal(image, cv2.imread(str(sorted(_PHOTOGRAPHS.glob("*.jpg"))[0]))[..., ::-1])


def test_a_tum_sequence_is_read_as_it_was_rendered(sequence: TumSequence) -> None:
    assert len(sequence) == 5
    for number, (frame, pose) in enumerate(zip(frames(5), poses(5), strict=True)):
        read = sequence.load(number)
        assert read is not None
        assert np.array_equal(read.image, frame.image)
        np.testing.assert_allclose(read.depth, frame.depth, atol=1.01e-4)
        np.testing.assert_allclose(read.pose, pose, atol=1e-6)


def test_perspective_pairs_move_points_as_the_renderer_says(sequence: TumSequence) -> None:
    pairs = AlikedPairs(None, [sequence], _SETTINGS)
    rendered = frames(5)
    for number in range(4):
        pair = pairs[number]
        assert min(_correlation(pair, 0), _correlation(pair, 1)) > 0.93
        forth = pair.warps[0]
        assert isinstance(forth, PerspectiveWarp)
        numbers = [
            int(np.argmin([np.abs(pose - view.pose.numpy()).max() for pose in poses(5)]))
            for view in (forth.source, forth.target)
        ]
        points = torch.rand(1000, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 159
        moved, visible = forth.warp(points)
        there = reproject(
            forth.source.to_photograph(points).numpy(),
            rendered[numbers[0]].depth,
            poses(5)[numbers[0]],
            poses(5)[numbers[1]],
            CAMERA,
        ).points
        error = (moved - forth.target.from_photograph(torch.from_numpy(there)))[visible].norm(dim=1)
        # The depth image has steps of 0.2 mm. At an edge of a plate they decide which surface a point lies on.
        assert float(error.quantile(0.995)) < 0.1


def test_pairs_are_mixed_by_their_fraction_and_repeatable(sequence: TumSequence) -> None:
    settings = AlikedSettings(map_side=96, perspective_share=0.25, seed=1)
    pairs, again = (AlikedPairs(_images(), [sequence], settings) for _ in range(2))
    numbers = range(40)
    is_perspective = [isinstance(pairs[i].warps[0], PerspectiveWarp) for i in numbers]
    assert 4 <= sum(is_perspective) <= 18
    for i in reversed(range(8)):
        assert torch.equal(pairs[i].views, again[i].views)
    other = AlikedPairs(_images(), [sequence], AlikedSettings(map_side=96, perspective_share=0.25, seed=2))
    assert not torch.equal(pairs[0].views, other[0].views)
    unchanged = AlikedPairs(
        _images(), [sequence], AlikedSettings(map_side=96, perspective_share=0.25, seed=1, augmentation=0)
    )
    changed = [not torch.equal(pairs[i].views, unchanged[i].views) for i in range(8)]
    assert any(changed)


def test_lens_distortion_is_taken_out(tmp_path: Path) -> None:
    write_tum_sequence(tmp_path, 2)
    text = (tmp_path / "camera.yaml").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith("distortion_")]
    (tmp_path / "camera.yaml").write_text(
        "".join(kept)
        + "distortion_model: plumb_bob\ndistortion_coefficients: {rows: 1, cols: 5, data: [-0.2, 0.05, 0, 0, 0]}\n",
        encoding="utf-8",
    )
    read = read_tum_sequence(tmp_path).load(0)
    assert read is not None
    # A pixel of the undistorted image shows what the distorted image has where the lens puts its ray.
    point = np.array([[[60.0, 50.0]]])
    ray = cv2.undistortPoints(point, CAMERA.matrix, None)[0, 0]
    place, _ = cv2.projectPoints(
        np.array([[*ray, 1.0]]), np.zeros(3), np.zeros(3), CAMERA.matrix, np.array([-0.2, 0.05, 0, 0, 0])
    )
    expected = cv2.remap(frames(1)[0].image, place.astype(np.float32)[..., :1, 0], place.astype(np.float32)[..., 1], 1)
    assert np.abs(read.image[50, 60].astype(int) - expected[0, 0]).max() <= 2
    assert np.linalg.norm(place[0, 0] - point[0, 0]) > 3


def test_the_benchmarks_cameras_are_known_by_the_folders_name(tmp_path: Path) -> None:
    folder = tmp_path / "rgbd_dataset_freiburg3_long_office"
    write_tum_sequence(folder, 2)
    (folder / "camera.yaml").unlink()
    assert len(read_tum_sequence(folder)) == 2
    # Images of another size than the camera's are left out.
    assert read_tum_sequence(folder).load(0) is None


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("rgb.txt", None, "cannot read"),
        ("depth.txt", "one two\n", "cannot read"),
        ("depth.txt", "1000.0\n", "with a timestamp only"),
        ("groundtruth.txt", "1000.0 1 2 3\n1000.1 1 2 3\n", "timestamp tx ty tz"),
        ("groundtruth.txt", "2000.0 0 0 0 0 0 0 1\n", "has 0 image"),
        ("camera.yaml", None, "expected a calibration"),
    ],
)
def test_damaged_sequences_are_reported(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    write_tum_sequence(tmp_path, 2)
    (tmp_path / file).unlink()
    if text is not None:
        (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        read_tum_sequence(tmp_path)


def test_photographs_that_share_nothing_are_reported(tmp_path: Path) -> None:
    write_tum_sequence(tmp_path, 2)
    lines = (tmp_path / "groundtruth.txt").read_text(encoding="utf-8").splitlines()
    words = lines[1].split()
    words[1] = "500.0"
    (tmp_path / "groundtruth.txt").write_text("\n".join([lines[0], " ".join(words)]), encoding="utf-8")
    with pytest.raises(SourceError, match="some of which show the same"):
        AlikedPairs(None, [read_tum_sequence(tmp_path)], _SETTINGS)[0]
    with pytest.raises(SourceError, match="nothing to cut pairs from"):
        AlikedPairs(None, [], _SETTINGS)


def _write_megadepth(root: Path, *, pair_infos: bool) -> None:
    """The rendered scene as MegaDepth: world-to-camera poses, relative paths, overlaps."""
    (root / "scene_info").mkdir(parents=True)
    names = np.array(["images/0.png", "images/1.png", None, "images/3.png"], object)
    depths = np.array(["depths/0.h5", "depths/1.h5", None, "depths/3.h5"], object)
    (root / "images").mkdir()
    for number, frame in enumerate(frames(4)):
        cv2.imwrite(str(root / "images" / f"{number}.png"), frame.image[..., ::-1])
    values = {
        "image_paths": names,
        "depth_paths": depths,
        "intrinsics": np.stack([CAMERA.matrix] * 4),
        "poses": np.stack([np.linalg.inv(pose) for pose in poses(4)]),
    }
    overlaps = {(0, 1): 0.5, (0, 2): 0.5, (0, 3): 0.3, (1, 3): 0.9}
    if pair_infos:
        rows = np.empty((len(overlaps), 2), object)
        for row, (pair, share) in enumerate(overlaps.items()):
            rows[row, 0], rows[row, 1] = np.array(pair), share
        values["pair_infos"] = rows
    else:
        matrix = np.full((4, 4), -1.0)
        for (i, j), share in overlaps.items():
            matrix[i, j] = share
        values["overlap_matrix"] = matrix
    np.savez(root / "scene_info" / "0000.npz", **values)


@pytest.mark.parametrize("pair_infos", [False, True])
def test_megadepths_pairs_are_those_that_overlap(tmp_path: Path, pair_infos: bool) -> None:
    _write_megadepth(tmp_path, pair_infos=pair_infos)
    (scene,) = read_megadepth(tmp_path)
    rng = np.random.default_rng(0)
    # Photograph 2 is not there, and 1 and 3 are too much alike.
    assert {tuple(sorted(scene.draw(rng))) for _ in range(40)} == {(0, 1), (0, 3)}
    assert len(scene) == 3
    assert "3 images of" in scene.description


def test_without_h5py_megadepth_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_megadepth(tmp_path, pair_infos=False)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SourceError, match="pip install h5py"):
        AlikedPairs(None, read_megadepth(tmp_path), _SETTINGS)[0]


def test_megadepths_pairs_show_the_same(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the Python package h5py, which reads MegaDepth's depth")
    _write_megadepth(tmp_path, pair_infos=False)
    (tmp_path / "depths").mkdir()
    for number, frame in enumerate(frames(4)):
        with h5py.File(tmp_path / "depths" / f"{number}.h5", "w") as file:
            file["depth"] = frame.depth
    pairs = AlikedPairs(None, read_megadepth(tmp_path), _SETTINGS)
    for number in range(3):
        assert min(_correlation(pairs[number], 0), _correlation(pairs[number], 1)) > 0.93


def test_damaged_scene_files_are_reported_and_not_executed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there are no scene files"):
        read_megadepth(tmp_path)
    (tmp_path / "scene_info").mkdir()
    path = tmp_path / "scene_info" / "0.npz"

    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    hostile = np.empty(1, object)
    hostile[0] = Hostile()
    np.savez(path, image_paths=hostile)
    with pytest.raises(SourceError, match="expected numbers, text"):
        read_megadepth(tmp_path)
    assert not (tmp_path / "executed").exists()
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match=r"no \.npz file"):
        read_megadepth(tmp_path)
    np.savez(path, image_paths=np.array(["a"]), poses=np.zeros((1, 4, 4)))
    with pytest.raises(SourceError, match="has no depth_paths, intrinsics"):
        read_megadepth(tmp_path)
    assert set(load_npz(path)) == {"image_paths", "poses"}


_DOTTED = [
    ("os", "system"),
    ("subprocess", "Popen"),
    ("builtins", "exec"),
    ("numpy", "ndarray.__init__"),
    ("numpy", "f2py"),
    ("numpy.core.multiarray", "_reconstruct.__globals__"),
    ("numpy.core.multiarray", "sys.modules"),
    ("numpy._core.numeric", "_frombuffer.__globals__"),
    ("feature_frontend.tools.process.jobs", "subprocess.Popen"),
    ("_codecs", "lookup"),
]


@pytest.mark.parametrize(("module", "name"), _DOTTED)
def test_a_scene_file_cannot_call_anything(tmp_path: Path, module: str, name: str) -> None:
    marker = tmp_path / "executed"

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    planted = b"\x80\x04" + text(module) + text(name) + b"\x93" + text(f"touch {marker}") + b"\x85R."
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(tmp_path / "scene.npz", "w") as archive:
        archive.writestr("image_paths.npy", header.getvalue() + planted)
    with pytest.raises(ValueError, match=f"it holds a {re.escape(module)}.{re.escape(name)}; expected numbers, text"):
        load_npz(tmp_path / "scene.npz")
    assert not marker.exists()


@pytest.mark.parametrize("rest", [b"", b"garbage", b"\x80\x04]", b"\x80\x04\x93."])
def test_a_damaged_scene_file_is_refused(tmp_path: Path, rest: bytes) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    with zipfile.ZipFile(tmp_path / "scene.npz", "w") as archive:
        archive.writestr("image_paths.npy", header.getvalue() + rest)
    with pytest.raises(ValueError, match=r"scene|npz|expected numbers"):
        load_npz(tmp_path / "scene.npz")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"model": "silk-vggnp-mu"}, "aliked-t16"),
        ({"map_side": 32}, "map_side is 32"),
        ({"detected_keypoints": 0}, "detected_keypoints is 0"),
        ({"truth_radius_px": 0.0}, "truth_radius_px is 0"),
        ({"descriptor_weight": -1.0}, "descriptor_weight is -1"),
        ({"rotation_deg": 200.0}, "rotation_deg is 200"),
        ({"perspective_share": 1.5}, "perspective_share is 1.5"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        AlikedSettings(**values)  # type: ignore[arg-type]
