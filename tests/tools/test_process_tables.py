"""`process --format parquet`: the tables hold what the bag holds, and pandas, DuckDB and Ray Data open them."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.ros.output.publishers import result_topics
from feature_frontend.sources.bags.rosbags_workarounds import deserialize_cdr
from feature_frontend.tools.process import tables
from feature_frontend.tools.process.command import main
from feature_frontend.tools.process.output import BagMessages
from tests.conftest import REPOSITORY
from tests.tools.offline import OPTIONS, SECOND, camera_info, image, messages, moving, write_bag

Photographs = list[npt.NDArray[np.uint8]]
IMAGES = 8


def test_without_pyarrow_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = builtins.__import__

    def refuse(name: str, *arguments: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError("No module named 'pyarrow'")
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["bag", "-o", str(tmp_path / "out"), "--format", "parquet", *OPTIONS]) == 1
    assert "error: --format parquet needs pyarrow" in capsys.readouterr().err


@pytest.fixture(scope="module")
def both(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bag and the tables of two inputs, one of them with a bad image and no calibration before the fourth."""
    pytest.importorskip("pyarrow", reason="needs pyarrow (pip install pyarrow)")
    folder = tmp_path_factory.mktemp("input")
    for name in ("first", "second"):
        contents: list[tuple[str, int, Any]] = []
        for index in range(IMAGES):
            stamp_ns = (index + 1) * SECOND // 10
            message = image(stamp_ns, moving(photographs, index), "rgb8")
            if name == "second":
                message.encoding = "rainbow" if index == 3 else "rgb8"
            else:
                contents.append(("/cam/camera_info", stamp_ns, camera_info(stamp_ns, 120.0)))
            contents.append(("/cam/image", stamp_ns, message))
        write_bag(folder / name, contents)
    output = tmp_path_factory.mktemp("output")
    options = [*OPTIONS, "--epipolar-check", "true"]
    assert main([str(folder), "-o", str(output / "bags"), *options]) == 0
    assert main([str(folder), "-o", str(output / "tables"), "--format", "parquet", *options]) == 0
    return output / "bags", output / "tables"


def test_the_tables_hold_what_the_bags_hold(both: tuple[Path, Path]) -> None:
    import pyarrow.parquet

    definitions = BagMessages("/", result_topics("mono"))
    for name in ("first", "second"):
        folder = both[1] / f"bag={name}"
        record = json.loads((folder / "process.json").read_text())
        assert record["sha256"] == json.loads((both[0] / name / "process.json").read_text())["sha256"]
        read = {table: pyarrow.parquet.read_table(folder / f"{table}.parquet") for table in tables.TABLES}
        expected = {
            topic: [deserialize_cdr(definitions.typestore, data, definitions.topics[topic]) for _, data in found]
            for topic, found in messages(both[0] / name).items()
        }
        frames = read["frames"].to_pylist()
        assert [row["frame"] for row in frames] == list(range(IMAGES))
        assert [row["keypoints"] for row in frames] == [one.keypoints for one in expected["/status"]]
        assert [row["reason"] for row in frames] == [one.reason for one in expected["/status"]]
        assert frames[0]["state"] == "FIRST"
        if name == "second":
            assert (frames[3]["state"], frames[3]["extractor"], frames[3]["height"]) == ("ERROR", None, None)
        assert {row["height"] for row in frames} - {None} == {96}

        def column(table: str, names: tuple[str, ...], found: dict[str, Any] = read) -> npt.NDArray[Any]:
            return np.stack([found[table][one].to_numpy(zero_copy_only=False) for one in names], axis=1)

        for table, names, field in (
            ("features", ("x", "y"), "keypoints"),
            ("features", ("score",), "scores"),
            ("matches", ("x0", "y0"), "keypoints0"),
            ("matches", ("index0",), "indices0"),
            ("tracks", ("id",), "ids"),
            ("tracks", ("velocity_x", "velocity_y"), "velocities"),
            ("tracks", ("quality",), "quality"),
        ):
            whole = np.concatenate([getattr(one, field) for one in expected[f"/{table}"]])
            assert np.array_equal(column(table, names).ravel(), whole, equal_nan=True), (table, field)
        rays = column("features", ("ray_x", "ray_y"))
        if name == "first":
            whole = np.concatenate([one.normalized_keypoints for one in expected["/features"]])
            assert np.array_equal(rays.ravel(), whole, equal_nan=True)
        else:
            assert read["features"]["ray_x"].null_count == len(rays) > 0
        descriptor = read["features"].schema.field("descriptor").type
        dim = int(expected["/features"][0].descriptor_dim)
        assert (str(descriptor.value_type), descriptor.list_size) == ("float", dim)
        values = read["features"]["descriptor"].combine_chunks().flatten().to_numpy()
        assert values.tobytes() == b"".join(one.descriptors.tobytes() for one in expected["/features"])
        assert any(value is not None for value in read["matches"]["inlier"].to_pylist())


def test_damage_is_found_when_it_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow (pip install pyarrow)")
    table = tables._Table(tmp_path / "tracks.parquet", "tracks")
    columns = {"frame": np.zeros(500, np.uint32), "stamp_ns": np.arange(500), "x": np.arange(500, dtype=np.float32)}
    table.add(500, columns)
    table.close(whole=True)
    assert table.is_whole()
    content = bytearray((tmp_path / "tracks.parquet").read_bytes())
    content[200] ^= 0xFF
    (tmp_path / "tracks.parquet").write_bytes(content)
    assert not table.is_whole()


def test_the_snippets_of_the_documentation_run(
    both: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas", reason="needs pandas")
    pytest.importorskip("duckdb", reason="needs duckdb")
    text = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    (snippet,) = [one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "duckdb" in one]
    (tmp_path / "features").symlink_to(both[1])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert set(names["tracks"]["bag"]) == {"first", "second"}
    assert [(bag, images > 2) for bag, images in names["longest"]] == [("first", True), ("second", True)]
    assert names["descriptors"].shape[1] > 16
