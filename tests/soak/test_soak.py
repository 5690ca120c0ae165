"""`make campaign`: a robot with three front-ends and a slow subscriber, whose processes are killed continually.

`FEATURE_FRONTEND_SOAK_MINUTES=3 pytest tests/soak` runs it for that time, also outside a campaign.
"""

from __future__ import annotations

import importlib.util
import math
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")
# Not `launch`: the folder of that name at the top of the repository would do for a module.
pytest.importorskip("launch.launch_service", reason="needs the Python package launch (ROS 2)")
pytest.importorskip("launch_ros.actions", reason="needs the Python package launch_ros (ROS 2)")
pytest.importorskip("ament_index_python.packages", reason="needs ament_index_python (ROS 2)")

from tests.campaign import Campaign
from tests.ros.harness import wait_until
from tests.soak.account import Account, account_of
from tests.soak.cameras import Cameras
from tests.soak.robot import SLOW, Life, Robot
from tests.soak.shared_memory import clean, ports_of
from tests.soak.slow_subscriber import SLEEP_S
from tests.soak.tuning import Tuner

Uint8Array = npt.NDArray[np.uint8]
_MINUTES = 30
_MINUTES_GIVEN = "FEATURE_FRONTEND_SOAK_MINUTES"
_TICK_S = 0.25
_KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# How long a process lives before it is killed, s: at its start, soon, and long enough to see its memory.
_LIVES_S = (*2 * [(0.0, 6.0)], *3 * [(6.0, 30.0)], *3 * [(30.0, 120.0)], (240.0, 360.0))
# An order to end is obeyed in 2 s (docs/live_node.md); here four processes share what there is.
_OBEDIENCE_S = 20.0
# After how many changes the memory of one process is level.
_LONG_LIFE_S = 600.0
# The front-end whose last life is at least half of the time, for its memory.
_LONG = "rear"
_PERIODS_S = {"front": 0.31, "rear": 0.4, "stereo": 0.5}
_MONO = {
    "image_topic": "image",
    "extractor": "silk-vggnp-mu",
    "max_num_keypoints": "200",
    "compile": "false",
    "device": "cpu",
    "image_qos": "reliable",
    "output_depth": "100",
}
_STEREO = {name: value for name, value in _MONO.items() if name != "image_topic"} | {
    "left_image_topic": "left/image",
    "right_image_topic": "right/image",
    "rectified": "true",
}


