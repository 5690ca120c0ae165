"""Common fixtures: location of real data, and reasons to skip."""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.torch_version import TorchVersion

from feature_frontend_lab.demo.own_domain import own_domain
from tests.campaign import Campaign
from tests.workers import is_alone, pytest_runtest_protocol, pytest_xdist_auto_num_workers, spread_threads

__all__ = ["pytest_runtest_protocol", "pytest_xdist_auto_num_workers"]

REPOSITORY = Path(__file__).resolve().parent.parent
# Before 2.10, torch may execute code in a .pth file, so only published files are loaded there.
NEEDS_TORCH_FOR_PTH = pytest.mark.skipif(
    TorchVersion(torch.__version__) < (2, 10), reason="torch before 2.10 is given no .pth files but published ones"
)
# Marks for tests, or their parameters, that run on a GPU.
NEEDS_GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))


def shared_folder() -> Path:
    """The folder of real sequences, weights and reference outputs; may not exist."""
    return Path(os.environ.get("FEATURE_FRONTEND_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(autouse=True)
def loggers_stay() -> Iterator[None]:
    """Removes the handler that a tool in a test adds for its warnings, before the next test."""
    logger = logging.getLogger("feature_frontend")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate, logger.level = before


@pytest.fixture(scope="session", autouse=True)
def no_package_index() -> Iterator[dict[str, str]]:
    """Disables package indexes for weights in tests and their child processes; yields the original environment."""
    before = dict(os.environ)
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            environment.delenv(name)
        environment.setenv("PIP_CONFIG_FILE", os.devnull)
        environment.setenv("PIP_NO_INDEX", "1")
        yield before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared folder; skips if it is missing."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"needs the shared data, not found at {folder} (set FEATURE_FRONTEND_SHARED)")
    return folder


@pytest.fixture(scope="session")
def weights_dir(shared: Path) -> str:
    """Folder of the published weights; skips if it is missing."""
    folder = shared / "weights"
    if not folder.is_dir():
        pytest.skip(f"needs the published weights, not found at {folder}")
    return str(folder)


@pytest.fixture(scope="session")
def photographs() -> list[npt.NDArray[np.uint8]]:
    """Three frames of TUM RGB-D freiburg2_desk, 0.1 s apart, (480, 640, 3) RGB."""
    paths = sorted((REPOSITORY / "tests" / "data" / "tum_fr2_desk").glob("*.jpg"))
    return [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.uint8) for path in paths]


def _reporter(request: pytest.FixtureRequest, section: str) -> Callable[[str], None]:
    # With xdist, tests run in other processes than the one that prints; reports transfer these properties.
    return lambda line: request.node.user_properties.append((section, line))


@pytest.fixture
def report_figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Records a line with a measured figure for the end of the run's output."""
    return _reporter(request, "measured")


@pytest.fixture
def campaign(request: pytest.FixtureRequest) -> Campaign:
    """Number of random examples in this run and their seed; tests with this fixture are part of `make campaign`."""
    options = request.config.option
    report = _reporter(request, "campaign")
    return Campaign(options.campaign_seed, options.campaign, lambda line: report(f"{request.node.name}: {line}"))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("campaign")
    group.addoption(
        "--campaign", action="store_true", help="random tests do all they can, not a tenth; add -m campaign"
    )
    group.addoption("--campaign-seed", type=int, help="where random tests begin (0; in a campaign, another each time)")


def pytest_configure(config: pytest.Config) -> None:
    # Deadlines per example would depend on the machine; varying examples are for campaigns.
    settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("tests")
    spread_threads(config)
    # A shell starts background jobs with Ctrl-C ignored, which every process under test would inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    options = config.option
    # xdist passes the options of the parent process to its workers, including this one.
    if options.campaign_seed is None:
        options.campaign_seed = random.SystemRandom().randrange(1_000_000) if options.campaign else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "campaign" in getattr(item, "fixturenames", ()):
            item.add_marker("campaign")
    # These run one after another on one worker before the others start.
    items.sort(key=lambda item: not is_alone(item))


def pytest_report_header(config: pytest.Config) -> str:
    extent = "whole" if config.option.campaign else "a tenth"
    return f"campaign: {extent}, seed {config.option.campaign_seed}"


def _reported(reporter: pytest.TerminalReporter, section: str) -> Iterator[str]:
    for reports in reporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                yield from (line for name, line in report.user_properties if name == section)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints measured figures and the number of random examples."""
    for section in ("measured", "campaign"):
        if lines := list(_reported(terminalreporter, section)):
            terminalreporter.section(section)
            for line in lines:
                terminalreporter.line(line)


@pytest.fixture
def domain_id(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain reserved for this test process on this machine; also set in the environment."""
    number = own_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    return number
