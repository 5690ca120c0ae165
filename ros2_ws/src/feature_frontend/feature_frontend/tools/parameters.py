"""Prints the node's parameters: as the tables of docs/parameters.md, or as a YAML file to start from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from feature_frontend.settings import PARAMETERS
from feature_frontend.settings.extraction import ExtractionSettings
from feature_frontend.settings.matching import EpipolarSettings, MatchingSettings
from feature_frontend.settings.node import NodeSettings
from feature_frontend.settings.parameter import ParameterRecord, SettingsGroup
from feature_frontend.settings.stereo import StereoSettings
from feature_frontend.settings.tracking import TrackingSettings
from feature_frontend.tools.common.arguments import Parser

__all__ = ["main", "markdown_tables", "yaml_file"]

_GROUPS: dict[str, type[SettingsGroup]] = {
    "Extraction": ExtractionSettings,
    "Matching": MatchingSettings,
    "Tracking": TrackingSettings,
    "Epipolar check": EpipolarSettings,
    "Node": NodeSettings,
    "Stereo": StereoSettings,
}
# More choices than this are listed below the meaning, not in a separate column.
_FEW_CHOICES = 6


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool."""
    arguments = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    print(yaml_file() if arguments.yaml else markdown_tables())
    return 0


def _parser() -> Parser:
    parser = Parser(prog="parameters", description="Print the node's parameters.")
    parser.add_argument("--yaml", action="store_true", help="as a parameter file with the defaults")
    return parser


def markdown_tables() -> str:
    """One table per group of parameters: name, default, range, whether it is live, meaning."""
    lines, seen = [], set[str]()
    for title, group in _GROUPS.items():
        records = [record for name, record in group.records().items() if name not in seen]
        seen.update(record.name for record in records)
        lines += [f"## {title}", "", "| parameter | default | range | live | meaning |", "|---|---|---|---|---|"]
        lines += [
            f"| `{record.name}` | `{json.dumps(record.default)}` | {_range(record)} | {_live(record)} "
            f"| {_meaning(record)} |"
            for record in records
        ]
        lines.append("")
    lines += [
        "## Renamed",
        "",
        "The former names still work, with a warning.",
        "",
        "| former name | name |",
        "|---|---|",
    ]
    lines += [f"| `{record.formerly}` | `{record.name}` |" for record in PARAMETERS.values() if record.formerly]
    return "\n".join(lines)


def yaml_file() -> str:
    """A parameter file with every parameter at its default and its meaning."""
    lines = ["/**:", "  ros__parameters:"]
    for record in PARAMETERS.values():
        lines.append(f"    # {record.description}")
        lines.append(f"    {record.name}: {json.dumps(record.default)}")
    return "\n".join(lines)


def _live(record: ParameterRecord) -> str:
    return "reloads" if record.reloads else "yes" if record.live else ""


def _meaning(record: ParameterRecord) -> str:
    return record.description + (f" One of {_choices(record)}." if len(record.choices) > _FEW_CHOICES else "")


def _choices(record: ParameterRecord) -> str:
    return ", ".join(f"`{choice}`" for choice in record.choices)


def _range(record: ParameterRecord) -> str:
    if record.choices:
        return _choices(record) if len(record.choices) <= _FEW_CHOICES else ""
    if record.minimum is None or record.maximum is None:
        return ""
    return f"{record.minimum} to {record.maximum}" + (f" {record.unit}" if record.unit else "")


if __name__ == "__main__":
    raise SystemExit(main())
