"""The doctor's checks: of the machine alone, and of a running graph with typical user errors."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import Features, FrameStatus
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from benchmarks.spinning_node import SpinningNode
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.settings import Settings
from feature_frontend.tools.doctor import main
from feature_frontend.tools.doctor.finding import Verdict
from feature_frontend.tools.doctor.lost_images import advice_on, check_stamps_for_loss
from feature_frontend.tools.doctor.machine import check_dds, check_torch, check_weights, segment_bytes
from tests.conftest import REPOSITORY
from tests.ros.harness import RunningNode, wait_until

_PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

_PROFILE = REPOSITORY / "config" / "fastdds_shared_memory.xml"
Rows = dict[str, list[dict[str, str]]]


def _examine(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Rows]:
    """Exit status, and what was found by subject."""
    code = main(["--json", *arguments])
    rows: Rows = {}
    for row in json.loads(capsys.readouterr().out):
        rows.setdefault(row["subject"], []).append(row)
    return code, rows


class TestMachine:
    def test_this_one_is_in_order(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        parameters = tmp_path / "p.yaml"
        parameters.write_text("/**: {ros__parameters: {extractor: silk-vggnp-mu, use_sim_time: false}}")
        code, rows = _examine(capsys, "--no-graph", "--params-file", str(parameters))
        assert code == 0
        for subject in ("Python", "torch", "numpy", "cv2", "ROS 2", "messages", "weights"):
            assert [row["verdict"] for row in rows[subject]] == ["OK"], rows[subject]
        assert "silk-vggnp-mu@a11c5f53, verified" in rows["weights"][0]["text"]

    def test_what_is_reported_is_readable(self, capsys: pytest.CaptureFixture[str]) -> None:
        code = main(["--no-graph"])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("OK    Python")
        assert lines[-1].endswith(f"{code} FAIL")
        assert max(map(len, lines)) <= 120 or any("/" in line for line in lines if len(line) > 120)

    def test_a_broken_parameter_file_is_reported_in_one_line(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        parameters = tmp_path / "p.yaml"
        parameters.write_text("frontend: 7")
        assert main(["--no-graph", "--params-file", str(parameters)]) == 1
        assert "'ros__parameters'" in capsys.readouterr().err

    def test_weights(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
        monkeypatch.delenv("FEATURE_FRONTEND_WEIGHTS", raising=False)
        (missing,) = check_weights(Settings(extractor="aliked-n16"))
        assert (missing.verdict, missing.advice) == (Verdict.WARN, "feature_frontend weights fetch aliked-n16")
        (missing,) = check_weights(Settings(extractor="aliked-n16", fallback_extractor=""))
        assert missing.verdict is Verdict.FAIL
        (none,) = check_weights(Settings(extractor="residual-sift"))
        assert none.verdict is Verdict.FAIL
        assert re.search("train --model residual-sift.*weights_path.*dotlet", none.advice)
        (shipped,) = check_weights(Settings(device="cpu"))
        assert shipped.verdict is Verdict.OK
        assert shipped.text.startswith("dotlet@")
        (nameless,) = check_weights(Settings(weights_path=str(tmp_path / "mine.pth")))
        assert nameless.verdict is Verdict.FAIL
        assert "expected extractor to name the network" in nameless.text
        (tmp_path / "aliked-n16.pth").write_bytes(b"not a network")
        (other,) = check_weights(Settings(extractor="aliked-n16", weights_dir=str(tmp_path)))
        assert other.verdict is Verdict.FAIL
        assert "aliked-n16.pth" in other.text
        (own,) = check_weights(Settings(extractor="aliked-n16", weights_path=str(tmp_path / "aliked-n16.pth")))
        assert own.verdict is Verdict.OK

    def test_shared_memory_of_the_middleware(self, tmp_path: Path) -> None:
        assert segment_bytes(_PROFILE) == 64 << 20
        good = list(check_dds({"FASTRTPS_DEFAULT_PROFILES_FILE": str(_PROFILE), "ROS_DOMAIN_ID": "7"}))
        assert good[0].verdict is Verdict.OK
        assert "domain 7, 64 MiB" in good[0].text
        assert next(check_dds({})).verdict is Verdict.WARN
        assert next(check_dds({"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"})).verdict is Verdict.OK
        small = tmp_path / "small.xml"
        small.write_text(_PROFILE.read_text().replace(str(64 << 20), str(512 << 10)))
        kilted = {"ROS_DISTRO": "kilted"}
        (finding,) = check_dds({"FASTDDS_DEFAULT_PROFILES_FILE": str(small), **kilted})
        assert finding.verdict is Verdict.WARN
        assert next(check_dds({"FASTDDS_DEFAULT_PROFILES_FILE": str(tmp_path), **kilted})).verdict is Verdict.FAIL

    def test_a_profile_by_a_name_that_is_not_read_does_not_count(self) -> None:
        named = {"FASTDDS_DEFAULT_PROFILES_FILE": str(_PROFILE)}
        (finding,) = check_dds({"ROS_DISTRO": "jazzy", **named})
        assert "without a profile" in finding.text
        assert next(check_dds({"ROS_DISTRO": "kilted", **named})).verdict is Verdict.OK

    def test_a_gpu_that_this_torch_cannot_use(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        if torch.version.cuda is not None:
            pytest.skip("this torch has CUDA")
        assert [finding.verdict for finding in check_torch()] == [Verdict.OK, Verdict.OK]
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        assert shutil.which("nvidia-smi") == str(tool)
        assert list(check_torch())[1].verdict is Verdict.WARN

    def test_images_that_it_did_not_get_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        chance, profile = np.random.default_rng(0), "/robot/profile.xml"
        images = [
            Image(header=Header(stamp=stamp_from_ns(index * 50_000_000)), data=bytes(600_000))
            for index in range(100)
            if chance.random() < 0.5
        ]
        # The newer distribution goes by its own variable first, and env.sh sets it there.
        monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
        for name, distribution in zip(_PROFILE_VARIABLES, ("jazzy", "kilted"), strict=True):
            monkeypatch.setenv("ROS_DISTRO", distribution)
            monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", profile)
            warning = check_stamps_for_loss(images, is_best_effort=True)
            assert re.search("images of 5 s .*50 ms", warning)
            advice = advice_on(warning)
            assert f'SetEnvironmentVariable("{name}", "{profile}")' in advice
            assert f"export {name}={profile}" in advice
        assert check_stamps_for_loss(images[:20], is_best_effort=True) == ""
        assert "docs/large_messages.md" in advice_on(check_stamps_for_loss(images, is_best_effort=False))
        assert advice_on("no image yet") == ""
        for variable in _PROFILE_VARIABLES:
            monkeypatch.delenv(variable, raising=False)
        shipped = re.search(r"export \w+=(\S+)", advice_on(warning))
        assert shipped is not None
        assert segment_bytes(Path(shipped[1])) == 64 << 20


class _Camera(SpinningNode):
    """Publishes images and calibrations at 20 Hz until the block ends."""

    def __init__(
        self,
        domain_id: int,
        images: str = "/camera/image_raw",
        *,
        qos: str = "reliable",
        message: Callable[[], object] | None = None,
        info: CameraInfo | None = None,
        stamp_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        namespace = images.rpartition("/")[0]
        super().__init__(namespace.rpartition("/")[2], domain_id)
        self._make = message or (lambda: array_to_image(self._pixels(), "mono8", stamp_from_ns(0), "camera"))
        kind = type(self._make())
        self._images = self.node.create_publisher(kind, images, qos_profile(qos, 5))
        self._infos = self.node.create_publisher(CameraInfo, f"{namespace}/camera_info", qos_profile(qos, 5))
        self._info = info
        self._stamp_ns = stamp_ns
        self._is_over = threading.Event()
        self._publishing = threading.Thread(target=self._publish)
        self._publishing.start()
        self.start()

    @staticmethod
    def _pixels() -> npt.NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)

    def _publish(self) -> None:
        while not self._is_over.wait(0.05):
            message = self._make()
            message.header.stamp = stamp_from_ns(self._stamp_ns())  # type: ignore[attr-defined]
            if self._info is not None:
                self._info.header = message.header  # type: ignore[attr-defined]
                self._infos.publish(self._info)
            self._images.publish(message)

    def __exit__(self, *ended: object) -> None:
        self._is_over.set()
        self._publishing.join()
        super().__exit__(*ended)  # type: ignore[arg-type]


def _info(width: int = 160, baseline_m: float | None = None) -> CameraInfo:
    info = CameraInfo(height=120, width=width, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [100.0, 0.0, 80.0, 0.0, 100.0, 60.0, 0.0, 0.0, 1.0]
    if baseline_m is not None:
        info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        info.p = [100.0, 0.0, 80.0, -100.0 * baseline_m, 0.0, 100.0, 60.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


def _triggered_ns(late_ns: int = 0) -> int:
    """The stamp of cameras that are triggered together, 20 times a second."""
    return time.time_ns() // 50_000_000 * 50_000_000 + late_ns


@pytest.fixture
def look(capsys: pytest.CaptureFixture[str], tmp_path: Path, domain_id: int) -> Callable[..., tuple[int, Rows]]:
    """Runs the doctor in this test's own domain, for a network that is there."""
    parameters = tmp_path / "p.yaml"

    def examine(*arguments: str, **values: str) -> tuple[int, Rows]:
        settings = {"extractor": "silk-vggnp-mu", **values}
        parameters.write_text(json.dumps({"/**": {"ros__parameters": settings}}))
        return _examine(capsys, "--params-file", str(parameters), "--timeout", "2", *arguments)

    return examine


