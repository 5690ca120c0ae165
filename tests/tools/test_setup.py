"""Set-up: env.sh's effect on a shell, idempotence, and messages about missing parts."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from feature_frontend.ros.distribution import dds_profile_variable
from tests.conftest import REPOSITORY

COREUTILS = ["bash", "cat", "cut", "dirname", "env", "find", "flock", "grep", "head", "mkdir", "printf", "sed"]
COREUTILS += ["sha256sum", "sort", "tail", "tr", "uname", "wc", "xargs"]
SHELL_STATE = 'printf "%s\\n" "$PATH" "$LD_LIBRARY_PATH" "$AMENT_PREFIX_PATH" "$PYTHONPATH"'


def run(*command: str | Path, cwd: Path = REPOSITORY, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Runs a command with its output captured; a variable given as None is unset."""
    variables = {**os.environ, **environment}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def is_set_up() -> None:
    """Skips where `make setup` has not run in this checkout."""
    if not (REPOSITORY / ".setup" / "workspace.stamp").exists():
        pytest.skip("needs `make setup` to have run in this checkout")


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """A copy of what set-up reads, never set up."""
    for folder in ("cmake", "requirements", "scripts", "ros2_ws/src/feature_frontend_msgs"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    shutil.copy(REPOSITORY / "env.sh", tmp_path)
    sources = Path("ros2_ws", "src")
    for folder in ("feature_frontend/launch", "feature_frontend/config", "feature_frontend_lab"):
        (tmp_path / sources / folder).mkdir(parents=True)
    for package in ("feature_frontend", "feature_frontend_lab"):
        for file in ("package.xml", "setup.py", "setup.cfg"):
            shutil.copy(REPOSITORY / sources / package / file, tmp_path / sources / package)
    return tmp_path


@pytest.fixture
def ros_root(tmp_path: Path) -> Path:
    """What /opt/ros looks like with Humble and Rolling installed, as far as finding them goes."""
    root = tmp_path / "opt_ros"
    for distribution in ("humble", "rolling"):
        prefix = root / distribution
        (prefix / "share" / "rclpy").mkdir(parents=True)
        (prefix / "share" / "rclpy" / "package.xml").touch()
        (prefix / "setup.bash").touch()
    return root


def detect(expression: str, **environment: str | None) -> str:
    """What a shell expression prints after ROS has been looked for."""
    script = (
        f"source scripts/setup/common.sh; source scripts/setup/detect.sh; source scripts/setup/torch.sh; {expression}"
    )
    # What this checkout remembers of ROS_WHEELS is not asked.
    result = run("bash", "-euo", "pipefail", "-c", script, **{"ROS_WHEELS": "", **environment})
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.usefixtures("is_set_up")
def test_repeated_setup_does_nothing() -> None:
    first = run("scripts/setup.sh")
    assert first.returncode == 0, first.stderr
    python = REPOSITORY / ".venv" / "bin" / "python"
    library = next((REPOSITORY / "ros2_ws" / "install").rglob("libfeature_frontend_msgs__rosidl_generator_c.so"))
    before = python.lstat().st_mtime_ns, library.stat().st_mtime_ns

    second = run("scripts/setup.sh")

    assert (second.returncode, second.stdout) == (0, "setup: up to date\n")
    assert (python.lstat().st_mtime_ns, library.stat().st_mtime_ns) == before


@pytest.mark.usefixtures("is_set_up")
def test_environment_finds_everything_and_may_be_repeated(shell: str) -> None:
    script = f"""
        set -u
        source env.sh || exit 1
        {SHELL_STATE}
        source env.sh
        {SHELL_STATE}
        command -v frontend feature_frontend
        python -c 'import feature_frontend_msgs.msg, rclpy; print("imported")'
        case $- in *u*) echo nounset ;; esac
    """
    result = run(shell, "-c", script)

    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[:4] == lines[4:8], "the second time changed the environment"
    tools = REPOSITORY / "ros2_ws/install/feature_frontend/lib/feature_frontend"
    assert lines[8:] == [str(tools / "frontend"), str(tools / "feature_frontend"), "imported", "nounset"]
    assert lines[0].endswith(f"{tools}:{str(tools).replace('feature_frontend', 'feature_frontend_lab')}"), (
        "the tools must not hide programs of the same names"
    )


@pytest.mark.usefixtures("is_set_up")
@pytest.mark.parametrize("preset", [None, "/my.xml"])
def test_environment_names_a_fastdds_profile_where_the_user_has_not(shell: str, preset: str | None) -> None:
    variables = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    script = f'source env.sh && printf "ROS_DISTRO=%s\n" "$ROS_DISTRO" && env | grep -E "^({"|".join(variables)})="'
    before = dict.fromkeys(variables) | ({"FASTRTPS_DEFAULT_PROFILES_FILE": preset} if preset else {})
    result = run(shell, "-c", script, **before)

    found = dict(line.split("=", 1) for line in result.stdout.splitlines())
    ours = {
        dds_profile_variable({"ROS_DISTRO": found.pop("ROS_DISTRO")}): f"{REPOSITORY}/config/fastdds_shared_memory.xml"
    }
    assert found == ({"FASTRTPS_DEFAULT_PROFILES_FILE": preset} if preset else ours)


def test_environment_without_setup_says_what_to_run(shell: str, bare_checkout: Path) -> None:
    result = run(shell, "-c", "source ./env.sh; echo status $?", cwd=bare_checkout)

    assert result.stdout == "status 1\n"
    assert f"run 'make setup' in {bare_checkout} first" in result.stderr


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.version_info[:2] not in {(3, 11), (3, 12)},
    reason="needs a machine and a Python that the ROS 2 wheels exist for (x86-64; 3.11 or 3.12)",
)
def test_missing_prerequisites_are_named_at_once_and_nothing_is_made(bare_checkout: Path) -> None:
    programs = bare_checkout / "bin"
    programs.mkdir()
    for name in COREUTILS:
        path = shutil.which(name)
        if path is not None:
            (programs / name).symlink_to(path)
    # A Python as Debian has it without its -venv and -dev packages.
    (bare_checkout / "site").mkdir()
    (bare_checkout / "site" / "sitecustomize.py").write_text(
        "import sys, sysconfig\n"
        "sys.modules['ensurepip'] = None\n"
        "sysconfig.get_paths = lambda: {'include': '/nonexistent'}\n"
    )

    result = run(
        "scripts/setup.sh",
        cwd=bare_checkout,
        PATH=str(programs),
        PYTHON=sys.executable,
        PYTHONPATH=str(bare_checkout / "site"),
        FEATURE_FRONTEND_ROS_ROOT=str(bare_checkout / "no_ros"),
        ROS_DISTRO=None,
        CC=None,
        CXX=None,
    )

    assert result.returncode == 1
    for part in (
        "C and C++ compiler",
        "CMake 3.21",
        "venv and ensurepip",
        "headers",
        "sudo apt install build-essential cmake python3.",
    ):
        assert part in result.stderr
    assert not (bare_checkout / ".venv").exists()


