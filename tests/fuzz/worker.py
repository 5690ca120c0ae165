"""A process that executes parsers one after another; its progress and findings survive it (`supervisor.py`).

With atheris, libFuzzer selects inputs by the branches that they reach in our code; otherwise, they are mutations of the
corpus.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.corpus import seeds
from tests.fuzz.mutation import Mutator
from tests.fuzz.parser import Finding, Judge, Parser
from tests.fuzz.state import MAX_INPUT_BYTES, Count, State

__all__ = ["INSTRUMENTED", "Recorder"]

# What of an input's way counts for libFuzzer: our code, and the parts of others that are as much a parser of it.
INSTRUMENTED = ("feature_frontend", "yaml", "zipfile", "http", "html", "rosbags.serde", "configparser")
# More address space than at the start: what asks for more at once gets MemoryError.
_MORE_BYTES = 2 << 30
_MINIMIZING_S = 3.0
_MOST_FINDINGS = 50
# Shares of inputs: those whose checksums stay wrong, and, with libFuzzer, those that are mutated by us.
_UNREPAIRED, _OWN_MUTATIONS = 0.2, 0.5

Mutation = Callable[[bytes, random.Random], bytes]


class Recorder:
    """Executes one parser, and keeps what it finds.

    Args:
        parser: The parser.
        number: Its number, for `state`.
        state: Where a supervisor reads what is going on.
        findings: Folder; each cause is written once.
    """

    def __init__(self, parser: Parser, number: int, state: State, findings: Path) -> None:
        self.parser = parser
        self.count = Count()
        self._judge = Judge(parser)
        self._begin_s = time.monotonic()
        self._number, self._state, self._folder = number, state, findings / parser.name
        self._causes: set[str] = set()

    def __call__(self, data: bytes) -> None:
        """Executes the parser once."""
        finding = self._execute(data)
        if finding is None or finding.cause in self._causes or len(self._causes) >= _MOST_FINDINGS:
            return
        self._causes.add(finding.cause)
        path = self._folder / finding.cause
        if not path.exists():
            write_finding(path, self._smaller(data, finding.cause), finding.text)

    def _execute(self, data: bytes) -> Finding | None:
        self._state.begin(self._number, data)
        finding = self._judge(data)
        judge = self._judge
        self.count = Count(self.count.executions + 1, judge.taken, judge.refused, time.monotonic() - self._begin_s)
        self._state.end(self._number, self.count)
        return finding

    def _smaller(self, data: bytes, cause: str) -> bytes:
        """A shorter input with the same cause, as far as a few seconds lead."""
        end_s = time.monotonic() + _MINIMIZING_S
        step = len(data) // 2
        while step and cause not in {"memory", "slow"}:
            begin = 0
            while begin < len(data) and time.monotonic() < end_s:
                shorter = data[:begin] + data[begin + step :]
                found = self._execute(shorter)
                if found is not None and found.cause == cause:
                    data = shorter
                else:
                    begin += step
            step //= 2
        return data


def write_finding(path: Path, data: bytes, text: str) -> None:
    """An input and, beside it, what is wrong with what became of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_name(f"{path.name}.txt").write_text(
        f"{text}\n\nAgain: python -m tests.fuzz --reproduce {path}\n", encoding="utf-8", errors="backslashreplace"
    )


def _mutated(recorder: Recorder, inputs: list[bytes], mutate: Mutation, arguments: Any) -> None:
    """The corpus as it is, then mutations of it, until the time is over or their number is reached."""
    chance = random.Random(f"{arguments.seed} {recorder.parser.name}")
    end_s = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")
    last = float("inf") if arguments.seconds else len(inputs) + arguments.mutations
    for data in inputs:
        recorder(data)
    while recorder.count.executions < last and time.monotonic() < end_s:
        recorder(mutate(chance.choice(inputs), chance))


