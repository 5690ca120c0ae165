"""Runs suites one after another, prints their tables and writes the results."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, cast

import cv2
import torch

from benchmarks.images import REPOSITORY
from benchmarks.machine import CpuWatch, describe_machine, usable_cores
from benchmarks.report import Run, write_report
from benchmarks.suites import DEFAULT_SUITES, SUITES
from benchmarks.tables import render
from benchmarks.types import Options, Size, SuiteResult
from feature_frontend.errors import FeatureFrontendError, SettingsError
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.runtime.device import resolve_device
from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.tools.common.arguments import above_zero, natural, positive

__all__ = ["SuiteModule", "load_suite", "main"]

_BUSY_FRACTION = 0.05  # of all cores, used by other processes; above it, a run warns


class SuiteModule(Protocol):
    """Interface of the modules in `SUITES`; `ENGINES` and `PARTS`, lists of valid names, are optional."""

    HELP: str

    def run(self, options: Options, log: Callable[[str], None]) -> SuiteResult:
        """Runs the suite; `log` receives progress lines."""


@dataclass(frozen=True)
class _Request:
    """The command-line arguments."""

    suites: tuple[str, ...]
    options: Options
    output: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the requested suites; returns 0 if all were successful."""
    words = sys.argv[1:] if argv is None else list(argv)
    # As in the node; applies to every engine in this process.
    keep_freed_memory()
    request = _parse(words)
    try:
        modules = {name: load_suite(name) for name in request.suites}
        _check_names(modules, request.options)
        resolve_device(request.options.device)
        torch.set_num_threads(request.options.threads)
        cv2.setNumThreads(request.options.threads)
        for name, module in modules.items():
            _run_suite(name, module, request, f"python -m benchmarks {shlex.join(words)}".strip())
    except FeatureFrontendError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def load_suite(name: str) -> SuiteModule:
    """Imports the module of a suite.

    Raises:
        SettingsError: A dependency of the suite is not installed.
    """
    try:
        return cast(SuiteModule, importlib.import_module(SUITES[name]))
    except ModuleNotFoundError as error:
        msg = f"suite {name} cannot run: {error}; `make benchmark SUITE={name}` installs what it needs"
        raise SettingsError(msg) from error


def _run_suite(name: str, module: SuiteModule, request: _Request, command: str) -> None:
    machine = describe_machine(request.options.device)
    began = datetime.now(timezone.utc)
    start = time.perf_counter()
    _log(f"{name}: {module.HELP}")
    watch = CpuWatch()
    result = module.run(request.options, _log)
    others = watch.others_fraction()
    machine["others_cpu_fraction_during"] = None if others is None else round(others, 3)
    _log(
        f"{name}: {time.perf_counter() - start:.0f} s; other processes used {(others or 0):.1%} of the cores meanwhile"
    )
    if (others or 0) > _BUSY_FRACTION:
        _log("that is not a quiet machine: times are too long, and rounds differ; end what else runs and measure again")
    run = Run(command, began, machine, request.options, result)
    print("\n\n".join(render(table) for table in result.tables), flush=True)
    for path in write_report(request.output, run):
        print(f"\n{path}" if path.suffix == ".json" else path, flush=True)
    print()


def _check_names(modules: dict[str, SuiteModule], options: Options) -> None:
    for what, asked in (("engine", options.engines), ("part", options.parts)):
        known = dict.fromkeys(name for module in modules.values() for name in getattr(module, f"{what.upper()}S", ()))
        unknown = [name for name in asked if name not in known]
        if unknown:
            msg = (
                f"no {what} is called {', '.join(unknown)}; expected some of {', '.join(known) or 'none: leave it out'}"
            )
            raise SettingsError(msg)


def _log(line: str) -> None:
    print(f"benchmark: {line}", file=sys.stderr, flush=True)


