"""`process` killed and restarted: the same files as undisturbed, without repeating finished work.

Kills at any moment are in `test_process_faults.py`.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")

from feature_frontend.errors import FeatureFrontendError
from feature_frontend.extractors import automatic
from feature_frontend.models.weights import WEIGHTS_VARIABLE
from feature_frontend.tools.process import run
from feature_frontend.tools.process.command import main
from feature_frontend.tools.process.progress_store import ProgressStore
from tests.core.seeded import save_lightglue, seeded_network, seeded_residual
from tests.tools.offline import OPTIONS, SECOND, camera_info, command, files, image, moving, write_bag

Photographs = list[npt.NDArray[np.uint8]]
TIMEOUT_S = 120.0
IMAGES = 12
PIECES = ("--tracker", "persistent", "--piece-seconds", "4")
# Runs the tool, commits behind every image, and kills itself by SIGKILL inside the given call of a method.
KILLED = """
import os, signal, sys
from feature_frontend.tools.common.bag_writer import BagWriter
from feature_frontend.tools.process import main, output, run
from feature_frontend.tools.process.progress_store import ProgressStore
run.COMMIT_PERIOD_S = 0.0
owner, name, left = {owner}, {name!r}, [{call}]
method = getattr(owner, name)
def call(*arguments, **options):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return method(*arguments, **options)
setattr(owner, name, call)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def bag(photographs: Photographs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images, two of them bad, with a calibration that changes."""
    contents = []
    for index in range(IMAGES):
        stamp_ns = (index + 1) * SECOND
        message = image(stamp_ns, moving(photographs, index), "rgb8")
        if index in {3, 8}:
            message.encoding = "rainbow"
        contents.append(("/cam/image", stamp_ns, message))
        contents.append(("/cam/camera_info", stamp_ns + 5, camera_info(stamp_ns, 120.0 + 20 * (index > 5))))
    return write_bag(tmp_path_factory.mktemp("input") / "drive", contents)


@pytest.fixture(scope="module")
def undisturbed(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the files that a run makes that nobody disturbs."""
    path = tmp_path_factory.mktemp("output") / "features"
    assert main([str(bag), "-o", str(path), *OPTIONS]) == 0
    return files(path)


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def killed(owner: str, name: str, call: int, *arguments: object) -> None:
    script = KILLED.format(owner=owner, name=name, call=call)
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "calls", "more"),
    [
        ("ProgressStore", "add", (9, 14), PIECES),  # between two messages of one image, in the first and second piece
        ("ProgressStore", "commit", (IMAGES + 1,), ()),  # with all images done, before the last step is written
        ("BagWriter", "write", (7,), ()),  # while the bag is written
        ("output.Output", "clear", (1,), ()),  # with the bag in its place
    ],
)
def test_killed_and_started_again_gives_the_same_files(
    bag: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    owner: str,
    name: str,
    calls: tuple[int, ...],
    more: tuple[str, ...],
) -> None:
    output = tmp_path / "features"
    for call in calls:
        killed(owner, name, call, bag, "-o", output, *OPTIONS, *more)
        assert output.exists() == (name == "clear")
    assert main([str(bag), "-o", str(output), *OPTIONS, *more]) == 0
    if more:
        assert main([str(bag), "-o", str(tmp_path / "whole"), *OPTIONS, *more[:2]]) == 0
        undisturbed = files(tmp_path / "whole")
    assert files(output) == undisturbed
    assert not list(tmp_path.glob("*.unfinished"))


def interrupted_at_eighth_image(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """A run that commits behind every image, up to Ctrl-C with the eighth one's status."""
    add, added = ProgressStore.add, []

    def stop_at_eighth_status(store: ProgressStore, topic: str, time_ns: int, data: bytes) -> None:
        add(store, topic, time_ns, data)
        added.append(topic)
        if added.count("/status") == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "COMMIT_PERIOD_S", 0.0)
        patched.setattr(ProgressStore, "add", stop_at_eighth_status)
        assert main([*map(str, arguments)]) == 130


