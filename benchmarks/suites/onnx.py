"""Suite `onnx`: our extractors beside their exported files in the programs that run them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from benchmarks.engines.exported import PROGRAMS, ExportedEngine
from benchmarks.engines.extraction import ExtractionEngine, load_engines, network_settings
from benchmarks.images import load_frames
from benchmarks.suites.extract import FRAME_COUNT, ExtractionSuite
from benchmarks.types import Options, SuiteResult
from feature_frontend.errors import SettingsError

__all__ = ["ENGINES", "HELP", "PARTS", "run"]

HELP = "our extractors beside their exported files in onnxruntime, OpenVINO and OpenCV 5, on the CPU"
ENGINES = ("fast", "plain", *PROGRAMS)
PARTS = ("headline", "sizes")

Log = Callable[[str], None]


def run(options: Options, log: Log) -> SuiteResult:
    """Measures the requested parts.

    Raises:
        FeatureFrontendError: No engine is left, images or weights cannot be read, or engines that should compute the
            same results differ.
    """
    if options.device != "cpu":
        raise SettingsError(f"suite onnx runs on the CPU, not on {options.device}: leave --device out")
    frames = load_frames(options.images, FRAME_COUNT)
    wanted = options.engines or ENGINES
    ours = tuple(name for name in ("fast", "plain") if name in wanted)
    engines: list[ExtractionEngine] = load_engines(replace(options, engines=ours), log) if ours else []
    with TemporaryDirectory(prefix="feature_frontend_benchmark_") as folder:
        engines += [
            ExportedEngine(program, network_settings(name, options), Path(folder), options.threads)
            for program in _programs(wanted, log)
            for name in options.extractors
        ]
        if not engines:
            raise SettingsError(f"no engine is left of {', '.join(wanted)}; choose others by --engines")
        # The variants of one network are adjacent.
        engines.sort(key=lambda engine: options.extractors.index(engine.name.partition(" ")[0]))
        return ExtractionSuite("onnx", options, log, frames, engines, options.parts or PARTS).result()


def _programs(wanted: Sequence[str], log: Log) -> Iterator[str]:
    """Those of the wanted programs that can run; reports the others and the reason to `log`."""
    for program, package in PROGRAMS.items():
        if program not in wanted:
            continue
        if importlib.util.find_spec(package) is None:
            log(f"{package} is not installed (pip install {package}): runs without it")
        elif program == "opencv" and int(cv2.__version__.split(".")[0]) < 5:
            log(f"OpenCV {cv2.__version__} cannot read the files, which have no fixed size: OpenCV 5 can; runs without")
        else:
            yield program