def _guided(recorder: Recorder, inputs: list[bytes], mutate: Mutation, arguments: Any) -> None:
    import atheris

    chance = random.Random()

    def mutate_or_let(data: bytes, most: int, seed: int) -> bytes:
        chance.seed(seed)
        if chance.random() < _OWN_MUTATIONS:
            return mutate(data, chance)[:most]
        changed = bytes(atheris.Mutate(data, most))
        repair = recorder.parser.repair
        return changed if repair is None or chance.random() < _UNREPAIRED else repair(changed)[:most]

    own, kept = (Path(folder) for folder in arguments.corpus)
    options = {
        "max_total_time": max(int(arguments.seconds), 1),
        "seed": arguments.seed % (1 << 31) + 1,
        "max_len": _longest(inputs),
        "len_control": 0,
        "rss_limit_mb": 0,
        "timeout": 1_000_000,
        "reload": 0,
        "print_final_stats": 1,
        "artifact_prefix": f"{own}/",
        **{f"handle_{name}": 0 for name in ("abrt", "bus", "fpe", "ill", "segv", "int", "term", "usr1")},
    }
    command = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(own), str(kept)]
    atheris.Setup(command, recorder, custom_mutator=mutate_or_let)
    atheris.Fuzz()  # ends the process


def _longest(inputs: list[bytes]) -> int:
    return min(max(4096, 2 * max(map(len, inputs))), MAX_INPUT_BYTES)


def _import(module: str, *, is_guided: bool) -> Mapping[str, Parser]:
    if not is_guided:
        return importlib.import_module(module).PARSERS  # type: ignore[no-any-return]
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        return importlib.import_module(module).PARSERS  # type: ignore[no-any-return]


def _limit_memory() -> None:
    words = Path("/proc/self/statm").read_text(encoding="ascii").split()
    most = int(words[0]) * resource.getpagesize() + _MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # A stack overflow of C code leaves gigabytes behind otherwise.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _one_thread() -> None:
    """What other threads do would count for an execution."""
    for name in ("cv2", "torch"):
        module = sys.modules.get(name)
        if module is not None:
            (module.setNumThreads if name == "cv2" else module.set_num_threads)(1)


def main() -> None:
    """Executes parsers until their time is over or their number of inputs is reached."""
    options = argparse.ArgumentParser()
    options.add_argument("parsers", nargs="+")
    options.add_argument("--module", required=True)
    options.add_argument("--state", type=Path, required=True, help="folder of what the supervisor reads")
    options.add_argument("--findings", type=Path, required=True, help="folder")
    options.add_argument("--inputs", type=Path, required=True, help="one file, or a folder with folders of them")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--seconds", type=float, default=0.0)
    options.add_argument("--mutations", type=int, default=0)
    options.add_argument("--corpus", nargs=2, help="for atheris: where it keeps what it found, and the repository's")
    arguments = options.parse_args()
    stacks = (arguments.state / "stacks").open("w")
    faulthandler.enable(stacks)
    faulthandler.register(signal.SIGUSR1, stacks)
    parsers = _import(arguments.module, is_guided=arguments.corpus is not None)
    state = State(arguments.state / "state", len(arguments.parsers))
    _one_thread()
    _limit_memory()
    for number, name in enumerate(arguments.parsers):
        inputs = _inputs(arguments.inputs, name)
        recorder = Recorder(parsers[name], number, state, arguments.findings)
        (_guided if arguments.corpus else _mutated)(recorder, inputs, _mutation(parsers[name], inputs), arguments)


def _inputs(place: Path, parser: str) -> list[bytes]:
    return [place.read_bytes()] if place.is_file() else [data for _, data in seeds(parser, place)]


def _mutation(parser: Parser, inputs: list[bytes]) -> Mutation:
    mutator = Mutator(inputs, parser.tokens, _longest(inputs))

    def mutate(data: bytes, chance: random.Random) -> bytes:
        changed = mutator(data, chance)
        return changed if parser.repair is None or chance.random() < _UNREPAIRED else parser.repair(changed)

    return mutate


if __name__ == "__main__":
    main()
