"""The suites by name: modules with a one-line `HELP` and `run(options, log)`, which returns a `SuiteResult`."""

from __future__ import annotations

__all__ = ["DEFAULT_SUITES", "SUITES"]

# Module paths, imported only when a suite runs: `node` requires ROS, `extract` kornia.
SUITES: dict[str, str] = {
    "extract": "benchmarks.suites.extract",
    "match": "benchmarks.suites.match",
    "onnx": "benchmarks.suites.onnx",
    "frame": "benchmarks.suites.frame",
    "tracks": "benchmarks.suites.tracks",
    "node": "benchmarks.suites.node",
    "memory": "benchmarks.suites.memory",
    "soak": "benchmarks.suites.soak",
}
DEFAULT_SUITES = ("extract", "match")
