"""The corpus and some of its mutations in each run; and whether fuzzing finds planted faults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sensor_msgs", reason="needs ROS 2: a parser reads its messages")

from tests.campaign import Campaign
from tests.conftest import REPOSITORY
from tests.fuzz.corpus import CORPUS, seeds
from tests.fuzz.planted import FAULTS
from tests.fuzz.supervisor import Plan, execute

_CORPUS_BYTES = 300_000


def _names() -> list[str]:
    return sorted(path.name for path in CORPUS.iterdir())


def test_the_corpus_and_mutations_of_it_are_taken_or_refused(tmp_path: Path, campaign: Campaign) -> None:
    count = campaign.count(2000, "mutations for each parser")
    names = _names()
    outcomes = execute(names, Plan(tmp_path, campaign.seed, mutations=count))
    found = [path.with_name(f"{path.name}.txt").read_text() for name in names for path in outcomes[name].findings]
    assert not found, "\n\n".join(found)
    for name, outcome in outcomes.items():
        assert outcome.count.executions == outcome.count.taken + outcome.count.refused
        assert outcome.count.executions == count + len(list(seeds(name))), name
        # Each parser has whole inputs that it takes, so that what is behind its first checks is reached.
        assert outcome.count.taken > 0, name


def test_every_kind_of_fault_is_found_with_its_input(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    for name in FAULTS:
        (inputs / name).mkdir(parents=True)
        for number, data in enumerate((b"even", b"odd", b"F" + b"." * 63)):
            (inputs / name / str(number)).write_bytes(data)
    plan = Plan(tmp_path / "output", module="tests.fuzz.planted", inputs=inputs, mutations=3, hang_s=15.0)
    outcomes = execute(list(FAULTS), plan)
    for name, (cause, _) in FAULTS.items():
        (found,) = outcomes[name].findings
        assert found.name.startswith(cause)
        data = found.read_bytes()
        assert data.startswith(b"F")
        if outcomes[name].count.executions > 6:
            assert data == b"F"  # of what its process outlives, the shortest input with the same cause is kept
        # The line that says how to see it again works.
        words = found.with_name(f"{found.name}.txt").read_text().rstrip().rpartition("python -m ")[2].split()
        assert words == ["tests.fuzz", "--reproduce", str(found)]


def test_an_input_is_executed_again_by_its_path() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--reproduce", str(CORPUS / "times" / "found-long-word")]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.stdout == "times: refused by a documented error; nothing is wrong\n", result.stderr
    assert result.returncode == 0


def test_the_corpus_is_small_and_complete() -> None:
    from tests.fuzz.parsers import PARSERS

    assert _names() == sorted(PARSERS)
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= _CORPUS_BYTES
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in files)


@pytest.mark.parametrize("arguments", [["nothing"], ["--minutes", "x"]])
def test_unknown_words_are_refused(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