@pytest.mark.parametrize("more", [(), PIECES[:2], PIECES], ids=["chain", "persistent", "pieces"])
def test_what_was_done_is_not_done_again(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    options = [*OPTIONS, *more]
    assert main([str(bag), "-o", str(tmp_path / "undisturbed"), *OPTIONS, *more[:2]]) == 0
    output = tmp_path / "features"
    interrupted_at_eighth_image(monkeypatch, bag, "-o", output, *options)
    processed = []
    process_image = run._Run.process
    monkeypatch.setattr(
        run._Run, "process", lambda self, image: (processed.append(image.found.index), process_image(self, image))[1]
    )
    assert main([str(bag), "-o", str(output), *options]) == 0
    assert processed == list(range(7, IMAGES))
    assert files(output) == files(tmp_path / "undisturbed")


@pytest.mark.parametrize("pieces", [(), PIECES[2:]], ids=["whole", "pieces"])
def test_auto_stays_what_it_was_when_the_run_began(
    bag: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pieces: tuple[str, ...],
) -> None:
    options: tuple[str, ...] = ("--extractor", "auto", *OPTIONS[2:], "--tracker", "auto")
    assert main([str(bag), "-o", str(tmp_path / "undisturbed"), *options]) == 0
    options += pieces
    output = tmp_path / "features"
    interrupted_at_eighth_image(monkeypatch, bag, "-o", output, *options)
    assert re.search(r"extractor auto is dotlet@\w+ on cpu; tracker auto is persistent\n", capsys.readouterr().err)
    # A GPU has come.
    monkeypatch.setattr(automatic, "resolve_device", lambda _name: torch.device("cuda", 0))
    monkeypatch.setattr(automatic, "ensure_weights", lambda *_: None)
    for _ in range(2):
        assert main([str(bag), "-o", str(output), *options]) == 0
        assert files(output) == files(tmp_path / "undisturbed")
    recorded = json.loads((output / "process.json").read_text())["settings"]
    assert (recorded["extractor"], recorded["tracker"]) == ("dotlet", "persistent")
    assert "extractor auto" not in capsys.readouterr().err
    # By the names that were recorded it is the same work, by another one it is not.
    for tracker, status in (("persistent", 0), ("chain", 1)):
        named = ("--extractor", "dotlet", *OPTIONS[2:], "--tracker", tracker)
        assert main([str(bag), "-o", str(output), *named]) == status
    assert "it differs in settings.tracker" in capsys.readouterr().err


def test_lightglue_continues_with_its_own_weights(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kornia", reason="needs kornia (pip install kornia==0.9.0; make benchmark does)")
    extractor, matcher = tmp_path / "extractor.pth", tmp_path / "matcher.pth"
    torch.save(seeded_network("aliked-n16").state_dict(), extractor)
    save_lightglue(matcher)
    options = ("--extractor", "aliked-n16", "--weights-path", extractor, "--matcher", "lightglue", *OPTIONS[2:])
    options += ("--lightglue-weights-path", matcher, "--lightglue-threshold", 0.0)
    assert main([*map(str, (bag, "-o", tmp_path / "undisturbed", *options))]) == 0
    output = tmp_path / "features"
    interrupted_at_eighth_image(monkeypatch, bag, "-o", output, *options)
    state = (output.with_name("features.unfinished") / "progress.db").stat().st_size
    assert state < matcher.stat().st_size, "the network is no part of the state"
    save_lightglue(matcher, seed=1)
    assert main([*map(str, (bag, "-o", output, *options))]) == 1
    assert "files_sha256.lightglue_weights_path;" in capsys.readouterr().err
    save_lightglue(matcher)
    assert main([*map(str, (bag, "-o", output, *options))]) == 0
    assert files(output) == files(tmp_path / "undisturbed")
    assert json.loads((output / "process.json").read_text())["messages"]["/matches"] == IMAGES - 2


def test_what_was_begun_with_weights_that_are_gone_stays_as_it_is(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output, options = (
        tmp_path / "weights",
        tmp_path / "features",
        ("--extractor", "residual-sift", *OPTIONS[2:]),
    )
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(folder))
    save_file(seeded_residual().state_dict(), folder / "residual-sift.safetensors")
    interrupted_at_eighth_image(monkeypatch, bag, "-o", output, *options)
    (folder / "residual-sift.safetensors").unlink()
    begun = files(output.with_name("features.unfinished"))
    for how in ((), ("--update",), ("--overwrite",)):
        assert main([str(bag), "-o", str(output), *options, *how]) == 1
        assert "no published weights of residual-sift" in capsys.readouterr().err
        assert files(output.with_name("features.unfinished")) == begun


def test_another_run_does_not_go_on_with_it(
    bag: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "features"
    with monkeypatch.context() as patched:
        patched.setattr(run._Run, "end", interrupt)
        assert main([str(bag), "-o", str(output), *OPTIONS]) == 130
    assert main([str(bag), "-o", str(output), *OPTIONS, "--min-similarity", "0.5"]) == 1
    error = capsys.readouterr().err
    assert re.search("features.unfinished .* settings.min_similarity;", error)
    assert main([str(bag), "-o", str(output), *OPTIONS, "--count", "2", "--overwrite"]) == 0
    assert main([str(bag), "-o", str(output), *OPTIONS, "--overwrite"]) == 0
    assert files(output) == undisturbed


def test_two_processes_do_not_work_on_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_frontend.tools.process.progress_store._LOCK_TIMEOUT_S", 0.1)
    folder = tmp_path / "features.unfinished"
    with ProgressStore(folder), pytest.raises(FeatureFrontendError, match=str(folder)):
        ProgressStore(folder)
    with ProgressStore(folder):
        pass


def test_an_interrupt_is_quiet_and_says_how_to_go_on(photographs: Photographs, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(100):
        cv2.imwrite(str(folder / f"{index}.png"), moving(photographs, index)[..., ::-1])
    output = tmp_path / "features"
    process = command(folder, "-o", output, *OPTIONS)
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (tmp_path / "features.unfinished" / "progress.db-journal").exists():
        assert time.monotonic() < deadline_s
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    told = f"interrupted; what is done is kept in {output}.unfinished; the same command resumes from there"
    assert err.splitlines()[-1] == told


@pytest.mark.slow
def test_several_inputs_at_a_time_and_again_after_a_kill(
    bag: Path, undisturbed: dict[str, str], photographs: Photographs, tmp_path: Path
) -> None:
    contents = [
        ("/image", (n + 1) * SECOND, image((n + 1) * SECOND, moving(photographs, n), "rgb8")) for n in range(40)
    ]
    other = write_bag(tmp_path / "other", contents)
    output = tmp_path / "out"
    arguments = (bag, other, tmp_path / "nowhere", "-o", output, "--jobs", 2, *OPTIONS)
    process = command(*arguments)
    deadline_s = time.monotonic() + TIMEOUT_S
    while not list(output.glob("*.unfinished")):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.kill()
    process.communicate()
    process = command(*arguments)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert f"error: {tmp_path / 'nowhere'}: " in err
    assert f"{IMAGES + 40} images of 3 sources" in out
    found = files(output / "drive")
    assert {name: digest for name, digest in found.items() if name != "process.json"} == {
        name: digest for name, digest in undisturbed.items() if name != "process.json"
    }
    assert json.loads((output / "other" / "process.json").read_text())["messages"]["/features"] == 40
