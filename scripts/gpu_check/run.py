"""Runs the check on a machine with only the transferred files: unpacks `make gpu-pack`'s output and runs the parts.

    python3 -m scripts.gpu_check.run --minutes 8 --output DIR [PART ...]

with the Python that has torch, in the repository's folder. Nothing is installed; unpacked files are removed at the end.
Standard library only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.gpu_check.carried import REPOSITORY, prepare

__all__ = ["main", "misfits"]

# Limits of the GPU machine on returned files.
_MAX_FILES, _MAX_BYTES, _MAX_DEPTH = 8, 16 << 20, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the check within the minutes, including unpacking; returns 1 if a step failed or a result is too large."""
    begun_s = time.monotonic()
    arguments = _parser().parse_args(argv)
    if not (arguments.carried / "pack.json").is_file():
        print(f"gpu-check: {arguments.carried} holds nothing: run make gpu-pack and carry it along", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="gpu_check_carried_") as folder:
        environment, problems = prepare(arguments.carried, Path(folder))
        for line in problems:
            print(f"gpu-check: {line}", flush=True)
        print(f"gpu-check: unpacked in {time.monotonic() - begun_s:.1f} s", flush=True)
        command = [sys.executable, "-m", "scripts.gpu_check.runner", *arguments.parts, "--device", arguments.device]
        # The clock is shared by all processes: the runner's start-up, which may have to load torch, counts, too.
        command += ["--minutes", f"{arguments.minutes}", "--begun", f"{begun_s}"]
        command += ["--output", str(arguments.output.resolve())]
        status = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode
    for line in (wrong := misfits(arguments.output)):
        print(f"gpu-check: will not come back: {line}", file=sys.stderr)
    return status or bool(wrong)


def misfits(output: Path) -> list[str]:
    """Results that exceed the limits in number, size or depth."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    lines = [f"{path}: {path.stat().st_size} bytes" for path in files if path.stat().st_size > _MAX_BYTES]
    lines += [f"{path}: too deep" for path in files if len(path.relative_to(output).parts) > _MAX_DEPTH + 1]
    if len(files) > _MAX_FILES:
        lines.append(f"{len(files)} files, of which {_MAX_FILES} do")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gpu-check", description="Prove, measure and train where only files came to.")
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the rehearsal (default: cuda)")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which everything has ended (default: 8)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the archives")
    parser.add_argument(
        "--carried",
        type=Path,
        default=REPOSITORY / ".gpu",
        metavar="DIR",
        help="what was packed (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
