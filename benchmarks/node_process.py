"""Runs the node `frontend` as a separate process, with a client that sends images and receives the results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from feature_frontend_msgs.msg import Features, FrameStatus, Matches, Tracks
from sensor_msgs.msg import Image
from typing_extensions import Self

from benchmarks.images import REPOSITORY
from benchmarks.spinning_node import SpinningNode
from benchmarks.types import Canvas
from feature_frontend.errors import FeatureFrontendError
from feature_frontend.ros.distribution import dds_profile_variable, localhost_only
from feature_frontend.ros.input.image_conversion import array_to_image
from feature_frontend.ros.qos import qos_profile
from feature_frontend.ros.stamps import stamp_from_ns, stamp_to_ns
from feature_frontend_lab.demo.own_domain import own_domain

__all__ = ["NS_PER_MS", "Client", "NodeProcess", "ros_environment"]

NS_PER_MS = 1e6
_PROFILE = REPOSITORY / "config" / "fastdds_shared_memory.xml"
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.02
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_RESULTS = {"features": Features, "matches": Matches, "tracks": Tracks, "status": FrameStatus}
# A best-effort subscription can lose its first images during discovery.
_RETRY_S = 5.0
_IDLE_FRACTION = 0.05
_IDLE_WINDOW_S = 1.0


def ros_environment() -> dict[str, str]:
    """Environment of all processes of a run: a separate ROS domain and the shared-memory profile."""
    return {
        "ROS_DOMAIN_ID": str(own_domain()),
        **localhost_only(),
        dds_profile_variable(): str(_PROFILE),
    }


class NodeProcess:
    """The executable `frontend`, or the same node with internal timestamps; leaving the context sends Ctrl-C.

    Args:
        parameters: `name:=value` each.
        threads: Number of threads of the network.
        traced: Whether the node records when each frame passes each trace point (`benchmarks.node_traced`).
    """

    def __init__(self, parameters: Sequence[str], threads: int, *, traced: bool = False) -> None:
        given = [part for parameter in parameters for part in ("-p", parameter)]
        module = ["benchmarks.node_traced"] if traced else ["feature_frontend", "frontend"]
        self._folder = tempfile.TemporaryDirectory(prefix="feature_frontend_benchmark_")
        self._trace = Path(self._folder.name) / "trace.json"
        # A unique name: the folder may be all that remains of a killed step.
        folder = Path(self._folder.name)
        self._log = (folder / f"node_{folder.name.rpartition('_')[2]}.log").open("w+", encoding="utf-8")
        environment = {**os.environ, **ros_environment(), "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module, "--ros-args", *given],
            env={**environment, "FEATURE_FRONTEND_TRACE": str(self._trace)},
            cwd=REPOSITORY,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()
        self._folder.cleanup()

    @property
    def is_running(self) -> bool:
        """Whether the process is still running."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """The node's output."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def cpu_s(self) -> float:
        """CPU time used by the node and its terminated children, s."""
        text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii", errors="replace")
        fields = text.rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S

    def rss_mib(self) -> float:
        """Resident memory, MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def gpu_mib(self) -> float | None:
        """GPU memory used by all processes, MiB; None without a GPU."""
        if not torch.cuda.is_available():
            return None
        free, total = torch.cuda.mem_get_info()
        return (total - free) / 2**20

    def wait_until_idle(self) -> None:
        """Waits until the node is idle, for example after background compilation."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            before_s = self.cpu_s()
            time.sleep(_IDLE_WINDOW_S)
            if self.cpu_s() - before_s < _IDLE_FRACTION * _IDLE_WINDOW_S:
                return

    def stop(self) -> None:
        """Sends SIGINT, and kills the node if it does not end."""
        if self.is_running:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def trace(self) -> dict[int, dict[str, int]]:
        """Monotonic ns of each trace point, by the image's stamp; requires a traced node that has ended."""
        read: dict[str, dict[str, int]] = json.loads(self._trace.read_text(encoding="utf-8"))
        return {int(stamp_ns): points for stamp_ns, points in read.items()}


