"""Runs parsers in workers; a hang or crash also counts as a finding."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.corpus import CORPUS
from tests.fuzz.state import Count, State
from tests.fuzz.worker import write_finding

__all__ = ["MODULE", "Outcome", "Plan", "execute", "fuzz"]

MODULE = "tests.fuzz.parsers"
_REPOSITORY = Path(__file__).resolve().parents[2]
_PACKAGES = [_REPOSITORY / "ros2_ws" / "src" / name for name in ("feature_frontend", "feature_frontend_lab")]
_POLL_S = 0.1
# To import everything with all branches counted; and to end after the time is over.
_START_S, _END_S = 240.0, 60.0
_MOST_DEATHS = 20
_COVERAGE = re.compile(r"\bcov: (\d+)")


@dataclass(frozen=True)
class Plan:
    """What workers do.

    Attributes:
        folder: Where findings, logs and inputs that reach something new go.
        seed: Of all chance.
        seconds: Of each parser; 0: see `mutations`.
        mutations: Inputs of each parser beside the corpus; 0: see `seconds`.
        is_guided: Whether atheris chooses the inputs.
        hang_s: An input takes at most so long.
        module: Where `PARSERS` is.
        inputs: A file, or a folder with one of each parser's name, in the place of the corpus.
    """

    folder: Path
    seed: int = 0
    seconds: float = 0.0
    mutations: int = 0
    is_guided: bool = False
    hang_s: float = 30.0
    module: str = MODULE
    inputs: Path = CORPUS


@dataclass
class Outcome:
    """What came of one parser.

    Attributes:
        count: Of its inputs.
        findings: Files, each with a text beside it.
        coverage: Branches reached, as libFuzzer counts them; None without it.
        new: Inputs of the corpus in the plan's folder that this run added.
    """

    count: Count = field(default_factory=Count)
    findings: list[Path] = field(default_factory=list)
    coverage: int | None = None
    new: int = 0


def fuzz(parsers: Sequence[str], plan: Plan) -> dict[str, Outcome]:
    """Fuzzes parsers for a time, as many at once as there are cores, each in processes of its own."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        outcomes = pool.map(lambda name: execute([name], plan)[name], parsers)
        return dict(zip(parsers, outcomes, strict=True))


def execute(parsers: Sequence[str], plan: Plan) -> dict[str, Outcome]:
    """Executes parsers one after the other in one process; in another one behind an input that ended it.

    Raises:
        RuntimeError: A worker does not begin, or ends by something that is no parser's fault.
    """
    before = {name: len(_grown(plan, name)) for name in parsers}
    outcomes = {name: Outcome() for name in parsers}
    for name in parsers:
        shutil.rmtree(plan.folder / "findings" / name, ignore_errors=True)
    remaining, deaths, end_s = list(parsers), 0, time.monotonic() + plan.seconds
    while remaining and deaths < _MOST_DEATHS:
        left_s = max(end_s - time.monotonic(), 1.0) if plan.seconds else 0.0
        with _worker(remaining, plan, left_s, deaths) as (process, state, stacks):
            reason = _watch(process, state, plan.hang_s, left_s)
            running = state.running
            for number, name in enumerate(remaining):
                _add(outcomes[name].count, state.count(number))
            if process.returncode == 0 and not reason:
                break
            if running is None:
                log = _log(plan, remaining[0]).read_text(encoding="utf-8", errors="replace")
                ended = reason or f"ended with {process.returncode}"
                msg = f"a worker {ended} between inputs; its last words: {log[-3000:]}"
                raise RuntimeError(msg)
            number, data = running
            stack = stacks.read_text(encoding="utf-8", errors="replace")
        deaths += 1
        cause = (
            "hang"
            if reason
            else f"death-{signal.Signals(-process.returncode).name.lower()}"
            if process.returncode < 0
            else "death"
        )
        path = plan.folder / "findings" / remaining[number] / f"{cause}-{_place(stack)}"
        if not path.exists():
            write_finding(path, data, f"the process {reason or f'ended with {process.returncode}'}\n{stack}")
        # With a time the same parser goes on; with a number of inputs, what comes behind it.
        remaining = remaining if plan.seconds else remaining[number + 1 :]
        if plan.seconds and time.monotonic() > end_s:
            break
    for name, outcome in outcomes.items():
        found = plan.folder / "findings" / name
        outcome.findings = sorted(path for path in found.glob("*") if path.suffix != ".txt")
        outcome.new = len(_grown(plan, name)) - before[name]
        if plan.is_guided:
            log = _log(plan, name).read_text(encoding="utf-8", errors="replace")
            outcome.coverage = max(map(int, _COVERAGE.findall(log)), default=0)
    return outcomes


