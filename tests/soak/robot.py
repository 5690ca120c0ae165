"""A robot's launch with front-ends that are restarted whenever they end, and the state of their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.launch.prefix import make_prefix
from tests.memory import own_mib
from tests.soak.shared_memory import segments_of

__all__ = ["SLOW", "Life", "Robot"]

# The process that is no front-end: who subscribes to their results and takes its time.
SLOW = "slow"
_END_S = 60.0
_SAMPLE_S = 2.0
_FRONTEND = f"""#!/bin/sh
exec {sys.executable} -m feature_frontend frontend "$@"
"""
_LAUNCH_FILE = """
import sys
from launch import LaunchDescription
from launch.actions import ExecuteProcess, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

def generate_launch_description():
    includes = [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(f"{LAUNCH}/{file}"),
            launch_arguments=[("namespace", name), ("respawn", "true"), ("respawn_delay", "1.5"), *arguments.items()],
        )
        for name, (file, arguments) in FRONTENDS.items()
    ]
    slow = ExecuteProcess(
        cmd=[sys.executable, "-m", "tests.soak.slow_subscriber", *FRONTENDS],
        cwd=REPOSITORY, respawn=True, respawn_delay=1.5, output="screen",
    )
    return LaunchDescription([*includes, slow])
"""
# What `ros2 launch` does, without ros2cli.
_LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(AnyLaunchDescriptionSource(sys.argv[1]))]))
sys.exit(service.run())
"""


@dataclass
class Life:
    """A process from its start to its end.

    Attributes:
        name: Namespace of the front-end, or `SLOW`.
        pid: The process.
        began_s: When it was first seen, by the steady clock; all times are.
        ended_s: When it was first seen gone; None while it runs.
        ended_by: The signal that was sent to it; None as long as none was.
        ordered_s: When that was sent; None also where it ended with the launch.
        memory: (seconds since it began, MiB of its own).
    """

    name: str
    pid: int
    began_s: float
    ended_s: float | None = None
    ended_by: signal.Signals | None = None
    ordered_s: float | None = None
    memory: list[tuple[float, float]] = field(default_factory=list)

    @property
    def last_s(self) -> float | None:
        """Until when it can have worked."""
        return self.ended_s if self.ordered_s is None else self.ordered_s


class Robot:
    """The launch, in a process of its own; ends with the block, and leaves nothing behind then.

    Args:
        folder: Where its files come to lie, those of temporary folders and caches, too.
        frontends: Launch file and arguments of each front-end, by namespace.

    Attributes:
        lives: All processes of front-ends and of the slow subscriber so far, in the order of their starts.
        segments: All files of shared memory that these made, each with the processes that held its lock.
    """

    def __init__(self, folder: Path, frontends: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
        self.lives: list[Life] = []
        self.segments: dict[Path, set[int]] = {}
        self._names = {*frontends, SLOW}
        self._next_sample_s = 0.0
        self._log = folder / "log.txt"
        self._mark = f"SOAK={folder}"
        self._folders = {name: folder / name.lower() for name in ("TMPDIR", "XDG_CACHE_HOME", "HOME")}
        for path in self._folders.values():
            path.mkdir()
        file = folder / "robot.launch.py"
        values = {"LAUNCH": str(REPOSITORY / "launch"), "REPOSITORY": str(REPOSITORY), "FRONTENDS": dict(frontends)}
        file.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()) + _LAUNCH_FILE)
        environment = {
            **os.environ,
            **make_prefix(folder, _FRONTEND),
            **{name: str(path) for name, path in self._folders.items()},
            "OMP_NUM_THREADS": "1",
            "SOAK": str(folder),
        }
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(file)],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(_END_S)

    @property
    def log(self) -> str:
        """What all of them have printed."""
        return self._log.read_text(errors="replace")

    def files_left(self) -> list[str]:
        """What lies in the temporary folder, the cache and the home of its processes."""
        return [str(path) for folder in self._folders.values() for path in folder.rglob("*") if path.is_file()]

    def processes(self) -> dict[int, list[str]]:
        """Command lines of all processes that the launch has started, and those of these, that still run."""
        found = {}
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                with suppress(OSError):
                    if self._mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                        command = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
                        found[int(path.name)] = command[:-1]
        return found

    def running(self) -> Iterator[Life]:
        """The processes that were running at the latest `watch`."""
        return (life for life in self.lives if life.ended_s is None)

    def watch(self) -> None:
        """Takes note of what has begun and ended, and of the memory in use."""
        now_s = time.monotonic()
        commands = self.processes()
        for life in self.running():
            if self._name(commands.get(life.pid, [])) != life.name:
                life.ended_s = now_s
        known = {life.pid for life in self.running()}
        for pid, command in commands.items():
            if pid not in known and (name := self._name(command)):
                self.lives.append(Life(name, pid, now_s))
        is_time = now_s >= self._next_sample_s
        if is_time:
            self._next_sample_s = now_s + _SAMPLE_S
        for life in self.running():
            with suppress(OSError, IndexError):
                for segment in segments_of(life.pid):
                    self.segments.setdefault(segment, set()).add(life.pid)
                if is_time:
                    life.memory.append((now_s - life.began_s, own_mib(life.pid)))

    def end(self, life: Life, by: signal.Signals) -> None:
        """Sends the process a signal."""
        life.ended_by, life.ordered_s = by, time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(life.pid, by)

    def interrupt(self) -> int:
        """Presses Ctrl-C in the launch's terminal; exit status of the launch."""
        for life in self.running():
            life.ended_by = life.ended_by or signal.SIGINT
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(_END_S)

    def _name(self, command: list[str]) -> str:
        """Whose command line it is; empty for launch itself and what a front-end starts."""
        if "tests.soak.slow_subscriber" in command:
            return SLOW
        is_frontend = "frontend" in command and "--ros-args" in command
        names = [part.removeprefix("__ns:=/") for part in command if part.startswith("__ns:=/")]
        return names[0] if is_frontend and names and names[0] in self._names else ""
