"""`evaluate pairs`: matching of image pairs, some frames apart in a sequence, against known poses."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from feature_frontend.tools.common.arguments import Parser, above_zero, keypoints, natural, positive
from feature_frontend_lab.evaluation.commands.arguments import (
    add_method_arguments,
    methods_of,
    pairs_progress,
    report_missing,
)
from feature_frontend_lab.evaluation.homography.baselines import LIGHTGLUE
from feature_frontend_lab.evaluation.reports.writing import (
    json_value,
    make_report_folder,
    markdown_table,
    markdown_text,
    write_files,
)
from feature_frontend_lab.evaluation.tracks.pairs import PairsResult, evaluate_pairs
from feature_frontend_lab.evaluation.tracks.sequence import SequenceOptions, open_sequence

__all__ = ["add_pairs"]

_DEFAULT_METHODS = ("aliked-n16", f"aliked-n16{LIGHTGLUE}", "sift", "orb")
_THRESHOLD_PX = 3.0


def add_pairs(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the subcommand."""
    command = commands.add_parser(
        "pairs",
        help="matching accuracy for image pairs of sequences with known poses",
        description="Compares methods on image pairs of sequences (docs/evaluation.md). Reads camera.yaml and the "
        "poses in groundtruth.txt (TUM) or poses.txt (KITTI) beside the images. Writes pairs.md and pairs.json.",
    )
    add = command.add_argument
    add(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder of images, dataset (EuRoC, TUM RGB-D, KITTI), rosbag2 or video",
    )
    add("--gaps", type=positive, nargs="+", default=[1, 5, 10], metavar="N", help="frames apart (default: 1 5 10)")
    add("--keypoints", type=keypoints, default=1000, metavar="N", help="keypoint budget (default: %(default)s)")
    add(
        "--threshold",
        type=above_zero,
        default=_THRESHOLD_PX,
        metavar="PX",
        help="distance to the epipolar line below which a match is correct (default: %(default)s)",
    )
    add("--start", type=natural, default=0, metavar="N", help="skip the first N images")
    add("--count", type=positive, metavar="N", help="use N images (default: all)")
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
        with pairs_progress(None, sequence.name, " images") as advance:
            gaps = tuple(dict.fromkeys(arguments.gaps))
            found = evaluate_pairs(methods, sequence, gaps, arguments.keypoints, arguments.threshold, advance)
        results[location] = found
        table = f"{markdown_text(sequence.name)}:\n\n{_table(found, arguments.threshold)}\n"
        tables += f"{table}\n"
        print(table, flush=True)
    data = {
        "keypoints": arguments.keypoints,
        "threshold_px": arguments.threshold,
        "sequences": {location: [asdict(one) for one in found] for location, found in results.items()},
    }
    files = {"pairs.md": tables, "pairs.json": json.dumps(json_value(data), indent=2) + "\n"}
    for path in write_files(arguments.output, files):
        print(path)
    return report_missing(sequences)


def _table(results: Sequence[PairsResult], threshold_px: float) -> str:
    """The results in Markdown, grouped by gap."""
    header = ["gap", "method", "pairs", "matches", f"within {threshold_px:g} px", "right", "rotation deg",
              "direction deg", "no motion", "ms a matching"]  # fmt: skip
    rows = [
        [
            str(one.gap),
            one.method,
            str(one.pairs),
            f"{one.matches:.0f}",
            f"{one.precision:.3f}",
            f"{one.right:.0f}",
            f"{one.rotation_deg:.3f}",
            f"{one.translation_deg:.2f}",
            str(one.without_pose),
            f"{1000 * one.seconds_per_match:.0f}",
        ]
        for one in sorted(results, key=lambda one: one.gap)
    ]
    return markdown_table(header, rows)
