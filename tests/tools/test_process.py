"""`process`: real inputs through the shipped network into bags, read back by the library and by ROS."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from ament_index_python.packages import get_package_share_directory
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from std_msgs.msg import Header

from feature_frontend.camera.camera_info_history import CalibrationWatch
from feature_frontend.geometry.rays import MissedTracks, RayMemory, rays_of_tracks
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.ros.output.messages import Origin, encode_features, encode_matches, encode_tracks
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.settings import Settings
from feature_frontend.sources import SourceOptions, open_source
from feature_frontend.tools.common.arguments import INCOMPLETE
from feature_frontend.tools.process import main
from tests.ros.contract import check_contract
from tests.tools.offline import (
    OPTIONS,
    SECOND,
    camera_info,
    files,
    header,
    image,
    messages,
    moving,
    write_bag,
)

Photographs = list[npt.NDArray[np.uint8]]
KINDS = {"features": Features, "matches": Matches, "tracks": Tracks, "status": FrameStatus}
TWENTY = 20


@pytest.fixture(scope="module")
def bag(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 colour images at 10 Hz; the calibration changes before image 10, and comes a little after its image."""
    contents: list[tuple[str, int, Any]] = []
    for index in range(TWENTY):
        stamp_ns = 100 * SECOND + index * SECOND // 10
        info = camera_info(stamp_ns, 120.0 if index < 10 else 140.0)
        contents.append(("/left/image_raw", stamp_ns + 1000, image(stamp_ns, moving(photographs, index), "rgb8")))
        contents.append(("/left/camera_info", stamp_ns + 2000, info))
    return write_bag(tmp_path_factory.mktemp("input") / "drive", contents)


