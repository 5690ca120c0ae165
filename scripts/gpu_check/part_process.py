"""Runs the steps of one part as a separate process; started, monitored and stopped by `runner.py`."""

from __future__ import annotations

import faulthandler
import importlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from scripts.gpu_check.archive import save_record, write_archive
from scripts.gpu_check.errors import describe_error, first_line
from scripts.gpu_check.parts import PARTS
from scripts.gpu_check.step import Context, LeftOutError, Outcome, PartModule, Step

__all__ = ["ASK_WHERE", "POISONED", "load_part", "main", "started_file"]

# Exit status: the device may have failed in this process; further steps need a new one.
POISONED = 3
# Signal on which the process prints the stack of each thread; it also does so on a crash.
ASK_WHERE = signal.SIGUSR1
_STACKS = "stacks.log"


def load_part(name: str) -> PartModule:
    """Imports the module of a part."""
    return cast(PartModule, importlib.import_module(PARTS[name]))


def started_file(folder: Path) -> Path:
    """Records when the current step began, as `time.monotonic()`; earlier steps have written their records."""
    return folder / "started"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the steps from a given one: part, first step, device, shared, folder, archive, keep, deadline."""
    part, first, device, shared, folder, archive, keep, deadline = sys.argv[1:] if argv is None else argv
    context = Context(device, Path(shared), Path(folder), Path(keep), float(deadline))
    # C-level handlers: they work while Python waits for a device. The file must stay open until the process ends.
    stacks = (context.scratch / _STACKS).open("a", encoding="utf-8")
    faulthandler.enable(stacks)
    faulthandler.register(ASK_WHERE, stacks)
    module = load_part(part)
    for index, step in enumerate(module.steps(context)):
        if index < int(first):
            continue
        start_s = time.monotonic()
        started_file(context.scratch).write_text(f"{start_s}", encoding="ascii")
        outcome, result = _run(step, context)
        save_record(context.scratch, index, step.name, outcome, time.monotonic() - start_s, result)
        write_archive(Path(archive), part, module.TITLE, context.scratch)
        print(f"gpu-check: {part}/{step.name}: {outcome}: {result.text}", flush=True)
        # A CUDA graph capture interrupted by an error also leaves torch's allocator in an inconsistent state.
        if device != "cpu" and ("traceback" in result.data or not _device_answers()):
            return POISONED
    return 0


def _run(step: Step, context: Context) -> tuple[str, Outcome]:
    if context.left_s < step.needs_s:
        return "left out", Outcome(passed=False, text=f"needs {step.needs_s:g} s, {context.left_s:.0f} s were left")
    try:
        result = step.run(context)
    except LeftOutError as reason:
        return "left out", Outcome(passed=False, text=str(reason))
    except Exception as error:
        # An error in one step must not affect the others.
        return "failed", Outcome(passed=False, text=first_line(error), data={"traceback": describe_error(error)})
    return "passed" if result.passed else "failed", result


def _device_answers() -> bool:
    """Whether the device still works: after an illegal access, every call in the process fails."""
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except (RuntimeError, AssertionError):  # AssertionError if torch lacks CUDA
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
