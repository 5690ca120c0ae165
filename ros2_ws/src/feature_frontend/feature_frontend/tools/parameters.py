"""Prints the node's parameters: as the README's table, or as a YAML file to start from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from feature_frontend.settings import PARAMETERS
from feature_frontend.settings.parameter import ParameterRecord
from feature_frontend.tools.common.arguments import Parser

__all__ = ["main", "markdown_table", "yaml_file"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool."""
    arguments = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    print(yaml_file() if arguments.yaml else markdown_table())
    return 0


def _parser() -> Parser:
    parser = Parser(prog="parameters", description="Print the node's parameters.")
    parser.add_argument("--yaml", action="store_true", help="as a parameter file with the defaults")
    return parser


def markdown_table() -> str:
    """One row a parameter: name, default, range, whether it is live, meaning."""
    rows = ["| parameter | default | range | live | meaning |", "|---|---|---|---|---|"]
    rows += [
        f"| `{record.name}` | `{json.dumps(record.default)}` | {_range(record)} | {_live(record)} "
        f"| {record.description} |"
        for record in PARAMETERS.values()
    ]
    return "\n".join(rows)


def yaml_file() -> str:
    """A parameter file that holds every parameter at its default, each with its meaning."""
    lines = ["/**:", "  ros__parameters:"]
    for record in PARAMETERS.values():
        lines.append(f"    # {record.description}")
        lines.append(f"    {record.name}: {json.dumps(record.default)}")
    return "\n".join(lines)


def _live(record: ParameterRecord) -> str:
    return "reloads" if record.reloads else "yes" if record.live else ""


def _range(record: ParameterRecord) -> str:
    if record.choices:
        return ", ".join(f"`{choice}`" for choice in record.choices)
    if record.minimum is None or record.maximum is None:
        return ""
    return f"{record.minimum} to {record.maximum}" + (f" {record.unit}" if record.unit else "")


if __name__ == "__main__":
    raise SystemExit(main())