def test_without_ros_the_wheels_are_used(tmp_path: Path) -> None:
    found = detect("detect_ros; echo $mode", FEATURE_FRONTEND_ROS_ROOT=str(tmp_path), ROS_DISTRO=None)
    assert found == "wheels"


@pytest.mark.parametrize(("asked_for", "expected"), [(None, "humble"), ("rolling", "rolling"), ("unknown", "humble")])
def test_installed_ros_is_used(ros_root: Path, asked_for: str | None, expected: str) -> None:
    found = detect(
        "detect_ros; echo $mode $ros_distro $ros_setup",
        FEATURE_FRONTEND_ROS_ROOT=str(ros_root),
        ROS_DISTRO=asked_for,
        AMENT_PREFIX_PATH=None,
    )
    assert found == f"ros {expected} {ros_root / expected / 'setup.bash'}"


def test_sourced_ros_wins_over_installed_ones(ros_root: Path, tmp_path: Path) -> None:
    # A source build without --merge-install: each package has a prefix, the set-up file lies one level up.
    prefix = tmp_path / "ros2_kilted" / "install" / "rclpy"
    (prefix / "share" / "rclpy").mkdir(parents=True)
    (prefix / "share" / "rclpy" / "package.xml").touch()
    (prefix.parent / "setup.bash").touch()

    found = detect(
        "detect_ros; echo $mode $ros_distro $ros_setup",
        FEATURE_FRONTEND_ROS_ROOT=str(ros_root),
        ROS_DISTRO="kilted",
        AMENT_PREFIX_PATH=f"{tmp_path / 'other'}:{prefix}",
    )
    assert found == f"ros kilted {prefix.parent / 'setup.bash'}"


@pytest.mark.parametrize(("asked_for", "remembered"), [("kilted", ""), (None, "kilted"), ("kilted", "jazzy")])
def test_wheels_that_are_asked_for_win_over_an_installed_ros_and_are_remembered(
    ros_root: Path, tmp_path: Path, asked_for: str | None, remembered: str
) -> None:
    (tmp_path / "wheels_asked").write_text(f"{remembered}\n")
    found = detect(
        f"state={tmp_path}; detect_ros; echo $mode $ros_distro $ros_setup; venv_kind",
        FEATURE_FRONTEND_ROS_ROOT=str(ros_root),
        ROS_WHEELS=asked_for,
    )
    assert found.splitlines()[0] == "wheels kilted"
    # A .venv of Jazzy is another kind, which is rebuilt.
    assert found.splitlines()[1].startswith("wheels kilted ")


def test_wheels_of_no_such_distribution_are_refused() -> None:
    script = "source scripts/setup/common.sh; source scripts/setup/detect.sh; detect_ros"
    result = run("bash", "-euo", "pipefail", "-c", script, ROS_WHEELS="humble")

    assert (result.returncode, result.stdout) == (1, "")
    assert re.search("ROS_WHEELS is 'humble'.* jazzy kilted", result.stderr)


@pytest.mark.parametrize(("override", "expected"), [(None, "cuda"), ("cpu", "cpu"), ("none", "none")])
def test_torch_build_follows_the_driver_unless_told(tmp_path: Path, override: str | None, expected: str) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'GPU 0: a GPU'\n")
    driver.chmod(0o755)

    found = detect(
        "is_jetson() { return 1; }; wanted_torch_build", PATH=f"{tmp_path}:{os.environ['PATH']}", TORCH_BUILD=override
    )
    assert found == expected
