"""The files packed for a GPU machine, and how they are found there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.source import CARRIED, describe_source
from scripts.gpu_check.carried import carried_environment, unpack
from scripts.gpu_check.pack.archives import cached, write_archive
from scripts.gpu_check.pack.contents import CONTENTS, Content
from scripts.gpu_check.pack.wheels import pinned, target_packages, unmet_requirements, wheel_sets
from scripts.gpu_check.pack.wheels import unpack as unpack_wheel
from scripts.gpu_check.run import misfits

_KINDS = {content.name: content for content in CONTENTS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files, two of them equal."""
    folder = tmp_path / "content"
    (folder / "lib").mkdir(parents=True)
    noise = np.random.default_rng(0).bytes(100_000)
    (folder / "lib" / "library.so").write_bytes(noise)
    (folder / "lib" / "library.so.2").write_bytes(noise)
    (folder / "module.py").write_text("answer = 42\n")
    (folder / "empty").touch()
    return folder


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_archives_are_the_same_bytes_and_hold_equal_files_once(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "python-a.tar.xz", tmp_path / "b.tar.xz"
    write_archive(folder, first)
    (folder / "module.py").touch()
    write_archive(folder, second)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 110_000

    second.unlink()
    assert unpack(tmp_path, tmp_path / "there") == []
    assert _contents(tmp_path / "there" / "python") == _contents(folder)


def test_a_broken_archive_costs_itself_alone(folder: Path, tmp_path: Path) -> None:
    carried = tmp_path / "carried"
    carried.mkdir()
    write_archive(folder, carried / "python-3.12.tar.xz")
    whole = (carried / "python-3.12.tar.xz").read_bytes()
    (carried / "ros-3.12.tar.xz").write_bytes(whole[: len(whole) // 2])
    (carried / "shared-kitti.tar.xz").write_bytes(b"no archive")
    problems = unpack(carried, tmp_path / "there")
    assert [line.split()[0] for line in problems] == ["ros-3.12.tar.xz", "shared-kitti.tar.xz"]
    assert _contents(tmp_path / "there" / "python") == _contents(folder)


def test_archives_are_rebuilt_for_another_key_only(folder: Path, tmp_path: Path) -> None:
    made: list[str] = []

    def make(target: Path) -> None:
        made.append("once")
        (target / "file").write_text("content")

    one = cached(tmp_path / "cache", "python-3.12", ["a"], make)
    assert cached(tmp_path / "cache", "python-3.12", ["a"], make) == one
    assert len(made) == 1
    other = cached(tmp_path / "cache", "python-3.12", ["b"], make)
    assert len(made) == 2
    # The one before would only take room.
    assert list((tmp_path / "cache").iterdir()) == [other]


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ("jazzy", {"ros-rclpy==7.1.6", "ros-fastrtps==2.14.5"}),
        ("humble", {"ros-rclpy==7.1.6"}),
        ("kilted", {"ros-rclpy==9.1.2", "ros-fastdds==3.2.3"}),
    ],
)
def test_packages_that_are_there_stay_here_and_all_others_are_pinned(
    monkeypatch: pytest.MonkeyPatch, distribution: str, expected: set[str]
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    python_set, ros_set = wheel_sets()
    there = target_packages()
    names = {requirement.split("==")[0] for requirement in python_set.requirements}
    assert {"rosbags", "kornia", "kornia-rs"} <= names
    assert {"torch", "numpy", "opencv-python-headless", "pytest", "safetensors"} <= there
    assert not names & there
    assert names | there >= set(pinned("runtime.txt")) | set(pinned("benchmark.txt"))
    assert expected <= set(ros_set.requirements)


def _wheel(folder: Path, name: str, files: dict[str, str], needs: tuple[str, ...] = ()) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    metadata = "\n".join(
        ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {n}" for n in needs)]
    )
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in {f"{name}-1.0.dist-info/METADATA": metadata, **files}.items():
            wheel.writestr(file, content)
    return path


def test_needs_that_neither_side_has_are_named(tmp_path: Path) -> None:
    needs = ("numpy>=1", "friend>=1.0", "absent", "enemy; python_version < '3.12'", "extra_thing; extra == 'all'")
    wheels = [_wheel(tmp_path, "package", {}, needs), _wheel(tmp_path, "friend", {})]
    assert unmet_requirements(wheels, "3.12") == ["package-1.0-py3-none-any.whl needs absent"]
    assert len(unmet_requirements(wheels, "3.11")) == 2
    assert unmet_requirements(wheels[:1], "3.12")[0].endswith("needs friend>=1.0")


def test_wheels_are_laid_out_as_pip_does_less_what_only_compilers_read(tmp_path: Path) -> None:
    files = {
        "package/__init__.py": "",
        "package.libs/libssl.so": "",
        "package-1.0.data/data/lib/libpackage.so": "",
        "package-1.0.data/data/include/package/package.hpp": "",
        "package-1.0.data/data/share/package/msg/Thing.msg": "",
        "package-1.0.data/data/share/package/cmake/packageConfig.cmake": "",
        "package-1.0.data/purelib/pure/__init__.py": "",
        "bootstrap.pth": "import os",
    }
    wheel = _wheel(tmp_path, "package", files)
    site = "lib/python3.12/site-packages"
    run = {f"{site}/package/__init__.py", f"{site}/package.libs/libssl.so", "lib/libpackage.so"}
    run |= {f"{site}/pure/__init__.py", "share/package/msg/Thing.msg", f"{site}/package-1.0.dist-info/METADATA"}
    build = {"include/package/package.hpp", "share/package/cmake/packageConfig.cmake", f"{site}/bootstrap.pth"}
    unpack_wheel(wheel, tmp_path / "slim", "3.12", only_to_run=True)
    unpack_wheel(wheel, tmp_path / "whole", "3.12", only_to_run=False)
    assert set(_contents(tmp_path / "slim")) == run
    assert set(_contents(tmp_path / "whole")) == run | build


def test_photographs_become_smaller_and_frames_stay_as_they_are(tmp_path: Path) -> None:
    shared, target = tmp_path / "shared", tmp_path / "target"
    noise = np.random.default_rng(0).integers(0, 255, (600, 1500, 3), np.uint8)
    for name in (
        "images/free/photo.jpg",
        "data/tum_fr2_desk/1.png",
        "data/tum_fr2_desk/2.png",
        "data/tum_fr2_desk/camera.yaml",
    ):
        path = shared / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".yaml":
            path.write_text("camera_name: left\n")
        else:
            cv2.imwrite(str(path), noise)
    _KINDS["photographs"].fill(shared, target)
    photograph = cv2.imread(str(target / "images" / "free" / "photo.webp"))
    assert photograph is not None
    assert photograph.shape == (512, 1280, 3)

    dataclasses.replace(_KINDS["tum"], most_images=1).fill(shared, target)
    frames = _contents(target / "data" / "tum_fr2_desk")
    assert set(frames) == {"1.png", "camera.yaml"}
    assert frames["1.png"] == (shared / "data" / "tum_fr2_desk" / "1.png").read_bytes()


def test_weights_that_were_fetched_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "feature_frontend").mkdir(parents=True)
    (tmp_path / "cache" / "feature_frontend" / "aliked-t16.pth").write_bytes(b"weights")
    content = Content("weights", "weights", frozenset(), "weights/aliked-*.pth")
    content.fill(tmp_path / "shared", tmp_path / "target")
    assert _contents(tmp_path / "target") == {"weights/aliked-t16.pth": b"weights"}


def test_the_commit_is_known_where_git_is_not(tmp_path: Path) -> None:
    # Around the copy lies a repository with another commit, as it may where it was carried to.
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "another")
    copy = tmp_path / "copy"
    copy.mkdir()
    assert describe_source(copy) == {"feature_frontend": None, "uncommitted_changes": None}

    (copy / "file.py").write_text("answer = 42\n")
    files = {"file.py": hashlib.sha256(b"answer = 42\n").hexdigest()}
    state = {"feature_frontend": "abc", "uncommitted_changes": False, "files": files}
    (copy / CARRIED).parent.mkdir()
    (copy / CARRIED).write_text(json.dumps(state))
    assert describe_source(copy) == {"feature_frontend": "abc", "uncommitted_changes": False}
    (copy / "file.py").write_text("answer = 43\n")
    assert describe_source(copy) == {"feature_frontend": "abc", "uncommitted_changes": True}
    assert describe_source(tmp_path)["feature_frontend"] not in {"abc", None}


