"""The scheduler of a Ray cluster: a task for each unit of work; Ray queues them, and retries those of lost machines."""

from __future__ import annotations

import itertools
import os
import socket
import time
from contextlib import suppress
from typing import Any

from feature_frontend.errors import SettingsError
from feature_frontend.system.text import short_text
from feature_frontend.tools.process.cluster.worker import Tally, work
from feature_frontend.tools.process.job import environment
from feature_frontend.tools.process.request import Reporter, Work
from feature_frontend.tools.process.schedule import Answer, Scheduler

__all__ = ["Cluster"]

# Of a unit of work whose process or machine is lost. Not without end: an image may take more memory than there is.
_RETRIES = 5
_POLL_S = 1.0
_CLOSING_WAIT_S = 5.0
# How long a machine may take to answer at all; Ray itself tries for minutes.
_ANSWER_S = 10.0
# How long the list of machines is used.
_MACHINES_S = 5.0


class Cluster(Scheduler):
    """Units of work as tasks of Ray.

    Args:
        address: Of the cluster, or "auto" for the one that this machine belongs to.
        reporter: Receives the progress of all.
        threads: CPUs of a task.
        gpu_fraction: Fraction of a GPU of a task, where the cluster has GPUs.

    Raises:
        SettingsError: Ray is not installed, there is no such cluster, or it is of another version.
    """

    def __init__(self, address: str, reporter: Reporter, *, threads: int, gpu_fraction: float) -> None:
        self._ray = ray = _import_ray()
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            url = _connect(ray, address)
            if url:
                reporter.say(f"dashboard of the cluster: http://{url}")
        self._reporter = reporter
        self._threads = threads
        self._gpu_fraction = gpu_fraction if ray.cluster_resources().get("GPU", 0) else 0.0
        self._machines: tuple[float, int] = (-_MACHINES_S, 0)
        self._running: dict[Any, Work] = {}
        self._numbers = itertools.count()
        self._reported = (0, 0)
        self._asked: Any = None
        self._waits = False
        self._expected = ray.put(environment())
        # On this machine, which is lost only with the run itself.
        here = self._on(ray.get_runtime_context().get_node_id())
        self._tally = ray.remote(Tally).options(num_cpus=0, max_restarts=-1, **here).remote()
        # By output: the machine that did its latest unit of work, and has a copy of the input.
        self._latest: dict[str, str] = {}
        self._options: dict[str, Any] = {"num_cpus": threads, "max_retries": _RETRIES, "name": "process"}
        if self._gpu_fraction:
            self._options["num_gpus"] = self._gpu_fraction
        # One machine after another: each has its own disk and its own way to the storage.
        self._options["scheduling_strategy"] = "SPREAD"
        self._task = ray.remote(work)

    @property
    def width(self) -> int:
        """See `Scheduler`."""
        now_s = time.monotonic()
        if now_s >= self._machines[0] + _MACHINES_S:
            found = sum(self._room(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
            if not found and not self._waits:
                self._reporter.say(
                    f"warning: no machine of the cluster has {self._threads} CPUs"
                    f"{f' and {self._gpu_fraction:g} GPU' if self._gpu_fraction else ''} for a task; waiting for one: "
                    "add it, or choose fewer --threads"
                )
            self._waits = not found
            self._machines = now_s, found
        return max(self._machines[1], 1)

    def submit(self, work: Work) -> None:
        """See `Scheduler`."""
        number = next(self._numbers)
        # Parallel pieces spread; what comes one after another stays where the copy is.
        stays = work.part is None or work.part.in_order
        latest = self._latest.get(work.request.output) if stays else None
        task = self._task.options(**self._options | (self._on(latest) if latest else {}))
        self._running[task.remote(number, work.to_json(), self._expected, os.getcwd(), self._tally)] = work

    def wait(self) -> tuple[Work, Answer]:
        """See `Scheduler`."""
        while True:
            done, _ = self._ray.wait(list(self._running), timeout=_POLL_S)
            self._report()
            if done:
                unit = self._running.pop(done[0])
                try:
                    answer: Answer = self._ray.get(done[0])
                except Exception as error:  # Ray's own, and what no code of ours expects
                    return unit, {"error": _explained(unit, error)}
                self._latest[unit.request.output] = answer.get("machine", "")
                if "progress" in answer:
                    with suppress(self._ray.exceptions.RayError):
                        self._tally.record.remote(*answer["progress"], is_last=True)
                return unit, answer

    def __exit__(self, *_: object) -> None:
        """Cancels what is not done, and leaves the cluster."""
        for reference in self._running:
            with suppress(Exception):
                self._ray.cancel(reference, force=True)
        with suppress(Exception):
            for _attempt in range(2):
                self._report(_CLOSING_WAIT_S)
            self._ray.kill(self._tally)
        if self._is_ours:
            self._ray.shutdown()

    def _on(self, machine: str) -> dict[str, Any]:
        """Options for a task on a machine, or on another one if that is lost."""
        strategies = self._ray.util.scheduling_strategies
        return {"scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(machine, soft=True)}

    def _room(self, resources: dict[str, float]) -> int:
        room = int(resources.get("CPU", 0) // self._threads)
        if self._gpu_fraction:
            room = min(room, int(resources.get("GPU", 0) / self._gpu_fraction))
        return room

    def _report(self, wait_s: float = 0.0) -> None:
        """Passes on the progress; without `wait_s`, never waits for it: units of work may end every few ms."""
        self._asked = self._asked or self._tally.take.remote()
        if not self._ray.wait([self._asked], timeout=wait_s)[0]:
            return
        asked, self._asked = self._asked, None
        # It may be on its way to another machine.
        with suppress(self._ray.exceptions.RayError):
            here, earlier, texts = self._ray.get(asked)
            for text in texts:
                self._reporter.say(text)
            # A unit that is tried again counts again from 0.
            if earlier > self._reported[1]:
                self._reporter.done(earlier - self._reported[1], earlier=True)
            if here > self._reported[0]:
                self._reporter.done(here - self._reported[0])
            self._reported = max(here, self._reported[0]), max(earlier, self._reported[1])


def _import_ray() -> Any:
    # It sends statistics of its use otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise SettingsError(f"--cluster needs Ray, which cannot be imported ({error}); pip install ray") from error
    return ray


def _connect(ray: Any, address: str) -> str:
    """Joins the cluster; returns the address of its dashboard, or an empty text."""
    try:
        host, _, port = address.rpartition(":")
        if port.isdecimal() and "/" not in host:
            socket.create_connection((host, int(port)), _ANSWER_S).close()
        context = ray.init(address=address, log_to_driver=False, logging_level="error")
    except Exception as error:  # of many types
        text = short_text(error)
        if "ersion mismatch" in str(error):
            advice = "install the same versions of Ray and Python on all machines"
        elif address == "auto":
            advice = "start one by `ray start --head`, or give its address as HOST:6379"
        else:
            advice = "expected HOST:6379 as `ray start --head` prints it; check that it runs and can be reached"
        raise SettingsError(f"no Ray cluster can be joined at {address}: {text}; {advice}") from error
    return str(getattr(context, "dashboard_url", "") or "")


def _explained(unit: Work, error: Exception) -> str:
    kind, text = type(error).__name__, str(error)
    if "No module named 'feature_frontend" in text:
        why = "a machine of the cluster does not have this package; install it on all"
    elif kind == "OutOfMemoryError":
        why = f"its process ran out of memory, {_RETRIES + 1} times; use machines with more, or fewer tasks on each"
    elif kind in {"WorkerCrashedError", "NodeDiedError", "LocalRayletDiedError", "ObjectLostError"}:
        why = f"its processes ended {_RETRIES + 1} times; the same command resumes from there"
    else:
        why = f"unexpected on the cluster: {kind}: {short_text(error)}"
    return f"{unit.request.source}: {why}"
