"""Runs the parts one after another within the given minutes, each in a process that can be killed."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.images import REPOSITORY
from scripts.gpu_check.archive import count_records, read_records, save_record, write_archive
from scripts.gpu_check.part_process import ASK_WHERE, POISONED, load_part, started_file
from scripts.gpu_check.parts import PARTS
from scripts.gpu_check.step import Context, Outcome, Step

__all__ = ["main", "run_parts"]

# Maximum fraction of the remaining time for each part; unused time goes to later parts. `machine` gets enough to load
# libraries for the first time: without it, the other figures mean nothing.
_TIME_FRACTION = {"machine": 0.3, "right": 0.3, "fast": 0.38, "node": 0.55, "train": 1.0}
# Environment variable that identifies a part's process and all its children.
_MARKER = "FEATURE_FRONTEND_GPU_CHECK_PART"
_POLL_S = 0.2
_GRACE_S = 3.0
# A hanging process is asked for its stacks; a killed one may stay stuck in the driver.
_ANSWER_S, _END_S = 1.0, 5.0
# For writing the summary at the end.
_RESERVE_S = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check; returns 0 if no step failed (steps without time are listed but do not count as failures)."""
    arguments = _parser().parse_args(argv)
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        _parser().error(f"no part is called {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    parts = tuple(arguments.parts) or tuple(PARTS)
    begun_s = time.monotonic() if arguments.begun is None else arguments.begun
    minutes = arguments.minutes - (time.monotonic() - begun_s) / 60
    return run_parts(arguments.device, max(minutes, 0.0), arguments.shared, arguments.output, parts)


def run_parts(device: str, minutes: float, shared: Path, output: Path, parts: Sequence[str]) -> int:
    """Runs `parts`, writing PART.tar.gz for each and summary.md to `output`; returns 1 if a step failed."""
    end_s = time.monotonic() + 60 * minutes - _RESERVE_S
    output.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    failures = 0
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as scratch:
        for part in parts:
            folder = Path(scratch) / part
            folder.mkdir()
            now_s = time.monotonic()
            is_last = part == parts[-1]
            deadline_s = end_s if is_last else now_s + max(end_s - now_s, 0.0) * _TIME_FRACTION[part]
            context = Context(device, shared, folder, output, deadline_s)
            try:
                _run_part(part, context, output / f"{part}.tar.gz")
            except Exception as error:
                # A part that cannot be imported leaves its time to the others.
                failures += 1
                lines.append(f"- {part}: failed. {type(error).__name__}: {error}")
            for record in read_records(folder):
                failures += record["outcome"] == "failed"
                lines.append(f"- {part}/{record['step']}: {record['outcome']}. {record['text']}")
            (output / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(f"gpu-check: {len(lines) - failures} of {len(lines)} steps without a failure; results in {output}")
    return 1 if failures else 0


def _run_part(part: str, context: Context, archive: Path) -> None:
    """Starts the part's process, and a new one after each step that hangs, crashes or breaks the device."""
    module = load_part(part)
    steps = module.steps(context)
    while (first := count_records(context.scratch)) < len(steps):
        if context.left_s == 0:
            _note(part, context, archive, steps[first], "left out", 0.0, "no time was left")
            continue
        status, seconds = _watch(part, steps, context, archive)
        under_way = count_records(context.scratch)
        if status not in {0, POISONED} and under_way < len(steps):
            why = f"killed after {seconds:.0f} s" if status is None else f"its process died, status {status}"
            _note(part, context, archive, steps[under_way], "failed", seconds, why)


def _note(part: str, context: Context, archive: Path, step: Step, outcome: str, seconds: float, why: str) -> None:
    # The logs of a killed step are the most informative.
    result = Outcome(passed=False, text=why, files=sorted(context.scratch.rglob("*.log")))
    save_record(context.scratch, count_records(context.scratch), step.name, outcome, seconds, result)
    write_archive(archive, part, load_part(part).TITLE, context.scratch)
    print(f"gpu-check: {part}/{step.name}: {outcome}: {why}", flush=True)


def _watch(part: str, steps: Sequence[Step], context: Context, archive: Path) -> tuple[int | None, float]:
    """Exit status of the part's process, None if it was killed here, and the running time of the current step, s."""
    started = started_file(context.scratch)
    started.write_text(f"{time.monotonic()}", encoding="ascii")
    first = count_records(context.scratch)
    words = (part, first, context.device, context.shared, context.scratch, archive, context.keep, context.deadline_s)
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.gpu_check.part_process", *map(str, words)],
        cwd=REPOSITORY,
        # Temporary files, such as a node's, are kept where the logs of a killed step are collected.
        env={**os.environ, _MARKER: str(context.scratch), "TMPDIR": str(context.scratch)},
    )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL_S), _seconds_since(started)
            under_way = min(count_records(context.scratch), len(steps) - 1)
            is_late = time.monotonic() > context.deadline_s + _GRACE_S
            if is_late or _seconds_since(started) > steps[under_way].limit_s:
                seconds = _seconds_since(started)
                process.send_signal(ASK_WHERE)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_ANSWER_S)
                return None, seconds
    finally:
        _kill_marked(str(context.scratch))
        process.kill()  # also if /proc does not show its environment
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)


def _kill_marked(mark: str) -> None:
    """Kills the part's process and all its children, such as nodes and players in separate sessions."""
    wanted = f"{_MARKER}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def _seconds_since(started: Path) -> float:
    # Empty while being written.
    text = started.read_text(encoding="ascii")
    return time.monotonic() - float(text) if text else 0.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-check", description="Prove, measure and train on a CUDA card in a few minutes."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all, in this order)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the rehearsal (default: cuda)")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which everything has ended (default: 8)")
    parser.add_argument(
        "--begun", type=float, metavar="S", help="on the monotonic clock, when the minutes began (default: now)"
    )
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path(os.environ.get("FEATURE_FRONTEND_SHARED", REPOSITORY.parent / "shared")),
        metavar="DIR",
        help="weights, sequences, reference outputs (default here: %(default)s)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the archives")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
