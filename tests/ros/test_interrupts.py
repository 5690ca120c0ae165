"""SIGINT and SIGTERM: a quiet shutdown in time, at every moment, without leftovers."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
pytest.importorskip("feature_frontend_msgs.msg", reason="needs the built feature_frontend_msgs")

from feature_frontend_lab.demo.own_domain import own_domain
from tests.campaign import Campaign
from tests.ros.harness import Client, RunningNode
from tests.ros.starts import READY, SIGNALS, Ended, Forks, end_program

# Of processor time: a start takes about 3 s of it.
_MOMENTS, _STEP_S = 60, 0.05


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ROS_DOMAIN_ID", str(own_domain()))
        environment.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        with Forks() as running:
            yield running


def _check(ended: Ended, number: int, where: str) -> None:
    assert ended.status in {0, -number}, f"{where}: {ended}"
    assert not ended.unexpected, f"{where}: {ended}"
    assert not ended.left, f"{where}: {ended}"
    # 2 s are promised, on a machine that is not busy with other tests.
    assert ended.seconds < 5.0, f"{where}: {ended}"


def _report(what: str, ends: list[Ended], report_figure: Callable[[str], None]) -> None:
    orderly = sum(ended.status == 0 for ended in ends)
    slowest = max(ended.seconds for ended in ends)
    report_figure(
        f"{what}: {len(ends)} ended in {slowest:.2f} s at most, {orderly} with status 0, others by the signal"
    )


def test_a_node_that_is_interrupted_twice_ends_cleanly(domain_id: int) -> None:
    """As a launch file may do, which passes on what the terminal has sent to all already."""
    with RunningNode(domain_id, "extractor:=silk-vggnp-mu", "image_qos:=reliable") as running:
        with Client(domain_id) as client:
            client.wait_for_node()
            client.send_pixels(np.full((120, 160), 90, np.uint8), 1_000_000_000)
            client.wait_for("status", 1)
            segments = running.shared_memory()
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        code, seconds, output = running.interrupt()
    assert (code, "Traceback" in output) == (0, False), output
    assert seconds < 5.0
    assert segments
    assert not [path for path in segments if path.exists()]


@pytest.mark.slow
def test_a_signal_ends_a_start_at_every_moment(
    domain_id: int, campaign: Campaign, report_figure: Callable[[str], None]
) -> None:
    """The whole program, from its first instruction on."""
    chance = random.Random(campaign.seed)
    moments = sorted(chance.sample(range(_MOMENTS), campaign.count(_MOMENTS, "moments of a start")))
    ends = []
    for index, moment in enumerate(moments):
        number = SIGNALS[index % 2]
        ends.append(end_program(number, moment * _STEP_S))
        _check(ends[-1], number, f"signal {number} after {moment * _STEP_S:.2f} s")
    _report("starts of the program", ends, report_figure)


@pytest.mark.slow
def test_a_signal_leaves_nothing_of_a_node_that_is_being_made(
    forks: Forks, campaign: Campaign, report_figure: Callable[[str], None]
) -> None:
    chance = random.Random(campaign.seed)
    ready = forks.end("start", signal.SIGTERM, READY)
    _check(ready, signal.SIGTERM, "ready")
    assert ready.status == 0
    assert ready.segments
    ends = []
    # With those of the whole program 500 in a campaign. In any other run each costs more than most tests: few.
    whole = 440 if campaign.is_whole else 120
    for index in range(campaign.count(whole, "starts ended at random moments")):
        number = SIGNALS[index % 2]
        moment, times = chance.uniform(0.0, ready.used_s), chance.choice((1, 1, 2))
        ends.append(forks.end("start", number, moment, times))
        _check(ends[-1], number, f"start {index}, signal {number} after {moment:.3f} s, {times} times")
    _report("starts by fork", ends, report_figure)


@pytest.mark.parametrize(
    ("kind", "said"), [("a load that hangs", "loading"), ("a callback that hangs", "calling back")]
)
def test_a_signal_ends_what_does_not_return(forks: Forks, kind: str, said: str) -> None:
    ended = forks.end(kind, signal.SIGTERM, said)
    _check(ended, signal.SIGTERM, kind)
    assert ended.status == 0
    assert ended.segments
