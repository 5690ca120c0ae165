"""What tests share: where real data lies, tolerances, and reasons to skip."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
_FIGURES = pytest.StashKey[list[str]]()


def shared_folder() -> Path:
    """The folder of real sequences, weights and reference outputs; it need not exist."""
    return Path(os.environ.get("FEATURE_FRONTEND_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder; skips where it is absent."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"needs the shared data, not found at {folder} (set FEATURE_FRONTEND_SHARED)")
    return folder


@pytest.fixture(scope="session")
def weights_dir(shared: Path) -> str:
    """Folder of the published weights; skips where it is absent."""
    folder = shared / "weights"
    if not folder.is_dir():
        pytest.skip(f"needs the published weights, not found at {folder}")
    return str(folder)


@pytest.fixture(scope="session")
def photographs() -> list[npt.NDArray[np.uint8]]:
    """Three frames of TUM RGB-D freiburg2_desk, 0.1 s apart, (480, 640, 3) RGB."""
    paths = sorted((REPOSITORY / "tests" / "data" / "tum_fr2_desk").glob("*.jpg"))
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.uint8) for path in paths]


@pytest.fixture
def report_figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line that names something measured, for the end of the run's output."""
    return request.config.stash.setdefault(_FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints what tests have measured."""
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("measured")
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain that this test process has to itself on this machine; also set in the environment."""
    number = 1 + os.getpid() % 100
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number
