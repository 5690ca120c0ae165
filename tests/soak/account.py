"""Whether the front-ends reported the outcome of every image, as far as they lived long enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from feature_frontend_msgs.msg import FrameStatus

from tests.soak.cameras import RESULTS, Cameras, Heard
from tests.soak.robot import Life

__all__ = ["Account", "account_of"]

_PROCESSED = (FrameStatus.OK, FrameStatus.FIRST, FrameStatus.DEGENERATE)
# How long before it is killed a front-end may have taken an image that it never came to report, on a busy machine.
_IN_HAND_S = 10.0
# How long it may take from the start of its process to its first status there.
_START_S = 90.0


@dataclass
class Account:
    """What became of the images of one front-end.

    Attributes:
        sent: How many there were.
        reported: How many of them have a status.
        runs: How many runs these are from.
        while_down: How many were sent while no run could report them.
        startups_s: Of each process that reported, from its start to its first status.
        problems: Everything that is not as it should be, in words.
    """

    sent: int
    reported: int = 0
    runs: int = 0
    while_down: int = 0
    startups_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def account_of(name: str, cameras: Cameras, lives: Sequence[Life], end_s: float) -> Account:
    """Of the front-end in the namespace `name`.

    Args:
        name: Namespace.
        cameras: What was sent and heard, until `end_s`.
        lives: The front-end's processes, in their order.
        end_s: By the steady clock, when the last image was sent.
    """
    sent = {image.stamp_ns: image.at_s for image in cameras.sent[name]}
    account = Account(len(sent))
    runs: dict[int, list[Heard]] = defaultdict(list)
    for heard in cameras.heard[name]:
        runs[heard.status.run_id].append(heard)
    account.runs = len(runs)
    reported: set[int] = set()
    spans: list[tuple[int, int]] = []
    for run_id, statuses in runs.items():
        stamps = [heard.stamp_ns for heard in statuses]
        where = f"{name}, run {run_id}"
        if len(set(stamps)) < len(stamps) or reported & set(stamps):
            account.problems.append(f"{where}: an image has more than one status")
        if set(stamps) - set(sent):
            account.problems.append(f"{where}: statuses of images that were never sent")
        reported |= set(stamps)
        spans.append((min(stamps), max(stamps)))
        account.problems += [f"{where}: {problem}" for problem in _problems_of_counts(statuses)]
        account.problems += [f"{where}: {problem}" for problem in _problems_of_results(name, cameras, statuses)]
    account.reported = len(reported)
    for stamp_ns in sorted(set(sent) - reported):
        if any(first_ns < stamp_ns < last_ns for first_ns, last_ns in spans):
            account.problems.append(f"{name}: image {stamp_ns} has no status, and images before and after it have")
        else:
            account.while_down += 1
    of_ends = _problems_of_ends(cameras.heard[name], sent, lives, end_s, account.startups_s)
    account.problems += [f"{name}: {problem}" for problem in of_ends]
    return account


def _problems_of_counts(statuses: Sequence[Heard]) -> list[str]:
    """Of one run: its counters name each image once."""
    problems = []
    in_order = sorted((heard.status for heard in statuses), key=lambda status: status.frames_received)
    numbers = [status.frames_received for status in in_order]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        problems.append(f"frames_received goes {numbers[:3]} ... {numbers[-3:]} in {len(numbers)} statuses")
    counts = [(s.frames_processed, s.frames_dropped, s.frames_refused) for s in in_order]
    if any(sum(count) != number for count, number in zip(counts, numbers, strict=True)):
        problems.append("processed + dropped + refused is not received")
    # From the first one heard on, each state has moved its own counter.
    for before, status, count0, count1 in zip(in_order, in_order[1:], counts, counts[1:], strict=False):
        kind = 0 if status.state in _PROCESSED else 1 if status.state == FrameStatus.DROPPED else 2
        if [after - earlier for earlier, after in zip(count0, count1, strict=True)] != [
            int(k == kind) for k in range(3)
        ]:
            problems.append(f"a status of state {status.state} came with {count0} -> {count1}")
        if status.resets < before.resets:
            problems.append("resets went back")
    return problems


def _problems_of_results(name: str, cameras: Cameras, statuses: Sequence[Heard]) -> list[str]:
    """Of one run: every image processed has its messages, and ids of tracks are never used again."""
    problems = []
    largest_id, resets = 0, -1
    for heard in sorted(statuses, key=lambda one: one.stamp_ns):
        status = heard.status
        results = {topic: cameras.results[name][topic].get(heard.stamp_ns) for topic in RESULTS}
        if status.state not in _PROCESSED:
            if any(results.values()):
                problems.append(f"image {heard.stamp_ns} of state {status.state} has results")
            continue
        missing = [topic for topic, result in results.items() if result is None]
        if missing:
            problems.append(f"image {heard.stamp_ns} has a status and no {', '.join(missing)}")
            continue
        for result in results.values():
            assert result is not None
            if (result.run_id, result.resets) != (status.run_id, status.resets):
                problems.append(f"image {heard.stamp_ns}: run_id or resets of a message are not those of its status")
        tracks = results["tracks"]
        assert tracks is not None
        if status.resets != resets and tracks.count and tracks.least_id <= largest_id:
            problems.append(f"image {heard.stamp_ns}: a track goes on over a reset, or its id was used before")
        if tracks.count:
            largest_id, resets = max(largest_id, tracks.largest_id), status.resets
    return problems


def _problems_of_ends(
    heard: Sequence[Heard], sent: dict[int, float], lives: Sequence[Life], end_s: float, startups_s: list[float]
) -> list[str]:
    """Each process has reported soon and until it was ended; `startups_s` takes how soon."""
    problems = []
    for life in lives:
        until_s = min(end_s, life.last_s or end_s)
        own = [one for one in heard if life.began_s <= one.at_s <= (life.ended_s or one.at_s)]
        if life.ended_by is None and life.ended_s is not None:
            problems.append(f"process {life.pid} ended by itself after {life.ended_s - life.began_s:.0f} s")
        if not own:
            if until_s - life.began_s > _START_S:
                problems.append(f"process {life.pid} reported nothing in {until_s - life.began_s:.0f} s")
            continue
        startups_s.append(own[0].at_s - life.began_s)
        if startups_s[-1] > _START_S:
            problems.append(f"process {life.pid} reported nothing in its first {startups_s[-1]:.0f} s")
        last_s = max(sent.get(one.stamp_ns, 0.0) for one in own)
        if last_s < until_s - _IN_HAND_S:
            problems.append(f"process {life.pid} reported nothing that was sent in its last {until_s - last_s:.1f} s")
    return problems
