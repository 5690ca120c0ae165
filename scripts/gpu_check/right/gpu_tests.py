"""Step: the tests marked `gpu`, by pytest in a separate process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.images import REPOSITORY
from benchmarks.types import Table
from scripts.gpu_check.step import Context, LeftOutError, Outcome
from scripts.gpu_check.timebox import TimeBox

__all__ = ["PytestRun", "gpu_tests", "read_junit"]

_MARK = "mark.gpu"
_LEAST_S = 8.0


@dataclass(frozen=True)
class PytestRun:
    """Outcome of the tests.

    Attributes:
        passed: Names.
        failed: Names, each with the first line of its message.
        skipped: Names, each with the reason.
    """

    passed: tuple[str, ...]
    failed: dict[str, str]
    skipped: dict[str, str]


def gpu_tests(context: Context, box: TimeBox) -> Outcome:
    """Fails if a test fails, or if none ran on a GPU."""
    report = context.scratch / "gpu_tests.xml"
    files = sorted(path for path in (REPOSITORY / "tests").rglob("test_*.py") if _runs_on_a_gpu(path))
    # Only these files: other tests need packages that the GPU machine may lack.
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command.append("--continue-on-collection-errors")
    limit_s = min(max(box.left_s, _LEAST_S), context.left_s)
    if limit_s < _LEAST_S:
        msg = f"pytest needs {_LEAST_S:g} s, {limit_s:.0f} s were left"
        raise LeftOutError(msg)
    log = context.scratch / "gpu_tests.txt"
    try:
        with log.open("w", encoding="utf-8") as output:
            words = [*command, *map(str, files)]
            done = subprocess.run(
                words, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, check=False, timeout=limit_s
            )
    except subprocess.TimeoutExpired:
        return Outcome(passed=False, text=f"pytest did not end within {limit_s:.0f} s", files=[log])
    if not report.is_file():
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        text = f"pytest ended with status {done.returncode} and no report: {''.join(last)}"
        return Outcome(passed=False, text=text, files=[log])
    return judge(read_junit(report), [log], is_rehearsal=context.is_rehearsal)


def judge(run: PytestRun, files: list[Path], *, is_rehearsal: bool) -> Outcome:
    """The step's outcome for a run of the tests."""
    counts = f"{len(run.passed)} passed, {len(run.failed)} failed, {len(run.skipped)} skipped"
    texts = [counts, *(f"{name}: {why}" for name, why in run.failed.items())]
    ran = bool(run.passed or run.failed)
    if not ran:
        texts.append("no card: they skip" if is_rehearsal else "none ran, although there is a card")
    found = bool(ran or run.skipped)
    rows = (
        *((name, "failed", why) for name, why in run.failed.items()),
        *((name, "skipped", why) for name, why in run.skipped.items()),
        *((name, "passed", "") for name in run.passed),
    )
    table = Table("Tests marked gpu", ("test", "outcome", "why"), rows)
    passes = not run.failed and found and (ran or is_rehearsal)
    data = {"passed": list(run.passed), "failed": run.failed, "skipped": run.skipped}
    return Outcome(passes, "; ".join(texts), [table], data, files)


def read_junit(path: Path) -> PytestRun:
    """Parses pytest's report."""
    passed: list[str] = []
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}
    # A trusted file, just written by pytest.
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name', '')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skip = case.find("skipped")
        if bad is not None:
            failed[name] = (bad.get("message") or "no message").splitlines()[0]
        elif skip is not None:
            skipped[name] = skip.get("message") or ""
        else:
            passed.append(name)
    return PytestRun(tuple(passed), failed, skipped)


def _runs_on_a_gpu(path: Path) -> bool:
    return _MARK in path.read_text(encoding="utf-8")