def _parse(words: Sequence[str]) -> _Request:
    parser = _parser()
    arguments = parser.parse_args(words)
    suites = tuple(arguments.suites) or DEFAULT_SUITES
    # Not by argparse's choices: some releases of Python 3.11 then reject an empty list.
    unknown = [name for name in suites if name not in {*SUITES, "all"}]
    if unknown:
        parser.error(f"no suite is called {', '.join(unknown)}; expected some of {', '.join(SUITES)}, or all")
    if "all" in suites:
        suites = tuple(SUITES)
    options = Options(
        sizes=tuple(arguments.size),
        keypoints=tuple(arguments.keypoints),
        rounds=arguments.rounds,
        warmup=arguments.warmup,
        threads=arguments.threads,
        device=arguments.device,
        images=arguments.images,
        engines=tuple(arguments.engines),
        parts=tuple(arguments.parts),
        extractors=tuple(arguments.extractors),
        weights_dir=arguments.weights_dir,
        duration_s=arguments.duration,
        frames=arguments.frames,
        quick=arguments.quick,
    )
    return _Request(tuple(dict.fromkeys(suites)), options, arguments.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure this project and its peers in one run (benchmarks/README.md).",
    )
    defaults = Options()
    option = parser.add_argument
    option(
        "suites",
        nargs="*",
        metavar="SUITE",
        help=f"{', '.join(SUITES)} or all (default: {' '.join(DEFAULT_SUITES)})",
    )
    option(
        "--size", type=_size, nargs="+", default=[], metavar="WxH", help="sizes of the images, the first the headline's"
    )
    option(
        "--keypoints",
        type=positive,
        nargs="+",
        default=[],
        metavar="N",
        help="budgets, or points a side for a matcher, the first the headline's",
    )
    option("--rounds", type=positive, metavar="N", help="rounds of the headline (default: 30)")
    option("--warmup", type=natural, default=defaults.warmup, metavar="N", help="rounds before (default: %(default)s)")
    option("--threads", type=positive, default=usable_cores(), metavar="N", help="default here: %(default)s")
    option("--device", default=defaults.device, metavar="cpu|cuda", help="where networks run (default: %(default)s)")
    option("--images", type=Path, metavar="DIR", help="folder, video or bag (default: frames of TUM freiburg2_desk)")
    option("--engines", nargs="+", default=[], metavar="NAME", help="only these engines")
    option("--parts", nargs="+", default=[], metavar="NAME", help="only these parts of a suite")
    option(
        "--extractors",
        nargs="+",
        default=list(defaults.extractors),
        choices=list(EXTRACTORS),
        metavar="NAME",
        help="networks to measure (default: %(default)s)",
    )
    option(
        "--weights-dir",
        default=_shared_weights(),
        metavar="DIR",
        help="where published weights are looked for first (default here: %(default)s)",
    )
    option(
        "--duration",
        type=above_zero,
        default=defaults.duration_s,
        metavar="S",
        help="seconds for each setting, of a suite that watches a stream (default: %(default)s)",
    )
    option(
        "--frames",
        type=positive,
        default=defaults.frames,
        metavar="N",
        help="of a suite that looks for growth (default: %(default)s)",
    )
    option("--quick", action="store_true", help="few rounds and settings: does it run, not what does it give")
    option(
        "--output",
        type=Path,
        default=REPOSITORY / "benchmarks" / "results",
        metavar="DIR",
        help="folder for the JSON, the tables and the picture (default: benchmarks/results)",
    )
    return parser


def _size(text: str) -> Size:
    """Parses "640x480" as (width, height)."""
    width, separator, height = text.lower().partition("x")
    if not (separator and width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
        msg = f"{text} is not a size; expected WIDTHxHEIGHT, as in 640x480"
        raise argparse.ArgumentTypeError(msg)
    return int(width), int(height)


def _shared_weights() -> str:
    """The shared folder's weights if they exist; otherwise empty, so that the usual places are searched."""
    folder = Path(os.environ.get("FEATURE_FRONTEND_SHARED", REPOSITORY.parent / "shared")) / "weights"
    return str(folder) if folder.is_dir() else ""
