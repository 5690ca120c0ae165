"""However a tool ends: one readable line, the right exit status, and no output to a closed pipe."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from rclpy.exceptions import InvalidTopicNameException
from tqdm import tqdm

from feature_frontend.__main__ import TOOLS, main
from feature_frontend.errors import SettingsError
from feature_frontend.tools.common import limits
from feature_frontend.tools.common.guard import FAULT, OUTPUT_CLOSED, TRACEBACK_VARIABLE, run_tool
from feature_frontend.tools.doctor.machine import check_limits
from tests.conftest import REPOSITORY

_BAD_ROS_ARGUMENTS = ["--ros-args", "-r", "x:=:="]


def _raising(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_an_interrupt_never_finds_tqdm_without_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tqdm, "_lock", raising=False)
    assert run_tool(lambda: int(not hasattr(tqdm, "_lock"))) == 0


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (SettingsError("x is 3; expected 2"), 1, "error: x is 3; expected 2"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), 1, "error: 'a.png': No such file"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 5000), 1, "...': File name too long"),
        (OSError(errno.ENOSPC, "No space left on device", "f\udcfcr"), 1, "No space left on device"),
        (OSError("it is not a regular file"), 1, "error: it is not a regular file"),
        (OSError(errno.EMFILE, "Too many open files"), 1, "error: too many open files; expected a limit"),
        (ImportError("libtorch.so: cannot open shared object file: Too many open files"), 1, "too many open files"),
        (_caused(RuntimeError("x"), OSError(errno.EMFILE, "Too many open files")), 1, "too many open files"),
        (ImportError("cv2.so: failed to map segment from shared object"), 1, "error: memory ran out"),
        (ModuleNotFoundError("No module named 'rclpy'"), 1, "No module named 'rclpy'; `feature_frontend doctor`"),
        (MemoryError(), 1, "error: memory ran out"),
        (RuntimeError("can't start new thread"), 1, "error: no thread can be started"),
        (InvalidTopicNameException("/a b", "no blanks", 2), 1, "error: ROS 2: "),
        (RecursionError("maximum recursion depth exceeded"), FAULT, "RecursionError: maximum recursion depth"),
        (OverflowError("int too large"), FAULT, "error: OverflowError: int too large (test_guard.py:"),
        (ValueError("embedded null byte"), FAULT, "This is a fault of this program: please report it"),
        (UnicodeEncodeError("utf-8", "\udcfc", 0, 1, "surrogates not allowed"), FAULT, "UnicodeEncodeError"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "error: Broken pipe"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_one_line(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TRACEBACK_VARIABLE, raising=False)
    assert run_tool(_raising(error)) == status
    printed = capsys.readouterr().err
    assert words in printed
    assert len(printed.splitlines()) == bool(words)
    assert len(printed) < 700
    assert "\\udc" not in printed


def test_the_traceback_can_be_had(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    assert run_tool(_raising(OverflowError("x"))) == FAULT
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tool_that_ends_in_order_is_interrupted_once_by_either_signal(number: signal.Signals) -> None:
    cleaned_up = []

    def run() -> int:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            cleaned_up.append(number)
        return 0

    assert run_tool(run, interrupted=lambda: 7) == 7
    assert cleaned_up == [number]


@pytest.mark.parametrize("tool", ["play", "record", "rtabmap", "vins"])
def test_bad_ros_arguments_are_one_line(tool: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    about = [] if tool in {"rtabmap", "vins"} else [str(tmp_path / "x")]
    assert main([tool, *about, *_BAD_ROS_ARGUMENTS]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert re.match("error: .*'-r x:=:='", line)


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_a_zero_byte_is_refused(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    for argument in ("a\0b", "\ud800"):
        assert main([tool, argument]) == 1
        assert re.match(r"error: .*(\\x00|\\ud800)", capsys.readouterr().err)


def test_a_zero_byte_in_a_parameter_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "zero.yaml"
    file.write_text('/**:\n  ros__parameters:\n    weights_path: "a\\0b"\n', encoding="utf-8")
    for arguments in (["doctor", "--no-graph"], ["process", "x", "-o", str(tmp_path / "bag")]):
        assert main([*arguments, "--params-file", str(file)]) == 1
        assert "weights_path is 'a\\x00b'" in capsys.readouterr().err


def test_a_path_of_nobody_or_without_end_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, output = str(REPOSITORY / "tests" / "data" / "tum_fr2_desk"), ["-o", str(tmp_path / "bag")]
    for path in ("~nosuchuser/x", "a" * 5000, "a/" * 2500):
        for arguments in (
            ["process", path, *output],
            ["process", images, *output, "--weights-path", path],
            ["process", images, *output, "--mask-path", path],
            ["process", images, *output, "--params-file", path],
            ["process", images, "-o", path, "--count", "0"],
        ):
            try:
                status: object = main(arguments)
            except SystemExit as ended:
                status = ended.code
            assert status in {1, 2}, arguments
            printed = capsys.readouterr().err
            assert "fault" not in printed
            assert len(printed.splitlines()) <= 2
        assert main(["weights", "list", "--weights-dir", path]) in {0, 1}
        assert "fault" not in capsys.readouterr().err


def test_closed_outputs_end_quietly() -> None:
    code = "from feature_frontend.__main__ import main, TOOLS; TOOLS.update(x=('tests.tools.printing_tool', '')); "
    command = [sys.executable, "-c", f"{code}raise SystemExit(main())", "x"]
    endless = [*command, str(10**9)]
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == OUTPUT_CLOSED
    for closed, errors in ((">&-", b"the end\n"), (">&- 2>&-", b""), ("<&- >&- 2>&-", b""), ("2>&-", b"")):
        shell = ["sh", "-c", f'"$@" {closed}', "sh", *command, "3"]
        result = subprocess.run(shell, capture_output=True, cwd=REPOSITORY, check=False)
        assert (result.returncode, result.stderr) == (0, errors)
        assert result.stdout == (b"line 0\nline 1\nline 2\n" if closed == "2>&-" else b"")


def test_a_tool_is_known_by_the_name_that_it_is_started_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("feature_frontend.__main__.open_standard_streams", lambda: None)
    monkeypatch.setattr(sys, "argv", ["/opt/lib/feature_frontend/parameters", "--yaml"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("/**:")
    monkeypatch.setattr(sys, "argv", ["/opt/bin/feature_frontend", "parameters"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("## Extraction")
    setup = (REPOSITORY / "ros2_ws" / "src" / "feature_frontend" / "setup.py").read_text(encoding="utf-8")
    for name in TOOLS:
        assert f'"{name} = feature_frontend.__main__:main"' in setup


def test_limits_that_are_too_low_are_reported_before_anything_hangs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert limits.address_space_problem() == ""
    assert list(check_limits()) == []
    monkeypatch.setattr(limits, "_limit", {"RLIMIT_AS": 1 << 30, "RLIMIT_NOFILE": 20}.get)
    for tool, words in (("process", "limited to 1024 MiB"), ("record", "20 files may be open"), ("frontend", "MiB")):
        assert main([tool, "x"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert [finding.verdict.value for finding in check_limits()] == ["FAIL", "FAIL"]
    assert main(["parameters"]) == 0


def test_limits_of_a_real_process() -> None:
    code = "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 30, -1)); r.setrlimit(r.RLIMIT_NOFILE, (20, 20))\n"
    code += "from feature_frontend.__main__ import main\nprint(main(['process', 'x']), main(['play', 'x']))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert result.stdout == "1 1\n"
    assert [line[:10] for line in result.stderr.splitlines()] == ["error: the", "error: 20 "]
