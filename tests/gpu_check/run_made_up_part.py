"""Runs the real runner with the made-up part, also in its child processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts.gpu_check import runner
from scripts.gpu_check.parts import PARTS

_MODULE = "tests.gpu_check.made_up_part"
_CHILD = (
    f"from scripts.gpu_check.parts import PARTS; PARTS['machine'] = '{_MODULE}'; "
    "from scripts.gpu_check.part_process import main; raise SystemExit(main())"
)


def run(output: Path, minutes: float) -> int:
    """As `runner.main` for the part "machine"."""
    start: Any = subprocess.Popen
    before = PARTS["machine"]

    def start_made_up(command: list[str], **options: Any) -> Any:
        assert command[1:3] == ["-m", "scripts.gpu_check.part_process"]
        return start([command[0], "-c", _CHILD, *command[3:]], **options)

    PARTS["machine"] = _MODULE
    runner.subprocess.Popen = start_made_up  # type: ignore[misc, assignment]
    try:
        return runner.run_parts("cpu", minutes, Path("nowhere"), output, ["machine"])
    finally:
        runner.subprocess.Popen = start  # type: ignore[misc]
        PARTS["machine"] = before


if __name__ == "__main__":
    raise SystemExit(run(Path(sys.argv[1]), float(sys.argv[2])))
