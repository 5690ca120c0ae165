"""Both packages as wheels, installed without a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

import feature_frontend_msgs

from tests.conftest import REPOSITORY

_PACKAGES = ("feature_frontend", "feature_frontend_lab")
_TOOLS = """
import contextlib, io, json, sys
from feature_frontend.__main__ import LAB_TOOLS, TOOLS, main
said = {}
for name in (*TOOLS, *LAB_TOOLS):
    if name == "frontend":
        continue  # rclpy, not argparse, reads the node's arguments
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([name, "--help"])
    said[name] = text.getvalue()
assert all(text.startswith("usage:") for text in said.values()), said
assert main(["process", "images", "-o", "features", "--extractor", "silk-vggnp-mu"]) == 0
import numpy
from feature_frontend import Frontend
frontend = Frontend.from_pretrained(extractor="silk-vggnp-mu", compile=False, max_num_keypoints=50)
image = numpy.random.default_rng(0).integers(0, 256, (96, 128), dtype=numpy.uint8)
first, second = frontend.process(image, 0), frontend.process(image, 10**8)
import feature_frontend, feature_frontend_lab
print(json.dumps([feature_frontend.__file__, feature_frontend_lab.__file__, len(second.matches), sorted(said)]))
"""


@pytest.mark.slow
def test_wheels_work_without_the_checkout(tmp_path: Path, photographs: list[npt.NDArray[np.uint8]]) -> None:
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    for package in _PACKAGES:
        # A copy: building leaves files beside the source.
        source = tmp_path / package
        ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(REPOSITORY / "ros2_ws" / "src" / package, source, ignore=ignored)
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
    _pip("install", "--no-deps", "--no-compile", "--target", str(site), *map(str, wheels.glob("*.whl")))
    room = tmp_path / "room"
    (room / "images").mkdir(parents=True)
    for index in range(2):
        cv2.imwrite(str(room / "images" / f"{index}.png"), photographs[0][:96, index * 4 : 128 + index * 4])
    # Their dependencies, the generated messages among them, and nothing else.
    messages = Path(str(feature_frontend_msgs.__file__)).parents[1]
    path = [site, messages, sysconfig.get_paths()["purelib"]]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
    ended = subprocess.run(
        [sys.executable, "-c", _TOOLS], cwd=room, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    *homes, matches, tools = json.loads(ended.stdout.splitlines()[-1])
    assert [Path(home).parents[1] for home in homes] == [site, site]
    assert matches > 0
    assert {"process", "evaluate", "train", "demo", "export"} <= set(tools)
    assert (room / "features" / "metadata.yaml").is_file()


def _pip(*arguments: str) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *options], check=True, capture_output=True)