@pytest.mark.slow
def test_a_robot_whose_front_ends_are_killed_loses_nothing_else(
    domain_id: int,
    photographs: list[Uint8Array],
    tmp_path: Path,
    campaign: Campaign,
    report_figure: Callable[[str], None],
) -> None:
    minutes = _minutes(campaign)
    chance = random.Random(campaign.seed)
    has_pairs = importlib.util.find_spec("message_filters") is not None
    frontends = {
        "front": ("camera.launch.py", _MONO),
        "rear": ("camera.launch.py", {**_MONO, "queue_policy": "every_frame"}),
        "stereo": ("stereo.launch.py", _STEREO) if has_pairs else ("camera.launch.py", _MONO),
    }
    images = {name: _images(photographs, 2 if name == "stereo" and has_pairs else 1) for name in frontends}
    with Robot(tmp_path, frontends) as robot:
        with Cameras(domain_id, images, _PERIODS_S) as cameras:
            cameras.start()
            tuner = Tuner(cameras.node, chance)
            usage = _disturb(robot, tuner, chance, minutes * 60)
            cameras.end()
            end_s = time.monotonic()
            _hear_out(robot, cameras)
            tuner.collect(is_over=True)
        status = robot.interrupt()
        left = robot.processes()
        robot.watch()
        log = "".join(line for line in robot.log.splitlines(keepends=True) if line.startswith("[frontend-"))

    killed = {life.pid for life in robot.lives if life.ended_by == signal.SIGKILL}
    abandoned = [segment for segment in robot.segments if segment.exists()]
    cleaned = clean([*robot.segments, *ports_of(domain_id)])
    ends = Counter(life.ended_by.name for life in robot.lives if life.ended_by and life.ordered_s is not None)
    accounts = {
        name: account_of(name, cameras, [life for life in robot.lives if life.name == name], end_s)
        for name in frontends
    }
    peaks = _peaks_mib(robot.lives)
    longest = max((life.memory for life in robot.lives if life.memory and life.name != SLOW), key=lambda m: m[-1][0])
    _report(report_figure, minutes, accounts, ends, tuner, robot.lives, peaks, usage, has_pairs=has_pairs)
    step = len(longest) // 9 + 1
    mib_shown = ", ".join(f"{mib:.0f}" for _, mib in longest[::step])
    report_figure(f"the longest life, {longest[-1][0] / 60:.1f} min: {mib_shown} MiB")
    report_figure(
        f"at the end: exit status {status}, {len(left)} processes, {len(robot.files_left())} files; of "
        f"{len(robot.segments)} segments {len(abandoned)} left by {len(killed)} processes that SIGKILL ended, "
        f"{len(cleaned)} segments and ports removed as fastdds shm clean does"
    )
    problems = [problem for account in accounts.values() for problem in account.problems]
    assert not problems, "\n".join(problems)
    assert not [life for life in robot.lives if life.ended_by is None], "a process ended by itself"
    publishing_ms = np.sort([one.status.publishing_ms for heard in cameras.heard.values() for one in heard])
    report_figure(f"publishing: median {np.median(publishing_ms):.1f} ms, at most {publishing_ms[-1]:.0f} ms")
    # A front-end that waited for the slow subscriber would wait for its callbacks.
    assert np.percentile(publishing_ms, 99) < SLEEP_S * 1e3 / 4
    assert not tuner.wrong
    assert not [change for change in tuner.unanswered if not _was_ended_meanwhile(change.name, change.asked_s, robot)]
    assert (status, left, robot.files_left()) == (0, {}, [])
    assert all(robot.segments[segment] & killed for segment in abandoned), "an orderly end left shared memory"
    assert not [path for path in [*robot.segments, *ports_of(domain_id)] if path.exists()]
    assert "the node goes on" not in log, "a callback failed"
    # Python's own handler for SIGINT, before it runs a line of ours.
    assert log.count("Traceback") == log.count("KeyboardInterrupt"), log
    for name, (before_mib, after_mib) in peaks.items():
        # Which models came together in a process is chance; in a long life, all have.
        assert after_mib < 1.3 * before_mib + 20, f"the memory of {name} grew: {peaks}"
    if longest[-1][0] > _LONG_LIFE_S:
        halves = longest[: len(longest) // 2], longest[len(longest) // 2 :]
        before_mib, after_mib = (max(mib for _, mib in half) for half in halves)
        assert after_mib < 1.1 * before_mib + 10, f"the memory of one process grew: {longest}"


def _minutes(campaign: Campaign) -> float:
    if given := os.environ.get(_MINUTES_GIVEN):
        campaign.report(f"{given} of {_MINUTES} minutes, seed {campaign.seed}")
        return float(given)
    if not campaign.is_whole:
        pytest.skip(f"takes {_MINUTES} minutes: runs in `make campaign`, or with {_MINUTES_GIVEN}=3")
    return campaign.count(_MINUTES, "minutes")


def _images(photographs: list[Uint8Array], cameras: int) -> list[tuple[Uint8Array, ...]]:
    """Views of a scene that goes by, 320x240 px, grey; the second camera sees it 8 px further left."""
    grey = photographs[0].mean(axis=2).astype(np.uint8)
    places = [*range(0, 60, 3), *range(60, 0, -3)]
    return [
        tuple(np.ascontiguousarray(grey[100:340, x : x + 320]) for x in (20 + place, 28 + place)[:cameras])
        for place in places
    ]


def _disturb(robot: Robot, tuner: Tuner, chance: random.Random, duration_s: float) -> list[tuple[float, float]]:
    """Kills and changes until the time is over; (seconds, MiB) of shared memory in use."""
    begin_s = time.monotonic()
    due: dict[int, float] = {}
    next_change_s = next_look_s = begin_s
    usage = []
    while (now_s := time.monotonic()) < begin_s + duration_s:
        robot.watch()
        assert robot.process.poll() is None, f"the launch has ended\n{robot.log[-3000:]}"
        for life in robot.running():
            until_s = due.setdefault(life.pid, life.began_s + chance.uniform(*chance.choice(_LIVES_S)))
            spared = life.name == _LONG and now_s > begin_s + duration_s / 2 and now_s - life.began_s > 5
            if life.ordered_s is None and now_s >= until_s and not spared:
                robot.end(life, chance.choice(_KILLS) if life.name != SLOW else signal.SIGKILL)
            elif life.ordered_s is not None and now_s - life.ordered_s > _OBEDIENCE_S:
                pytest.fail(f"{life.name} has not ended {_OBEDIENCE_S:g} s after {life.ended_by}")
        if now_s >= next_change_s:
            tuner.change(chance.choice(list(_PERIODS_S)))
            next_change_s = now_s + chance.uniform(0.2, 4.0)
        if now_s >= next_look_s:
            sizes = [segment.stat().st_blocks * 512 for segment in robot.segments if segment.exists()]
            usage.append((now_s - begin_s, sum(sizes) / 2**20))
            next_look_s = now_s + 5.0
        tuner.collect()
        time.sleep(_TICK_S)
    return usage


def _hear_out(robot: Robot, cameras: Cameras) -> None:
    """Returns when those that can have heard the last images have answered."""
    robot.watch()
    reporting = {
        life.name
        for life in robot.running()
        if life.ordered_s is None and any(one.at_s > life.began_s for one in cameras.heard.get(life.name, ()))
    }
    for name in reporting:
        last_ns = cameras.sent[name][-1].stamp_ns
        wait_until(lambda name=name, last=last_ns: cameras.heard[name][-1].stamp_ns == last, f"the last of {name}")  # type: ignore[misc]


def _peaks_mib(lives: list[Life]) -> dict[str, tuple[float, float]]:
    """Most memory that a process of each name had in the first and in the second half of the time."""
    begin_s = min(life.began_s for life in lives)
    middle_s = begin_s + max(life.began_s - begin_s + life.memory[-1][0] for life in lives if life.memory) / 2
    halves: dict[str, tuple[list[float], list[float]]] = {life.name: ([0.0], [0.0]) for life in lives}
    for life in lives:
        for age_s, mib in life.memory:
            halves[life.name][life.began_s + age_s > middle_s].append(mib)
    return {name: (max(first), max(second)) for name, (first, second) in halves.items()}


def _was_ended_meanwhile(name: str, asked_s: float, robot: Robot) -> bool:
    """Whether a process of the front-end ended after a request, or soon enough before it to look alive still."""
    ends = [life.ordered_s for life in robot.lives if life.name == name and life.ordered_s is not None]
    return any(end_s > asked_s - 30.0 for end_s in ends)


def _report(
    say: Callable[[str], None],
    minutes: float,
    accounts: dict[str, Account],
    ends: Counter[str],
    tuner: Tuner,
    lives: list[Life],
    peaks: dict[str, tuple[float, float]],
    usage: list[tuple[float, float]],
    *,
    has_pairs: bool,
) -> None:
    kinds = "two cameras and a stereo pair" if has_pairs else "three cameras (message_filters is not here: no pair)"
    how = " + ".join(f"{count} {name}" for name, count in sorted(ends.items()))
    say(f"{minutes:g} min, {kinds}, a slow subscriber: {len(lives)} processes, {how}")
    for name, account in accounts.items():
        soon_s, late_s = (pick(account.startups_s or [math.nan]) for pick in (statistics.median, max))
        say(
            f"{name}: {account.sent} images sent = {account.reported} with a status, of {account.runs} runs, + "
            f"{account.while_down} while it was down; {len(account.problems)} unaccounted; first status after "
            f"{soon_s:.0f} s (median), at most {late_s:.0f} s"
        )
    say(", ".join(f"{count} changes {what}" for what, count in sorted(tuner.counts.items())))
    for name, (before_mib, after_mib) in peaks.items():
        say(f"{name}: at most {before_mib:.0f} MiB in the first half, {after_mib:.0f} MiB in the second")
    if usage:
        halves = [
            statistics.median(mib for _, mib in part)
            for part in (usage[: len(usage) // 2 + 1], usage[len(usage) // 2 :])
        ]
        most = max(mib for _, mib in usage)
        say(f"/dev/shm: {halves[0]:.0f} -> {halves[1]:.0f} MiB (medians of the halves), at most {most:.0f}")