def test_what_is_carried_is_found_first(tmp_path: Path) -> None:
    environment = carried_environment(tmp_path, {"PYTHONPATH": "/theirs", "HOME": "/root"})
    paths = environment["PYTHONPATH"].split(":")
    assert paths[-1] == "/theirs"
    assert Path(paths[3]).is_relative_to(tmp_path / "python")
    assert environment["HOME"] == "/root"
    assert environment["FEATURE_FRONTEND_SHARED"] == str(tmp_path / "shared")
    assert Path(environment["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file()


def test_results_that_would_not_come_back_are_named(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number in range(7):
        (tmp_path / f"{number}.tar.gz").touch()
    (tmp_path / "a" / "b" / "deep.json").touch()
    assert misfits(tmp_path) == []
    (tmp_path / "a" / "b" / "c").mkdir()
    (tmp_path / "a" / "b" / "c" / "deeper.json").touch()
    with (tmp_path / "0.tar.gz").open("wb") as file:
        file.truncate((16 << 20) + 1)
    lines = misfits(tmp_path)
    assert len(lines) == 3
    assert "0.tar.gz" in lines[0]
    assert "too deep" in lines[1]
    assert "9 files" in lines[2]


@pytest.mark.parametrize(("name", "link"), [("../evil", ""), ("/evil", ""), ("fine", "../../evil"), ("fine", "/evil")])
def test_nothing_of_an_archive_is_laid_outside_its_folder(name: str, link: str, tmp_path: Path) -> None:
    carried, folder = tmp_path / "carried", tmp_path / "unpacked"
    carried.mkdir()
    with tarfile.open(carried / "ros-3.12.tar.xz", "w:xz") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
        tar.addfile(entry)
    (line,) = unpack(carried, folder)
    assert f"{link or name} would lie outside" in line
    assert not folder.exists()


def test_times_are_those_of_the_frames_that_are_carried(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "data" / "kitti00"
    folder.mkdir(parents=True)
    (folder / "times.txt").write_text("".join(f"{number / 10}\n" for number in range(20)))
    (folder / "poses.txt").write_text("1 0 0\n" * 20)
    kitti = _KINDS["kitti"]
    kitti.fill(tmp_path / "shared", tmp_path / "target")
    carried = tmp_path / "target" / "data" / "kitti00"
    assert len((carried / "times.txt").read_text().splitlines()) == kitti.most_images
    assert (carried / "poses.txt").read_bytes() == (folder / "poses.txt").read_bytes()
