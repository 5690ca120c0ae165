"""`evaluate pairs`: matching of two images of a sequence, some frames apart, against known poses."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from feature_frontend.errors import SourceError
from feature_frontend.system.markdown import markdown_text
from feature_frontend.tools.common.arguments import above_zero, keypoints, natural, positive
from feature_frontend_lab.evaluation.commands.arguments import (
    add_method_arguments,
    method_progress,
    methods_of,
    tell_missing,
)
from feature_frontend_lab.evaluation.homography.baselines import LIGHTGLUE
from feature_frontend_lab.evaluation.reports.homography_report import json_value, make_report_folder
from feature_frontend_lab.evaluation.tracks.pairs import PairsResult, evaluate_pairs, pairs_table
from feature_frontend_lab.evaluation.tracks.sequence import SequenceOptions, open_sequence

__all__ = ["add_pairs"]

_DEFAULT_METHODS = ("aliked-n16", f"aliked-n16{LIGHTGLUE}", "sift", "orb")
_THRESHOLD_PX = 3.0


def add_pairs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "pairs",
        help="matching of images some frames apart, on sequences with known poses",
        description="Every method on the same pairs of images (docs/evaluation.md). Takes camera.yaml and the poses in "
        "groundtruth.txt (TUM) or poses.txt (KITTI) from the folder of the images. Writes pairs.md and pairs.json.",
    )
    add = command.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="folder of images, rosbag2 or video")
    add("--gaps", type=positive, nargs="+", default=[1, 5, 10], metavar="N", help="frames apart (default: 1 5 10)")
    add("--keypoints", type=keypoints, default=1000, metavar="N", help="budget (default: %(default)s)")
    add(
        "--threshold",
        type=above_zero,
        default=_THRESHOLD_PX,
        metavar="PX",
        help="how far from its true epipolar line a right match may be (default: %(default)s)",
    )
    add("--start", type=natural, default=0, metavar="N", help="leave out the first N images")
    add("--count", type=positive, metavar="N", help="take N images (default: all)")
    add_method_arguments(command, _DEFAULT_METHODS)
    command.set_defaults(run=_pairs, seed=0)


def _pairs(arguments: argparse.Namespace) -> int:
    methods = methods_of(arguments)
    options = SequenceOptions(start=arguments.start, count=arguments.count)
    sequences = [open_sequence(location, options) for location in arguments.sources]
    make_report_folder(arguments.output)
    results: dict[str, list[PairsResult]] = {}
    tables = ""
    for location, sequence in zip(arguments.sources, sequences, strict=True):
        with method_progress(sequence.name, "images") as advance:
            gaps = tuple(dict.fromkeys(arguments.gaps))
            found = evaluate_pairs(methods, sequence, gaps, arguments.keypoints, arguments.threshold, advance)
        results[location] = found
        table = f"{markdown_text(sequence.name)}:\n\n{pairs_table(found, arguments.threshold)}\n"
        tables += f"{table}\n"
        print(table, flush=True)
    data = {
        "keypoints": arguments.keypoints,
        "threshold_px": arguments.threshold,
        "sequences": {location: [asdict(one) for one in found] for location, found in results.items()},
    }
    for name, text in (("pairs.md", tables), ("pairs.json", json.dumps(json_value(data), indent=2) + "\n")):
        path: Path = arguments.output / name
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            msg = f"{path} cannot be written: {error}; choose another --output"
            raise SourceError(msg) from error
        print(path)
    return tell_missing(sequences)