@contextmanager
def _worker(
    parsers: Sequence[str], plan: Plan, seconds: float, number: int
) -> Iterator[tuple[subprocess.Popen[bytes], State, Path]]:
    log = _log(plan, parsers[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="ff_fuzz_", dir=memory if memory.is_dir() else None, ignore_cleanup_errors=True
    ) as scratch:
        state = State(Path(scratch, "state"), len(parsers))
        Path(scratch, "stacks").touch()
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {
            "PYTHONPATH": os.pathsep.join([*map(str, _PACKAGES), str(_REPOSITORY), os.environ.get("PYTHONPATH", "")]),
            "TMPDIR": scratch,
            "HOME": scratch,
            "OMP_NUM_THREADS": "1",
        }
        command = [
            *(sys.executable, "-m", "tests.fuzz.worker", *parsers, f"--module={plan.module}"),
            f"--inputs={plan.inputs}",
            *(f"--state={scratch}", f"--findings={plan.folder / 'findings'}"),
            *(f"--seed={plan.seed + 1000 * number}", f"--seconds={seconds}", f"--mutations={plan.mutations}"),
        ]
        if plan.is_guided:
            grown = plan.folder / "corpus" / parsers[0]
            grown.mkdir(parents=True, exist_ok=True)
            command += ["--corpus", str(grown), str(plan.inputs / parsers[0])]
        with log.open("ab") as words:
            process = subprocess.Popen(
                command, cwd=_REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=words, stderr=words
            )
            try:
                yield process, state, Path(scratch, "stacks")
            finally:
                process.kill()
                process.wait()


def _watch(process: subprocess.Popen[bytes], state: State, hang_s: float, seconds: float) -> str:
    """Waits for the end of a worker; says why it was ended if it was."""
    last, since_s, begin_s = None, time.monotonic(), time.monotonic()
    while process.poll() is None:
        time.sleep(_POLL_S)
        now_s, executions = time.monotonic(), state.executions
        if executions != last:
            last, since_s = executions, now_s
        is_late = seconds > 0 and now_s - begin_s > seconds + _START_S + _END_S
        if now_s - since_s > (hang_s if executions else _START_S) or is_late:
            # Python says where it is, if it still can.
            process.send_signal(signal.SIGUSR1)
            time.sleep(1.0)
            process.kill()
            process.wait()
            return f"hung for {now_s - since_s:.0f} s"
    return ""


def _add(total: Count, more: Count) -> None:
    total.executions += more.executions
    total.taken += more.taken
    total.refused += more.refused
    total.seconds += more.seconds


def _grown(plan: Plan, parser: str) -> list[Path]:
    folder = plan.folder / "corpus" / parser
    return list(folder.iterdir()) if folder.is_dir() else []


def _log(plan: Plan, parser: str) -> Path:
    return plan.folder / "logs" / f"{parser}.log"


def _place(stack: str) -> str:
    """The innermost function of ours in what faulthandler wrote, the most recent call first."""
    calls = re.findall(r'File "([^"]+)", line \d+ in (\S+)', stack)
    own = [call for call in calls if f"{os.sep}feature_frontend{os.sep}" in call[0] or "tests/fuzz/" in call[0]]
    file, name = (own or calls or [("nowhere", "")])[0]
    return f"{Path(file).stem}-{name.strip('<>')}"
