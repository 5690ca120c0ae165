"""The suites by name: modules with `HELP`, one line, and `run(options, log)`, which gives a `SuiteResult`."""

from __future__ import annotations

__all__ = ["DEFAULT_SUITES", "SUITES"]

# Module paths, imported when a suite runs: `node` needs ROS, `extract` kornia.
SUITES: dict[str, str] = {
    "extract": "benchmarks.suites.extract",
    "match": "benchmarks.suites.match",
    "frame": "benchmarks.suites.frame",
    "tracks": "benchmarks.suites.tracks",
    "node": "benchmarks.suites.node",
    "memory": "benchmarks.suites.memory",
    "soak": "benchmarks.suites.soak",
}
DEFAULT_SUITES = ("extract", "match")
