"""A part whose steps fail in every way, run by `test_runner.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from scripts.gpu_check.step import Context, LeftOutError, Outcome, Step

TITLE = "A part that goes wrong"
# A process that a hanging step has started writes its number here.
CHILD = "child"
_HANG_S = 600.0


def steps(context: Context) -> Sequence[Step]:
    """One of each kind; `context.keep` holds "only" where a test wants these alone."""
    chosen = context.keep / "only"
    all_steps = (
        Step("good", _good),
        Step("raises", _raises),
        Step("hangs", _hangs, limit_s=2.0),
        Step("dies", _dies),
        Step("not_there", _not_there),
        Step("needs_much", _good, needs_s=1e6),
        Step("good_again", _good),
        Step("waits", _waits, limit_s=300.0),
    )
    names = chosen.read_text(encoding="utf-8").split() if chosen.is_file() else [step.name for step in all_steps[:-1]]
    return [step for step in all_steps if step.name in names]


def _good(context: Context) -> Outcome:
    small, large = context.scratch / "small.txt", context.scratch / "large.bin"
    small.write_text("small", encoding="utf-8")
    with large.open("wb") as file:
        file.truncate(16 << 20)
    return Outcome(passed=True, text="all is well", data={"process": os.getpid()}, files=[small, large])


def _raises(context: Context) -> Outcome:
    del context
    image = torch.zeros((2, 3), dtype=torch.float16)
    msg = f"this is broken\nand this is more of it: {image.dim()}"
    raise ValueError(msg)


def _hangs(context: Context) -> Outcome:
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({_HANG_S})"])
    (context.keep / CHILD).write_text(f"{child.pid}", encoding="ascii")
    time.sleep(_HANG_S)
    return Outcome(passed=True, text="never")


def _dies(context: Context) -> Outcome:
    del context
    os.kill(os.getpid(), signal.SIGSEGV)
    return Outcome(passed=True, text="never")


def _not_there(context: Context) -> Outcome:
    msg = f"no card in {Path(context.device)}"
    raise LeftOutError(msg)


def _waits(context: Context) -> Outcome:
    """Until it is killed."""
    (context.keep / CHILD).write_text(f"{os.getpid()}", encoding="ascii")
    time.sleep(_HANG_S)
    return Outcome(passed=True, text="never")
