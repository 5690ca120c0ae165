"""Any arguments of a tool: a readable line or two and a documented exit status, never a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")
pytest.importorskip("rosbags", reason="needs rosbags")


from feature_frontend.__main__ import main
from feature_frontend.tools.common.arguments import INCOMPLETE
from tests.campaign import Campaign
from tests.tools.random_arguments import argument_list, make_world

_STATUSES = {0, 1, 2, INCOMPLETE, 130}
_LIMIT_S = 1.0
# Warnings of files, and what is said of them at the end.
_MOST_LINES = 12
_MOST_CHARACTERS = 5000


@pytest.fixture
def no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, domain_id: int) -> None:
    """Nothing goes to the network or into the user's folders, or ends this process."""
    assert domain_id >= 0
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "_exit", sys.exit)


@contextlib.contextmanager
def interrupted() -> Iterator[None]:
    """Ctrl-C after a second, for what goes on; and again, should that be lost among what a library calls."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    has_ended = threading.Event()

    def interrupt() -> None:
        # From another thread: in a wait of the middleware this one would not come to do it.
        while not has_ended.wait(_LIMIT_S):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        has_ended.set()
        thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def outcome(arguments: list[str]) -> tuple[object, str, str]:
    """Exit status, stdout and stderr of the tool, run in this process."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), interrupted():
        try:
            status: object = main(arguments)
        except SystemExit as ended:
            status = ended.code
    return status, output.getvalue(), errors.getvalue()


@pytest.mark.usefixtures("no_traces")
def test_random_arguments_end_in_a_readable_line(
    campaign: Campaign, tmp_path: Path, report_figure: Callable[[str], None]
) -> None:
    count = campaign.count(1000, "argument lists")
    chance = random.Random(campaign.seed)
    world = make_world(tmp_path)
    seen: Counter[object] = Counter()
    for index in range(count):
        arguments = argument_list(chance, world)
        status, output, errors = outcome(arguments)
        shown = f"list {index}: {[argument[:80] for argument in arguments]}: {status}\n{errors[:3000]}"
        assert status in _STATUSES, shown
        assert "Traceback" not in errors, shown
        assert len(errors.splitlines()) <= _MOST_LINES, shown
        assert len(errors) <= _MOST_CHARACTERS, shown
        assert "fault of this program" not in errors, shown
        assert status in {0, 130} or errors.strip() or output.strip(), shown
        seen[status] += 1
    assert {0, 1, 2} <= set(seen)
    report_figure(f"{count} argument lists: {dict(seen.most_common())} by exit status")