class TestGraph:
    def test_an_empty_one(self, look: Callable[..., tuple[int, Rows]]) -> None:
        code, rows = look()
        assert code == 0
        assert "none is running" in rows["front-end"][0]["text"]
        assert rows["image topic"][0]["verdict"] == "WARN"

    def test_a_good_camera(self, look: Callable[..., tuple[int, Rows]], domain_id: int) -> None:
        with _Camera(domain_id, info=_info()):
            code, rows = look("--image-topic", "/camera/image_raw")
            assert code == 0
            assert {row["verdict"] for row in rows["QoS"] + rows["image"] + rows["camera_info"] + rows["clock"]} == {
                "OK"
            }
            assert "160x120 px" in rows["image"][0]["text"]
            code, rows = look()
            assert code == 1
            assert "/camera/image_raw" in rows["image topic"][0]["advice"]

    def test_what_users_get_wrong(self, look: Callable[..., tuple[int, Rows]], domain_id: int) -> None:
        long_ago = 1_311_868_169_000_000_000
        with _Camera(domain_id, qos="sensor_data", info=_info(width=320), stamp_ns=lambda: long_ago):
            code, rows = look("--image-topic", "/camera/image_raw", image_qos="reliable")
        assert code == 1
        assert rows["QoS"][0]["verdict"] == "FAIL"
        assert "sensor_data" in rows["QoS"][0]["advice"]
        assert rows["camera_info"][0]["verdict"] == "FAIL"
        assert "320x120 px" in rows["camera_info"][0]["text"]
        assert rows["clock"][0]["verdict"] == "WARN"
        assert " behind " in rows["clock"][0]["text"]

    def test_no_calibration_and_no_stamps(self, look: Callable[..., tuple[int, Rows]], domain_id: int) -> None:
        with _Camera(domain_id, stamp_ns=lambda: 0):
            code, rows = look("--image-topic", "/camera/image_raw")
        assert code == 1
        assert (rows["camera_info"][0]["verdict"], rows["clock"][0]["verdict"]) == ("WARN", "FAIL")

    @pytest.mark.parametrize(
        ("message", "subject", "text"),
        [
            (lambda: Image(height=2, width=2, step=2, encoding="nonsense", data=b"1234"), "image", "nonsense"),
            (
                CameraInfo,
                "image topic",
                "sensor_msgs/msg/CameraInfo.* sensor_msgs/msg/Image",
            ),
        ],
    )
    def test_images_that_cannot_be_used(
        self,
        look: Callable[..., tuple[int, Rows]],
        domain_id: int,
        message: Callable[[], object],
        subject: str,
        text: str,
    ) -> None:
        with _Camera(domain_id, message=message):
            code, rows = look("--image-topic", "/camera/image_raw")
        assert code == 1
        assert rows[subject][0]["verdict"] == "FAIL"
        assert re.search(text, rows[subject][0]["text"])

    @pytest.mark.alone  # both must take every trigger
    def test_two_cameras(self, look: Callable[..., tuple[int, Rows]], domain_id: int) -> None:
        left = _Camera(domain_id, "/left/image", info=_info(baseline_m=0.0), stamp_ns=_triggered_ns)
        right = _Camera(domain_id, "/right/image", info=_info(baseline_m=0.1), stamp_ns=_triggered_ns)
        with left, right:
            code, rows = look(camera_type="stereo")
        has_filters = importlib.util.find_spec("message_filters") is not None
        assert code == int(not has_filters)
        assert [row["verdict"] for row in rows["stereo"]] == ["OK" if has_filters else "FAIL", "OK", "OK"]
        assert "left images have a right one" in rows["stereo"][1]["text"]
        assert "baseline of 0.1 m" in rows["stereo"][2]["text"]
        for subject in ("image", "camera_info", "clock"):
            assert [(row["verdict"], row["text"].split(": ")[0]) for row in rows[subject]] == [
                ("OK", "left"),
                ("OK", "right"),
            ]
        assert [row["text"].split(":")[0] for row in rows["QoS"]] == ["/left/image", "/right/image"]

    def test_what_is_wrong_with_the_other_camera(self, look: Callable[..., tuple[int, Rows]], domain_id: int) -> None:
        left = _Camera(domain_id, "/rig/a/image", info=_info(baseline_m=0.0), stamp_ns=_triggered_ns)
        right = _Camera(domain_id, "/rig/b/image", info=_info(width=320), stamp_ns=lambda: _triggered_ns(20_000_000))
        with left, right:
            code, rows = look("--image-topic", "/rig/a/image", "/rig/b/image")
        assert code == 1
        assert [row["verdict"] for row in rows["camera_info"]] == ["OK", "FAIL"]
        assert "320x120 px" in rows["camera_info"][1]["text"]
        _, stamps, rig = rows["stereo"]
        assert stamps["verdict"] == rig["verdict"] == "FAIL"
        assert re.search("20.000 ms .*stereo_slop_ms is 10", stamps["text"])
        assert re.search("stereo_matches .*points.* camera_info", rig["text"])

    def test_two_of_one_name(self, look: Callable[..., tuple[int, Rows]], domain_id: int) -> None:
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(_Camera(domain_id, info=_info()))
                frontend = stack.enter_context(SpinningNode("frontend", domain_id))
                for kind, topic in ((FrameStatus, "status"), (Features, "features")):
                    frontend.node.create_publisher(kind, topic, 1)
                frontend.start()
            _, rows = look("--image-topic", "/camera/image_raw")
        (name,) = [row for row in rows["front-end"] if "are named" in row["text"]]
        effect = "their results mix on /features, and parameters and services reach any of them"
        assert (name["verdict"], name["text"]) == ("WARN", f"2 nodes are named /frontend: {effect}")
        assert "`namespace:=NAME` (camera.launch.py)" in name["advice"]
        assert len(rows["front-end"]) == 2
        (cameras,) = rows["image topic"]
        assert (cameras["verdict"], cameras["text"]) == ("WARN", "2 publish /camera/image_raw: /camera, /camera")

    @pytest.mark.slow
    def test_a_running_front_end_says_which_topics_are_meant(
        self, look: Callable[..., tuple[int, Rows]], domain_id: int
    ) -> None:
        node = RunningNode(
            domain_id,
            "extractor:=silk-vggnp-mu",
            "use_sim_time:=true",
            arguments=(
                "-r",
                "image:=/camera/image_raw",
                "-r",
                "camera_info:=/camera/camera_info",
                "-r",
                "__ns:=/front",
            ),
        )
        with node, _Camera(domain_id, info=_info()) as camera:
            wait_until(lambda: camera.node.count_publishers("/front/status") > 0, "the node")
            code, rows = look()
        assert code == 1
        assert rows["front-end"] == [
            {
                "verdict": "OK",
                "subject": "front-end",
                "text": "/front/frontend is running and takes images from /camera/image_raw",
                "advice": "",
            }
        ]
        assert re.search("use_sim_time.* /clock", rows["clock"][0]["text"])
        assert rows["camera_info"][0]["verdict"] == "OK"
        assert "fits /front/frontend" in rows["QoS"][0]["text"]
        assert "front/frontend: " in rows["diagnostics"][0]["text"]

    @pytest.mark.slow
    def test_a_running_stereo_front_end_says_which_topics_are_meant(
        self, look: Callable[..., tuple[int, Rows]], domain_id: int
    ) -> None:
        pytest.importorskip("message_filters", reason="needs message_filters (ROS 2)")
        rules = [
            f"{side}/{name}:=/rig/{side}/{name}" for side in ("right", "left") for name in ("image", "camera_info")
        ]
        node = RunningNode(
            domain_id,
            "extractor:=silk-vggnp-mu",
            "camera_type:=stereo",
            "stereo_slop_ms:=4.0",
            arguments=[part for rule in rules for part in ("-r", rule)],
        )
        left = _Camera(domain_id, "/rig/left/image", info=_info(baseline_m=0.0), stamp_ns=_triggered_ns)
        right = _Camera(
            domain_id, "/rig/right/image", info=_info(baseline_m=0.1), stamp_ns=lambda: _triggered_ns(5_000_000)
        )
        with node, left, right:
            wait_until(lambda: left.node.count_publishers("/status") > 0, "the node")
            code, rows = look()
        assert code == 1
        assert [row["text"].rpartition(" ")[2] for row in rows["front-end"]] == ["/rig/left/image", "/rig/right/image"]
        assert [row["verdict"] for row in rows["camera_info"]] == ["OK", "OK"]
        assert re.search("5.000 ms .*stereo_slop_ms is 4", rows["stereo"][0]["text"])
        assert "baseline of 0.1 m" in rows["stereo"][1]["text"]
