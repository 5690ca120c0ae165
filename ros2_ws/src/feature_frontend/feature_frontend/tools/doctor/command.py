"""The command line of `doctor`: selects the checks and prints their findings."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from feature_frontend.tools.common.arguments import Parser, above_zero, topic
from feature_frontend.tools.common.guard import run_tool
from feature_frontend.tools.doctor.finding import Finding, Verdict
from feature_frontend.tools.doctor.machine import MACHINE_CHECKS, check_weights

__all__ = ["main"]

_WIDTH = 120
_SUBJECT_WIDTH = 13
_MOST_CAMERAS = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 1 if anything does not work."""
    parser = _parser()
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    for name in ("image_topic", "camera_info_topic"):
        if len(getattr(options, name)) > _MOST_CAMERAS:
            parser.error(f"--{name.replace('_', '-')} names {len(getattr(options, name))} topics; expected one or two")
    return run_tool(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    findings = []
    for finding in _examine(options):
        findings.append(finding)
        if not options.json:
            print(_formatted(finding), flush=True)
    if options.json:
        rows = [dataclasses.asdict(finding) | {"verdict": finding.verdict.value} for finding in findings]
        print(json.dumps(rows, indent=2))
    else:
        counts = [f"{sum(f.verdict is verdict for f in findings)} {verdict.value}" for verdict in Verdict]
        print(f"\n{', '.join(counts)}")
    return int(any(finding.verdict is Verdict.FAIL for finding in findings))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="doctor",
        description="Check the machine, the installation and the running ROS graph, and say what to do. Needs no "
        "running node; with one, its topics are checked too. Exit status 1 if anything FAILs.",
    )
    add = parser.add_argument
    add(
        "--image-topic",
        type=topic,
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="of the camera, or of the left and the right one (default: the topics of a running front-end, "
        "else image, or left/image and right/image)",
    )
    add(
        "--camera-info-topic",
        type=topic,
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="of its calibration, or of both (default: as a running front-end, else camera_info next to the images)",
    )
    add("--params-file", type=Path, metavar="YAML", help="parameters of the node (default: its defaults)")
    add("--timeout", type=above_zero, default=3.0, metavar="S", help="timeout of each check (default 3)")
    add("--no-graph", action="store_true", help="do not check the running ROS graph")
    add("--json", action="store_true", help="as JSON")
    return parser


def _examine(options: argparse.Namespace) -> Iterator[Finding]:
    findings = []
    for finding in chain.from_iterable(check() for check in MACHINE_CHECKS):
        findings.append(finding)
        yield finding
    by_subject = {finding.subject: finding.verdict for finding in findings}
    if by_subject.get("torch") is Verdict.FAIL or by_subject.get("numpy") is Verdict.FAIL:
        return
    # Imported here: a dependency of the settings may be missing.
    from feature_frontend.settings import Settings
    from feature_frontend.settings.parameter_file import read_parameter_files

    parameters = {} if options.params_file is None else read_parameter_files([options.params_file])
    settings = Settings.from_mapping(parameters)
    yield from check_weights(settings)
    if options.no_graph or Verdict.FAIL in {by_subject.get(name) for name in ("limits", "ROS 2", "messages")}:
        return
    from feature_frontend.tools.doctor.graph import GraphOptions, check_graph

    graph_options = GraphOptions(
        image_topics=options.image_topic,
        camera_info_topics=options.camera_info_topic,
        settings=settings,
        timeout_s=options.timeout,
        has_room=by_subject.get("middleware") is Verdict.OK,
    )
    yield from check_graph(graph_options)


def _formatted(finding: Finding) -> str:
    head = f"{finding.verdict.value:<6}{finding.subject:<{_SUBJECT_WIDTH}}"
    indent = " " * len(head)
    lines = textwrap.wrap(
        finding.text,
        _WIDTH,
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if finding.advice:
        lines += textwrap.wrap(f"-> {finding.advice}", _WIDTH, initial_indent=indent, subsequent_indent=indent + "   ")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
