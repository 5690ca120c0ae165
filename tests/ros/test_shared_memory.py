"""The node's clean-up, at start, of shared memory left by killed processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feature_frontend.ros.shared_memory import FOLDER, remove_abandoned
from tests.soak.shared_memory import segments_of

# A process with a node, which is killed.
_NODE = """
import sys, time, rclpy
rclpy.init()
node = rclpy.create_node("victim")
print("ready", flush=True)
time.sleep(600)
"""


def _segment(folder: Path, name: str, age_s: float = 60.0) -> Path:
    path = folder / name
    path.write_bytes(bytes(1_000_000))
    lock = path.with_name(f"{name}_el")
    lock.touch()
    then_s = time.time() - age_s
    os.utime(lock, (then_s, then_s))
    return path


def test_only_segments_that_nobody_owns_are_removed(tmp_path: Path) -> None:
    abandoned = [_segment(tmp_path, "fastrtps_0123456789abcdef"), _segment(tmp_path, "fastdds_fedcba9876543210")]
    owned = _segment(tmp_path, "fastrtps_00000000000000aa")
    others = [
        _segment(tmp_path, "fastrtps_00000000000000bb", age_s=1.0),  # about to be locked by who made it
        _segment(tmp_path, "fastrtps_port7411"),  # opened again by the next process
        _segment(tmp_path, "image_0123456789abcdef"),
    ]
    with owned.with_name(f"{owned.name}_el").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_abandoned(tmp_path) == "removed 2 MB of shared memory of 2 process(es) that were killed"
    assert not any(path.exists() or path.with_name(f"{path.name}_el").exists() for path in abandoned)
    for path in (owned, *others):
        assert path.exists()
        assert path.with_name(f"{path.name}_el").exists()


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_where_there_is_nothing_nothing_is_said(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    assert remove_abandoned(tmp_path / folder) == ""


def test_a_lock_without_a_segment_goes_too(tmp_path: Path) -> None:
    _segment(tmp_path, "fastrtps_0123456789abcdef").unlink()
    assert remove_abandoned(tmp_path).startswith("removed 0 MB of shared memory of 1 ")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_node_leaves_is_removed_and_what_a_living_one_has_stays(
    domain_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
    # A process that has received from the killed one would remove what it left, some seconds later.
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    nodes = [subprocess.Popen([sys.executable, "-c", _NODE], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    segments: list[set[Path]] = [set()]
    try:
        for node in nodes:
            assert node.stdout is not None
            assert node.stdout.readline() == "ready\n"
        segments = [segments_of(node.pid) for node in nodes]
        if not all(segments):
            pytest.skip("needs FastDDS with shared memory")
        nodes[0].kill()
        nodes[0].wait()
        assert all(segment.exists() for segment in segments[0]), "FastDDS removes it by itself: remove_abandoned can go"
        then_s = time.time() - 60
        for segment in set.union(*segments):
            os.utime(FOLDER / f"{segment.name}_el", (then_s, then_s))
        assert remove_abandoned().startswith("removed ")
        assert not any(segment.exists() for segment in segments[0] - segments[1])
        assert all(segment.exists() for segment in segments[1])
    finally:
        for node in nodes:
            node.kill()
            node.wait()
        for segment in set.union(*segments):
            for name in (segment.name, f"{segment.name}_el"):
                (FOLDER / name).unlink(missing_ok=True)