class Client(SpinningNode):
    """Publishes images like a camera and receives all results like a consumer, in a process other than the node.

    An image's stamp is the monotonic clock at the start of its publishing; all processes of a machine share that clock.
    """

    def __init__(self, images: Sequence[Canvas], image_qos: str = "sensor_data") -> None:
        super().__init__("benchmark_client", int(ros_environment()["ROS_DOMAIN_ID"]))
        self._publisher = self.node.create_publisher(Image, "image", qos_profile(image_qos, 10))
        # A camera driver has its message ready; filling one is not part of the front-end's time.
        self._messages = [array_to_image(image, "mono8", stamp_from_ns(0), "camera") for image in images]
        self.arrivals_ns: dict[str, dict[int, int]] = {topic: {} for topic in _RESULTS}
        self.statuses: dict[int, FrameStatus] = {}
        self.sent: list[int] = []
        self._done = threading.Event()
        for topic, kind in _RESULTS.items():
            self.node.create_subscription(kind, topic, self._receiver(topic), qos_profile("reliable", 100))
        self.start()

    def wait_for_node(self, process: NodeProcess) -> None:
        """Waits until a first image has returned through all topics.

        Raises:
            FeatureFrontendError: The node ended, or nothing was received in time.
        """
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s and process.is_running:
            matched = self._publisher.get_subscription_count() and all(map(self.node.count_publishers, _RESULTS))
            if matched and self.round_trip(_RETRY_S):
                return
            time.sleep(_POLL_S)
        msg = f"the node gave no result within {_START_TIMEOUT_S:g} s; it printed: {process.output or 'nothing'}"
        raise FeatureFrontendError(msg)

    def publish(self) -> int:
        """Publishes the next image and returns its stamp."""
        message = self._messages[len(self.sent) % len(self._messages)]
        stamp_ns = time.monotonic_ns()
        message.header.stamp = stamp_from_ns(stamp_ns)
        self._publisher.publish(message)
        self.sent.append(stamp_ns)
        return stamp_ns

    def round_trip(self, timeout_s: float) -> int | None:
        """Publishes an image and waits for its status; returns its stamp, or None on timeout."""
        self._done.clear()
        stamp_ns = self.publish()
        deadline_s = time.monotonic() + timeout_s
        while stamp_ns not in self.statuses:
            if not self._done.wait(max(deadline_s - time.monotonic(), 0)):
                return None
            self._done.clear()
        return stamp_ns

    def settle(self, quiet_s: float = 1.0) -> None:
        """Waits until no status has arrived for `quiet_s`."""
        count = -1
        while count != len(self.statuses):
            count = len(self.statuses)
            time.sleep(quiet_s)

    def wait_for_results(self, stamps: Sequence[int], timeout_s: float) -> None:
        """Waits for features and tracks of all frames: large messages may arrive after their frame's status.

        Raises:
            FeatureFrontendError: They do not arrive in time.
        """
        deadline_s = time.monotonic() + timeout_s
        for topic in ("features", "tracks"):
            while missing := set(stamps) - self.arrivals_ns[topic].keys():
                if time.monotonic() > deadline_s:
                    msg = f"{len(missing)} of {len(stamps)} messages on {topic} did not come within {timeout_s:g} s"
                    raise FeatureFrontendError(msg)
                time.sleep(_POLL_S)

    def _receiver(self, topic: str) -> Callable[[Any], None]:
        arrivals_ns = self.arrivals_ns[topic]

        def receive(message: Any) -> None:
            now_ns = time.monotonic_ns()
            stamp_ns = stamp_to_ns(message.header.stamp)
            arrivals_ns[stamp_ns] = now_ns
            if topic == "status":
                self.statuses[stamp_ns] = message
                self._done.set()

        return receive
