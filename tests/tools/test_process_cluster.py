"""`process --cluster`: a Ray cluster of several nodes on this machine gives the bytes of a run without one."""

from __future__ import annotations

import builtins
import io
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from rosbags.rosbag2 import StoragePlugin

from feature_frontend.tools.process.cluster import worker
from feature_frontend.tools.process.command import main
from feature_frontend.tools.process.request import Request, Work
from tests.campaign import Campaign
from tests.conftest import REPOSITORY
from tests.tools.offline import OPTIONS, SECOND, files, image, moving, write_bag

Photographs = list[npt.NDArray[np.uint8]]
LENGTHS = (6, 3, 12)
PARQUET = ("--format", "parquet")
ARGUMENTS = [*OPTIONS, "--threads", "1", "--piece-seconds", "0.7"]


_CAMERA = """image_width: 128
image_height: 96
camera_name: left
camera_matrix: {rows: 3, cols: 3, data: [120, 0, 64, 0, 120, 48, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [120, 0, 64, 0, 0, 120, 48, 0, 0, 0, 1, 0]}
"""


@pytest.fixture(scope="module")
def bags(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bags of different lengths, the second with a bad image, the last done in pieces; and a damaged one."""
    folder = tmp_path_factory.mktemp("input") / "bags"
    folder.mkdir()
    for number, length in enumerate(LENGTHS):
        stamps = [(number + 1) * SECOND + index * SECOND // 10 for index in range(length)]
        contents = [("/image", one, image(one, moving(photographs, index), "rgb8")) for index, one in enumerate(stamps)]
        if number == 1:
            contents[1][2].encoding = "rainbow"
        write_bag(folder / f"drive_{number}", contents)
    (folder / "broken").mkdir()
    (folder / "broken" / "broken.mcap").write_bytes(bytes(1000))
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU, in processes of their own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray would start as many processes beforehand as there are CPUs, each with torch.
    os.environ["RAY_enable_worker_prestart"] = "0"  # noqa: SIM112
    pytest.importorskip("ray", reason="needs Ray (pip install ray)")
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 80 << 20}
    found = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **options})
    found.add_node(**options)
    yield found
    found.shutdown()


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_this_machine(
    bags: Path, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "camera.yaml").write_text(_CAMERA)
    arguments = ["-o", str(tmp_path / "local"), "--camera-info", "camera.yaml", *ARGUMENTS]
    # Ray's processes start in other folders.
    monkeypatch.chdir(tmp_path)
    assert main([str(bags), *arguments]) == 1
    capsys.readouterr()
    output = tmp_path / "cluster"
    arguments[1] = "cluster"
    assert main([os.path.relpath(bags), *arguments, "--cluster", cluster.address]) == 1
    printed = capsys.readouterr()
    assert f"error: {bags / 'broken'}: bag {bags / 'broken'} cannot be read" in printed.err
    assert f"warning: {bags / 'drive_1'}, image 1: image refused: " in printed.err
    assert f"{sum(LENGTHS)} images of 4 sources" in printed.out
    for number in range(len(LENGTHS)):
        assert files(output / f"drive_{number}") == files(tmp_path / "local" / f"drive_{number}")
    assert sorted(file.name for file in output.iterdir()) == ["drive_0", "drive_1", "drive_2", "report.json"]
    report = json.loads((output / "report.json").read_text())
    assert [entry["state"] for entry in report["inputs"]] == ["failed", "done", "done", "done"]
    assert report["inputs"][-1]["joins"]["joined"] > 50
    # Pieces one after another: the bytes of a run without them, on one of the machines.
    arguments = [str(bags / "drive_2"), *arguments[2:], "--tracker", "persistent", "-o"]
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "pieces"), "--cluster", cluster.address]) == 0
    arguments.remove("--piece-seconds")
    arguments.remove("0.7")
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    assert files(tmp_path / "pieces") == files(tmp_path / "whole")


@pytest.mark.slow
def test_the_snippets_for_ray_data_run(
    campaign: Campaign, photographs: Photographs, cluster: Any, tmp_path: Path
) -> None:
    if not campaign.is_whole:
        pytest.skip("runs in campaigns only: Ray Data starts a dozen processes")
    for package in ("mcap", "pyarrow", "pandas"):
        pytest.importorskip(package, reason=f"needs {package}")
    import pyarrow.dataset
    import ray

    (tmp_path / "bags").mkdir()
    for number, length in enumerate(LENGTHS[:2]):
        stamps = [(number + 1) * SECOND + index * SECOND // 10 for index in range(length)]
        contents = [
            ("/camera/image_raw", stamp, image(stamp, moving(photographs, index), "rgb8"))
            for index, stamp in enumerate(stamps)
        ]
        bag = write_bag(tmp_path / f"drive_{number}", contents, StoragePlugin.MCAP)
        next(bag.glob("*.mcap")).rename(tmp_path / "bags" / f"drive_{number}.mcap")
    assert main([str(tmp_path / "bags" / "*.mcap"), "-o", str(tmp_path / "features"), *OPTIONS, *PARQUET]) == 0
    text = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text.replace("/data/", f"{tmp_path}/"), re.DOTALL)
    reading, tracking = (one for one in snippets if "import ray" in one)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    try:
        names: dict[str, Any] = {}
        exec(reading, names)
        found = names["tracks"].to_pandas()
        exec(tracking.replace("1000", "100"), names)
    finally:
        ray.shutdown()
    assert set(found["bag"]) == {"drive_0", "drive_1"}
    rows = pyarrow.dataset.dataset(tmp_path / "results").to_table().select(["path", "state", "stamp_ns"]).to_pylist()
    for number, length in enumerate(LENGTHS[:2]):
        states = [row["state"] for row in rows if row["path"].endswith(f"drive_{number}.mcap")]
        assert states == ["FIRST"] + ["OK"] * (length - 1)


def test_a_count_that_arrives_late_changes_nothing() -> None:
    tally = worker.Tally()
    tally.record(0, 5, 0, ["one"])
    tally.record(1, 2, 4, [])
    tally.record(0, 9, 0, ["three"], is_last=True)
    tally.record(0, 7, 0, ["two"])
    # A second try of a unit counts again.
    tally.record(1, 1, 6, [])
    assert tally.take() == (10, 6, ["one", "three", "two"])
    assert tally.take() == (10, 6, [])


def test_no_cluster_and_other_versions_are_clear_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {**worker.environment(), "libraries": {"torch": "1.0"}, "code_sha256": "other"}
    unit = Work(Request("nowhere", str(tmp_path / "out"), {})).to_json()
    answer = worker.work(0, unit, expected, os.getcwd(), None)
    assert "of the cluster differs from this one in code_sha256, libraries.torch, " in answer["error"]
    assert "install the same versions" in answer["error"]

    imported = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name == "ray" or name.startswith("ray."):
            raise ImportError("No module named 'ray'")
        return imported(name, *arguments)

    arguments = [str(tmp_path), "-o", str(tmp_path / "out"), *OPTIONS, "--cluster"]
    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", refuse)
        assert main([*arguments, "auto"]) == 1
    assert "error: --cluster needs Ray, which cannot be imported" in capsys.readouterr().err

    ray = pytest.importorskip("ray", reason="needs Ray (pip install ray)")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert main([*arguments, f"127.0.0.1:{unused.getsockname()[1]}"]) == 1
    assert "Connection refused; expected HOST:6379" in capsys.readouterr().err
    for error, address, told in (
        (ConnectionError("Could not find any running Ray instance."), "auto", "start one by `ray start --head`"),
        (ConnectionError("timed out"), "10.0.0.1:6379", "expected HOST:6379"),
        (RuntimeError("Version mismatch: The cluster was started with: Ray: 2.0"), "auto", "the same versions of Ray"),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(ray, "init", fail)
        monkeypatch.setattr(socket, "create_connection", lambda *_: io.BytesIO())
        assert main([*arguments, address]) == 1
        printed = capsys.readouterr().err
        assert f"no Ray cluster can be joined at {address}: {error}; " in printed
        assert told in printed


def test_the_front_end_as_an_actor_gives_what_the_front_end_gives(photographs: Photographs) -> None:
    from feature_frontend import Frontend
    from feature_frontend.tools.process.cluster.frontend_actor import FrontendActor
    from tests.tools.offline import STORE

    parameters: dict[str, Any] = {"extractor": "silk-vggnp-mu", "max_num_keypoints": 100, "compile": False}
    actor, alone = FrontendActor(**parameters, device="cpu"), Frontend.from_pretrained(None, **parameters, device="cpu")
    expected = [alone.process(moving(photographs, index), (index + 1) * SECOND // 10) for index in range(6)]
    rows: list[tuple[str, bytes]] = []
    for index in range(6):
        for path in ("a.mcap", "b.mcap"):
            message = image((index + 1) * SECOND // 10, moving(photographs, index), "rgb8")
            rows.append((path, bytes(STORE.serialize_cdr(message, "sensor_msgs/msg/Image"))))
    rows.insert(5, ("b.mcap", b"\0\1"))
    found: dict[str, list[Any]] = {}
    for begin in range(0, len(rows), 4):
        part = rows[begin : begin + 4]
        batch = {
            "path": np.array([path for path, _ in part]),
            "data": np.array([data for _, data in part], object),
            "topic": np.array(["/image"] * len(part)),
            "schema_name": np.array(["sensor_msgs/msg/Image"] * len(part)),
            "message_encoding": np.array(["cdr"] * len(part)),
        }
        for name, values in actor(batch).items():
            found.setdefault(name, []).extend(values)
    assert found["state"][5] == "ERROR"
    assert "the message is damaged" in found["reason"][5]
    for path in ("a.mcap", "b.mcap"):
        of_path = [row for row in range(len(rows)) if found["path"][row] == path and found["state"][row] != "ERROR"]
        for row, result in zip(of_path, expected, strict=True):
            assert found["state"][row] == result.state.name
            assert np.array_equal(found["keypoints"][row], result.features.keypoints.numpy())
            assert np.array_equal(found["track_ids"][row], result.tracks.ids)
            assert np.array_equal(found["matches"][row][:, 1], result.matches.indices1.numpy())
    with pytest.raises(Exception, match="a batch has columns id; expected those of read_mcap"):
        actor({"id": np.arange(3)})