@pytest.fixture(scope="module")
def output(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tool makes of it."""
    path = tmp_path_factory.mktemp("output") / "features"
    assert main([str(bag), "-o", str(path), *OPTIONS]) == 0
    return path


def read(bag: Path, namespace: str = "") -> dict[str, list[Any]]:
    """The messages as ROS reads them, by topic."""
    contents = messages(bag)
    assert set(contents) == {f"{namespace}/{name}" for name in KINDS}
    return {
        name: [deserialize_message(data, kind) for _, data in contents[f"{namespace}/{name}"]]
        for name, kind in KINDS.items()
    }


def bits(message: Any) -> list[Any]:
    """The fields of a message, to be compared with NaN among them."""
    values = [getattr(message, name) for name in message.get_fields_and_field_types()]
    return [value.tobytes() if hasattr(value, "tobytes") else value for value in values]


def test_a_lack_of_memory_is_reported_and_costs_no_image(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process, calls = Frontend.process, []

    def run_out_once(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            msg = "DefaultCPUAllocator: can't allocate memory"
            raise RuntimeError(msg)
        return process(*arguments, **options)

    monkeypatch.setattr(Frontend, "process", run_out_once)
    assert main([str(bag), "-o", str(tmp_path / "out"), *OPTIONS]) == 0
    statuses = read(tmp_path / "out")["status"]
    assert {status.state for status in statuses[1:]} == {FrameStatus.OK}
    assert "memory ran out" in statuses[2].reason
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "memory ran out" in line]
    assert told.startswith("warning: ")
    assert "image 2: " in told


def test_every_image_has_its_messages_and_times_are_those_of_the_headers(output: Path) -> None:
    contents = messages(output)
    assert {topic: len(found) for topic, found in contents.items()} == {
        "/features": TWENTY,
        "/matches": TWENTY,
        "/tracks": TWENTY,
        "/status": TWENTY,
    }
    stamps = [100 * SECOND + index * SECOND // 10 for index in range(TWENTY)]
    for messages_of_topic in contents.values():
        assert [time_ns for time_ns, _ in messages_of_topic] == stamps
    found = read(output)
    for kind in found.values():
        in_headers = [message.header.stamp.sec * SECOND + message.header.stamp.nanosec for message in kind]
        assert in_headers == stamps
        assert {message.header.frame_id for message in kind} == {"left_optical"}
    assert [status.state for status in found["status"]] == [1] + [0] * (TWENTY - 1)
    assert [status.frames_processed for status in found["status"]] == list(range(1, TWENTY + 1))
    assert found["status"][-1].input_rate_hz == pytest.approx(10.0)
    times = [name for name in FrameStatus.get_fields_and_field_types() if name.endswith("_ms")]
    assert {getattr(status, name) for status in found["status"] for name in times} == {0.0}
    # The camera moves by 3 px an image: tracks live, and say how fast.
    assert np.median(np.frombuffer(found["tracks"][-1].ages, np.uint32)) > 5
    assert np.median(np.reshape(found["tracks"][-1].velocities, (-1, 2))[:, 0]) == pytest.approx(-30, abs=3)


def test_the_messages_are_those_that_the_node_encodes(bag: Path, output: Path) -> None:
    options = {"extractor": "silk-vggnp-mu", "max_num_keypoints": 100, "tracker": "chain"}
    settings = Settings.from_mapping({**options, "compile": False, "device": "cpu"})
    frontend, watch = Frontend.from_pretrained(settings), CalibrationWatch()
    found, memory = read(output), RayMemory()
    run_id = json.loads((output / "process.json").read_text())["run_id"]
    with AnyReader([bag]) as reader:
        infos = [c for c in reader.connections if c.topic == "/left/camera_info"]
        for connection, _, data in reader.messages(connections=infos):
            watch.take(reader.deserialize(data, connection.msgtype))
    for index, frame in enumerate(open_source(str(bag), SourceOptions()).frames()):
        result = frontend.process(frame.image, frame.stamp_ns)
        origin = Origin(Header(stamp=stamp_from_ns(frame.stamp_ns), frame_id=frame.frame_id), run_id)
        normalized = watch.normalize(result.features, frame.stamp_ns, 0, rectified=False)
        assert normalized is not None
        rays = memory.of_matches(result, normalized, frame.stamp_ns)
        assert found["features"][index] == encode_features(origin, result.features, normalized, "float32")
        of_tracks = rays_of_tracks(result, normalized, rays, MissedTracks.of(result))
        assert bits(found["tracks"][index]) == bits(encode_tracks(origin, result, of_tracks))
        assert found["matches"][index] == encode_matches(origin, result, rays)
    assert check_contract(*(found[name][:10] for name in KINDS), "chain") == 9
    assert [status.reason for status in found["status"] if status.reason] == [
        "camera_info has changed: the new calibration is in use"
    ]


def test_the_messages_of_the_persistent_tracker_fit_together(bag: Path, tmp_path: Path) -> None:
    count = ["--count", "10"]
    assert main([str(bag), "-o", str(tmp_path / "out"), *OPTIONS, *count, "--tracker", "persistent"]) == 0
    found = read(tmp_path / "out")
    assert check_contract(*(found[name] for name in KINDS), "persistent") == 9
    for tracks in found["tracks"]:
        # Behind a gap, too.
        is_old = np.array(tracks.ages) > 1
        assert np.isfinite(np.array(tracks.normalized_velocities).reshape(-1, 2)[is_old]).all()
        # But for the distortion, they are the velocities in the image by the focal length.
        scaled = np.array(tracks.velocities).reshape(-1, 2) / found["status"][0].fx
        np.testing.assert_allclose(np.array(tracks.normalized_velocities).reshape(-1, 2), scaled, rtol=0.1, atol=0.01)
    assert max(max(tracks.gaps) for tracks in found["tracks"]) > 0


def test_the_run_is_named_by_the_content_of_the_input_and_the_settings(
    photographs: Photographs, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        for index in range(2):
            cv2.imwrite(str(folder / f"{index}.png"), moving(photographs, index))

    def run_id(folder: Path, *arguments: str) -> int:
        assert main([str(folder), "-o", str(tmp_path / "out"), "--overwrite", *OPTIONS, *arguments]) == 0
        found = read(tmp_path / "out")
        (name,) = {message.run_id for of_topic in found.values() for message in of_topic}
        return int(name)

    first = run_id(folders[0])
    assert run_id(folders[1], "--storage", "mcap", "--threads", "1") == first
    assert run_id(folders[0], "--min-similarity", "0.5") != first
    assert run_id(folders[0], "--start", "1") != first
    cv2.imwrite(str(folders[1] / "1.png"), moving(photographs, 5))
    assert run_id(folders[1]) != first


def test_tracks_of_two_runs_in_one_bag_are_distinguished(bag: Path, tmp_path: Path) -> None:
    """As where the node was restarted while it was recorded: ids and even stamps come twice."""
    from feature_frontend.tools.common.bag_writer import BagWriter, typestore_with
    from feature_frontend_lab.export.recorded_features import read_features

    outputs = []
    for number in range(2):
        outputs.append(tmp_path / f"run{number}")
        options = [*OPTIONS, "--count", str(2 + number)]
        assert main([str(bag), "-o", str(outputs[-1]), *options]) == 0
    kinds = {f"/{name}": f"feature_frontend_msgs/msg/{name.title()}" for name in ("features", "tracks")}
    with BagWriter(
        tmp_path / "both", "mcap", typestore_with(set(kinds.values()), get_package_share_directory)
    ) as writer:
        for topic, kind in kinds.items():
            writer.add_topic(topic, kind)
        for output in outputs:
            for topic in kinds:
                for time_ns, data in messages(output)[topic]:
                    writer.write(topic, time_ns, data)
    count, records = read_features(tmp_path / "both", None, [])
    ids = [set(record.track_ids.tolist()) for record in records]
    assert count == len(ids) == 5
    by_run = sorted(ids, key=lambda of_image: min(of_image) > 1 << 40)
    assert not set.union(*by_run[:2]) & set.union(*by_run[2:])
    assert all(len(of_image) == 100 for of_image in ids)
    assert len(by_run[0] & by_run[1]) > 20


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_twice_gives_the_same_files(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], storage: str
) -> None:
    printed, threads = [], torch.get_num_threads()
    for name in ("first", "second"):
        assert main([str(bag), "-o", str(tmp_path / name), "--storage", storage, "--threads", "3", *OPTIONS]) == 0
        # Who called goes on with its own number.
        assert torch.get_num_threads() == threads
        printed.append(capsys.readouterr().out.splitlines()[-1])
    first = files(tmp_path / "first")
    assert first == files(tmp_path / "second")
    assert set(first) == {f"frontend.{'db3' if storage == 'sqlite3' else 'mcap'}", "metadata.yaml", "process.json"}
    record = json.loads((tmp_path / "first" / "process.json").read_text())
    assert printed == [f"sha256 {record['sha256']}"] * 2
    assert record["settings"]["max_num_keypoints"] == 100
    assert not list(tmp_path.glob("*.unfinished"))


def test_the_hash_is_of_what_is_in_the_bag_whatever_its_storage(bag: Path, output: Path, tmp_path: Path) -> None:
    assert main([str(bag), "-o", str(tmp_path / "other"), "--storage", "mcap", *OPTIONS]) == 0
    hashes = {json.loads((path / "process.json").read_text())["sha256"] for path in (output, tmp_path / "other")}
    assert len(hashes) == 1
    assert messages(output) == messages(tmp_path / "other")
    with AnyReader([tmp_path / "other"]) as reader:
        # Without any definition of its own: those in the bag.
        for connection, _, data in reader.messages():
            message: Any = reader.deserialize(data, connection.msgtype)
            assert message.header.frame_id == "left_optical"
        assert {c.ext.offered_qos_profiles[0].reliability.name for c in reader.connections} == {"RELIABLE"}


def test_a_bad_image_has_a_status_and_the_others_go_on(photographs: Photographs, tmp_path: Path) -> None:
    good = [moving(photographs, index) for index in range(4)]
    contents: list[tuple[str, int, Any]] = [
        ("/cam/image", (n + 1) * SECOND, image((n + 1) * SECOND, pixels, "rgb8")) for n, pixels in enumerate(good)
    ]
    contents[1][2].encoding = "rainbow"
    contents[2][2].height = 5000
    bag = write_bag(tmp_path / "bag", contents)
    assert main([str(bag), "-o", str(tmp_path / "out"), *OPTIONS]) == 0
    found = read(tmp_path / "out")
    assert [status.state for status in found["status"]] == [1, 4, 4, 0]
    assert "'rainbow'" in found["status"][1].reason
    assert "5000 rows of 384 bytes" in found["status"][2].reason
    assert found["status"][3].frames_refused == 2
    assert len(found["features"]) == 2
    assert [message.stamp0.sec for message in found["matches"]] == [1, 1]


def test_a_damaged_message_is_a_bad_image(photographs: Photographs, tmp_path: Path) -> None:
    from rosbags.rosbag2 import Writer

    from tests.tools.offline import STORE

    kind = "sensor_msgs/msg/Image"
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/image", kind, typestore=STORE)
        for index in range(3):
            message = image((index + 1) * SECOND, moving(photographs, index), "rgb8")
            data = bytes(STORE.serialize_cdr(message, kind))
            writer.write(connection, (index + 1) * SECOND, data[:40] if index == 1 else data)
    assert main([str(tmp_path / "bag"), "-o", str(tmp_path / "out"), *OPTIONS]) == INCOMPLETE
    status = read(tmp_path / "out")["status"]
    assert [one.state for one in status] == [1, 4, 0]
    assert "image 1 of /image: " in status[1].reason


def test_encodings_and_compressed_images(photographs: Photographs, tmp_path: Path) -> None:
    grey = cv2.cvtColor(moving(photographs, 0), cv2.COLOR_RGB2GRAY)
    outputs = {}
    for name, encoding, pixels in (("mono8", "mono8", grey), ("mono16", "mono16", grey.astype(np.uint16) * 257)):
        contents = [("/image", SECOND, image(SECOND, pixels, encoding))]
        bag = write_bag(tmp_path / name, contents)
        assert main([str(bag), "-o", str(tmp_path / f"out_{name}"), *OPTIONS, "--intensity-range", "full"]) == 0
        outputs[name] = read(tmp_path / f"out_{name}")["features"][0]
    assert outputs["mono16"].keypoints == outputs["mono8"].keypoints

    kind = "sensor_msgs/msg/CompressedImage"
    from tests.tools.offline import TYPES

    encoded = cv2.imencode(".png", grey)[1].ravel()
    compressed = TYPES[kind](header(SECOND), "mono8; png compressed mono8", encoded)
    broken = TYPES[kind](header(2 * SECOND), "mono8; png compressed mono8", encoded[:100])
    bag = write_bag(
        tmp_path / "png", [("/image/compressed", SECOND, compressed), ("/image/compressed", SECOND, broken)]
    )
    assert main([str(bag), "-o", str(tmp_path / "out_png"), *OPTIONS]) == INCOMPLETE
    found = read(tmp_path / "out_png")
    outputs["mono8"].run_id = found["features"][0].run_id  # of another input
    assert found["features"] == [outputs["mono8"]]
    assert [status.state for status in found["status"]] == [1, 4]


def test_a_folder_with_a_broken_file(photographs: Photographs, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), moving(photographs, index)[..., ::-1])
    (folder / "2.png").write_bytes(b"no image")
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(
        "image_width: 128\nimage_height: 96\n"
        "camera_matrix: {rows: 3, cols: 3, data: [120.0, 0, 64.0, 0, 120.0, 48.0, 0, 0, 1]}\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n"
    )
    arguments = ["--rate", "20", "--namespace", "robot", "--frame-id", "eye", "--camera-info", str(calibration)]
    assert main([str(folder), "-o", str(tmp_path / "out"), *OPTIONS, *arguments]) == 0
    found = read(tmp_path / "out", "/robot")
    assert [status.state for status in found["status"]] == [1, 0, 4, 0]
    assert re.match("2.png: .* 8 bytes .* 6e 6f 20 69 6d 61 67 65.* JPEG", found["status"][2].reason)
    assert [status.header.stamp.nanosec for status in found["status"]] == [0, 50_000_000, 100_000_000, 150_000_000]
    features = found["features"][0]
    assert features.header.frame_id == "eye"
    keypoints = np.reshape(features.keypoints, (-1, 2))
    expected = (keypoints - [64, 48]) / 120
    np.testing.assert_allclose(np.reshape(features.normalized_keypoints, (-1, 2)), expected, atol=1e-6)


def test_a_video_and_a_choice_of_its_frames(photographs: Photographs, tmp_path: Path) -> None:
    video = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (128, 96))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    for index in range(6):
        writer.write(np.ascontiguousarray(moving(photographs, index)[..., ::-1]))
    writer.release()
    assert main([str(video), "-o", str(tmp_path / "out"), *OPTIONS, "--start", "1", "--count", "3"]) == 0
    found = read(tmp_path / "out")
    assert [len(found[name]) for name in KINDS] == [3, 3, 3, 3]
    stamps_s = [status.header.stamp.sec + status.header.stamp.nanosec / SECOND for status in found["status"]]
    assert stamps_s == pytest.approx([0.1, 0.2, 0.3], abs=0.02)


def test_a_mask_and_what_is_published(bag: Path, tmp_path: Path) -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[:, :64] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    (tmp_path / "params.yaml").write_text(
        "/**:\n  ros__parameters:\n    descriptor_type: float16\n    publish_tracks: false\n    use_sim_time: true\n"
    )
    arguments = ["--mask-path", str(tmp_path / "mask.png"), "--params-file", str(tmp_path / "params.yaml")]
    assert main([str(bag), "-o", str(tmp_path / "out"), "--count", "2", *OPTIONS, *arguments]) == 0
    found = read(tmp_path / "out")
    for features in found["features"]:
        assert features.count > 20
        assert np.reshape(features.keypoints, (-1, 2))[:, 0].max() < 64
        assert features.descriptor_type == Features.FLOAT16
    assert found["tracks"] == []
    assert math.isnan(found["status"][0].inlier_ratio)


def test_what_is_there_is_not_overwritten(
    bag: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")
    for arguments, expected in (
        ([], "exists already; delete it"),
        (["--overwrite"], "is not overwritten: it is no bag"),
    ):
        assert main([str(bag), "-o", str(tmp_path / "mine"), *OPTIONS, *arguments]) == 1
        assert f"error: {tmp_path / 'mine'} {expected}" in capsys.readouterr().err
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep"
    before = files(output)
    assert main([str(bag), "-o", str(output), *OPTIONS, "--count", "3"]) == 1
    assert "made with other options" in capsys.readouterr().err
    # The very same run is not done again, unless asked for.
    assert main([str(bag), "-o", str(output), *OPTIONS]) == 0
    assert "was finished before, by the same command" in capsys.readouterr().out
    copy = tmp_path / "copy"
    assert main([str(bag), "-o", str(copy), *OPTIONS, "--count", "3"]) == 0
    assert main([str(bag), "-o", str(copy), *OPTIONS, "--overwrite"]) == 0
    assert files(copy) == files(output) == before
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere", "-o", "out"], "folder nowhere"),
        (["webcam:0", "-o", "out"], "webcam:0"),
        (["BAG", "-o", "out", "--topic", "/right"], "'/right'"),
        (["BAG", "-o", "out", "--start", "20"], "nothing to process"),
        (["BAG", "-o", "BAG"], "exists already"),
        (["BAG", "-o", "BAG", "--overwrite"], "is the input itself"),
        (["BAG", "-o", "out", "--mask-path", "nowhere.png"], "mask_path is 'nowhere.png'"),
        (["BAG", "-o", "out", "--mask-topic", "true"], "mask_topic is True"),
        (["BAG", "-o", "out", "--camera-type", "stereo"], "camera_type is 'stereo'"),
        (["BAG", "-o", "out", "--params-file", "nowhere.yaml"], "'nowhere.yaml'"),
        (["BAG", "BAG", "-o", "out"], "would both go to"),
    ],
)
def test_wrong_options_are_reported_in_a_line(
    bag: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(bag) if argument == "BAG" else argument for argument in arguments] + list(OPTIONS)) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("error") == 1
    assert expected in printed
    assert not list(tmp_path.iterdir())
