"""The tests' own infrastructure: domains, turns and counts."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from feature_frontend_lab.demo.own_domain import own_domain
from tests.campaign import Campaign
from tests.conftest import REPOSITORY
from tests.workers import Turns

_PACKAGE = REPOSITORY / "ros2_ws" / "src" / "feature_frontend"


def test_no_two_processes_have_one_domain() -> None:
    script = "from feature_frontend_lab.demo.own_domain import own_domain; print(own_domain(), flush=True); input()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], cwd=_PACKAGE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    domains = [own_domain()] + [int(process.stdout.readline()) for process in processes if process.stdout]
    for process in processes:
        process.communicate("\n")
    assert len(set(domains)) == 4
    assert all(1 <= domain <= 100 for domain in domains)
    assert own_domain() == domains[0]


def test_a_test_that_is_alone_waits_for_the_others_and_they_for_it(tmp_path: Path) -> None:
    workers = [Turns(tmp_path) for _ in range(3)]
    order: list[str] = []

    def run(worker: Turns, name: str, alone: bool) -> threading.Thread:
        def take_turn() -> None:
            worker.begin(alone=alone)
            order.append(name)

        thread = threading.Thread(target=take_turn, daemon=True)
        thread.start()
        return thread

    first = run(workers[0], "first", alone=False)
    first.join(5)
    second = run(workers[1], "second", alone=False)
    second.join(5)
    assert order == ["first", "second"], "ordinary tests run beside each other"
    workers[1].end()
    alone = run(workers[1], "alone", alone=True)
    alone.join(0.2)
    third = run(workers[2], "third", alone=False)
    third.join(0.2)
    assert order == ["first", "second"], "neither it nor those that come after it begin while a test runs"
    workers[0].end()
    alone.join(5)
    third.join(0.2)
    assert order == ["first", "second", "alone"]
    # The next of its kind follows without a turn in between.
    workers[1].begin(alone=True)
    third.join(0.2)
    assert order == ["first", "second", "alone"]
    workers[1].end()
    third.join(5)
    assert order == ["first", "second", "alone", "third"]


@pytest.mark.parametrize(("is_whole", "expected"), [(True, [3000, 11, 1]), (False, [300, 2, 1])])
def test_a_campaign_makes_all_examples_and_any_other_run_a_tenth(is_whole: bool, expected: list[int]) -> None:
    lines: list[str] = []
    campaign = Campaign(7, is_whole, lines.append)
    assert [campaign.count(whole, "bags") for whole in (3000, 11, 1)] == expected
    assert lines[0] == f"{expected[0]} of 3000 bags, seed 7"
