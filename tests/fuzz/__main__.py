"""Fuzzes for some minutes, or executes one input again, for `make fuzz`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.corpus import CORPUS
from tests.fuzz.supervisor import Outcome, Plan, execute, fuzz


def main() -> int:
    """Returns 1 if anything was found."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    options.add_argument("parsers", nargs="*", help="names or groups (bag, weights, download); all if none is given")
    options.add_argument("--minutes", type=float, default=10.0, help="for all parsers together, on all cores")
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--output", type=Path, default=Path("fuzz_output"))
    options.add_argument(
        "--reproduce", type=Path, metavar="FILE", help="execute this input of the parser of its folder"
    )
    arguments = options.parse_args()
    if arguments.reproduce is not None:
        return _reproduce(arguments.reproduce.resolve())
    every = sorted(path.name for path in CORPUS.iterdir())
    parsers = list(dict.fromkeys(name for word in arguments.parsers for name in _named(word, every, options))) or every
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    is_guided = importlib.util.find_spec("atheris") is not None
    cores = min(os.cpu_count() or 1, len(parsers))
    plan = Plan(arguments.output.resolve(), seed, 60 * arguments.minutes * cores / len(parsers), is_guided=is_guided)
    engine = "atheris" if is_guided else "mutations of the corpus, atheris is not installed here"
    print(
        f"seed {seed}, {plan.seconds:.0f} s for each of {len(parsers)} parsers, {cores} at once; {engine}", flush=True
    )
    begin_s = time.monotonic()
    outcomes = fuzz(parsers, plan)
    print(_table(outcomes))
    found = [path for outcome in outcomes.values() for path in outcome.findings]
    print(f"{len(found)} findings in {(time.monotonic() - begin_s) / 60:.1f} min; inputs and logs are in {plan.folder}")
    for path in found:
        text = path.with_name(f"{path.name}.txt").read_text(encoding="utf-8")
        print(f"\n{path.parent.name}: {text.partition(chr(10))[0][:300]}\n  python -m tests.fuzz --reproduce {path}")
    return 1 if found else 0


def _named(word: str, every: list[str], options: argparse.ArgumentParser) -> list[str]:
    """The parser of this name, or those of the group."""
    names = [word] if word in every else [name for name in every if name.partition("-")[0] == word]
    if not names:
        options.error(f"no parser {word!r}; expected some of {', '.join(every)}")
    return names


def _table(outcomes: dict[str, Outcome]) -> str:
    rows = [("parser", "executions", "per s", "taken", "refused", "branches", "new inputs", "findings")]
    for name, outcome in outcomes.items():
        count = outcome.count
        numbers = (count.executions, round(count.executions / max(count.seconds, 1e-9)), count.taken, count.refused)
        branches = "-" if outcome.coverage is None else f"{outcome.coverage:,}"
        rows.append(
            (name, *(f"{number:,}" for number in numbers), branches, str(outcome.new), str(len(outcome.findings)))
        )
    total = [
        sum(outcome.count.executions for outcome in outcomes.values()),
        sum(len(o.findings) for o in outcomes.values()),
    ]
    rows.append(("all", f"{total[0]:,}", "", "", "", "", "", str(total[1])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _reproduce(path: Path) -> int:
    """As the corpus of its parser, in a process of its own."""
    parser = path.parent.name
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(Path(folder), inputs=path)
        (outcome,) = execute([parser], plan).values()
        for found in outcome.findings:
            print(found.with_name(f"{found.name}.txt").read_text(encoding="utf-8"))
        if not outcome.findings:
            print(f"{parser}: {'taken' if outcome.count.taken else 'refused by a documented error'}; nothing is wrong")
        return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
