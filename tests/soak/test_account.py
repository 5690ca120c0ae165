"""The account of a soak test detects what it should."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from feature_frontend_msgs.msg import FrameStatus

from tests.soak.account import Account, account_of
from tests.soak.cameras import RESULTS, Heard, Result, Sent
from tests.soak.robot import Life

_RUN, _LATER_RUN = 7, 8
_DROPPED, _REFUSED = 4, 6


def _robot() -> SimpleNamespace:
    """30 images a second apart: a run reports the first ten, is killed, and another one reports the last ten."""
    sent = [Sent(second, float(second)) for second in range(30)]
    heard, results = [], {topic: {} for topic in RESULTS}
    for run_id, first in ((_RUN, 0), (_LATER_RUN, 20)):
        counts = [0, 0, 0]
        for number in range(10):
            state = {_DROPPED: FrameStatus.DROPPED, _REFUSED: FrameStatus.ERROR}.get(number, FrameStatus.OK)
            counts[{FrameStatus.DROPPED: 1, FrameStatus.ERROR: 2}.get(state, 0)] += 1
            status = FrameStatus(state=state, run_id=run_id, frames_received=number + 1)
            status.frames_processed, status.frames_dropped, status.frames_refused = counts
            heard.append(Heard(status, first + number, first + number + 0.2))
            if state == FrameStatus.OK:
                for topic in RESULTS:
                    results[topic][first + number] = Result(run_id, 0, 1, number + 1, number + 1)
    lives = [
        Life("front", 1, -5.0, ended_s=10.2, ended_by=signal.SIGKILL, ordered_s=10.0),
        Life("front", 2, 12.0, ended_s=31.0, ended_by=signal.SIGINT, ordered_s=30.0),
    ]
    cameras = SimpleNamespace(sent={"front": sent}, heard={"front": heard}, results={"front": results})
    return SimpleNamespace(cameras=cameras, heard=heard, results=results, lives=lives)


def _account(robot: Any) -> Account:
    return account_of("front", robot.cameras, robot.lives, 30.0)


def test_all_is_accounted_for() -> None:
    account = _account(_robot())
    assert (account.sent, account.reported, account.while_down, account.runs) == (30, 20, 10, 2)
    assert account.startups_s == [5.2, 8.2]
    assert not account.problems


def _lose_a_status(robot: Any) -> None:
    del robot.heard[3]


def _say_it_twice(robot: Any) -> None:
    robot.heard.append(robot.heard[3])


def _report_in_another_run(robot: Any) -> None:
    robot.heard.append(replace(robot.heard[3], status=FrameStatus(run_id=9, frames_received=1, frames_processed=1)))


def _invent_an_image(robot: Any) -> None:
    robot.heard[9] = replace(robot.heard[9], stamp_ns=10**9)


def _count_wrong(robot: Any) -> None:
    robot.heard[5].status.frames_dropped += 1


def _count_the_wrong_kind(robot: Any) -> None:
    for one in robot.heard[_DROPPED:10]:
        one.status.frames_dropped -= 1
        one.status.frames_refused += 1


def _lose_a_result(robot: Any) -> None:
    del robot.results["matches"][2]


def _process_what_was_dropped(robot: Any) -> None:
    robot.results["tracks"][_DROPPED] = Result(_RUN, 0, 1, 5, 5)


def _mix_up_runs(robot: Any) -> None:
    robot.results["features"][2] = replace(robot.results["features"][2], run_id=_LATER_RUN)


def _use_an_id_again(robot: Any) -> None:
    for one in robot.heard[5:10]:
        one.status.resets = 1
        for of_topic in robot.results.values():
            if one.stamp_ns in of_topic:
                of_topic[one.stamp_ns] = replace(of_topic[one.stamp_ns], resets=1, least_id=1)


def _fall_silent(robot: Any) -> None:
    robot.lives[1] = replace(robot.lives[1], ended_s=60.0, ordered_s=60.0)
    robot.cameras.sent["front"] += [Sent(second, float(second)) for second in range(30, 60)]


def _end_by_itself(robot: Any) -> None:
    robot.lives[0] = replace(robot.lives[0], ended_by=None, ordered_s=None)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_lose_a_status, "image 3 has no status, and images before and after it have"),
        (_lose_a_status, "frames_received goes [1, 2, 3] ... [8, 9, 10] in 9 statuses"),
        (_say_it_twice, "an image has more than one status"),
        (_report_in_another_run, "an image has more than one status"),
        (_invent_an_image, "statuses of images that were never sent"),
        (_count_wrong, "processed + dropped + refused is not received"),
        (_count_the_wrong_kind, "a status of state 3 came with (4, 0, 0) -> (4, 0, 1)"),
        (_lose_a_result, "image 2 has a status and no matches"),
        (_process_what_was_dropped, "image 4 of state 3 has results"),
        (_mix_up_runs, "image 2: run_id or resets of a message are not those of its status"),
        (_use_an_id_again, "a track goes on over a reset, or its id was used before"),
        (_fall_silent, "process 2 reported nothing that was sent in its last 31.0 s"),
        (_end_by_itself, "process 1 ended by itself after 15 s"),
    ],
)
def test_what_is_lost_is_noticed(spoil: Callable[[Any], None], expected: str) -> None:
    robot = _robot()
    spoil(robot)
    account = account_of("front", robot.cameras, robot.lives, 60.0 if spoil is _fall_silent else 30.0)
    assert any(expected in problem for problem in account.problems), account.problems
