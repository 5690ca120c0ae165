"""Runs the steps of one part in a process of its own; started, watched and ended by `runner.py`."""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from scripts.gpu_check.archive import save_record, write_archive
from scripts.gpu_check.parts import PARTS
from scripts.gpu_check.step import Context, LeftOutError, Outcome, PartModule, Step

__all__ = ["POISONED", "load_part", "main", "started_file"]

# Exit status: the device answers no more in this process, so that the further steps need another one.
POISONED = 3
_LAST_LINES = 12


def load_part(name: str) -> PartModule:
    """The module of a part."""
    return cast(PartModule, importlib.import_module(PARTS[name]))


def started_file(folder: Path) -> Path:
    """Says when the step under way began, as `time.monotonic()`; those before it have left their records."""
    return folder / "started"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the steps from a given one on: part, first step, device, shared, folder, archive, keep, deadline."""
    part, first, device, shared, folder, archive, keep, deadline = sys.argv[1:] if argv is None else argv
    context = Context(device, Path(shared), Path(folder), Path(keep), float(deadline))
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
        if device != "cpu" and not _device_answers():
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
        # One broken step must not take the others along, whatever it is that broke.
        lines = traceback.format_exc().splitlines()
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}"
        return "failed", Outcome(passed=False, text=text, data={"traceback": lines[-_LAST_LINES:]})
    return "passed" if result.passed else "failed", result


def _device_answers() -> bool:
    """Whether the device still works: after an illegal access every call in a process fails."""
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
