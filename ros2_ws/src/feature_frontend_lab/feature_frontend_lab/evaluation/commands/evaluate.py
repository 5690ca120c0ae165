"""Evaluates the front-end against other methods.

Subcommands: `homography`, extractors on photographs and random views of them; `robustness`, on rotated and downscaled
photographs; `tracks`, front-ends on sequences; `odometry`, front-ends by the odometry that their tracks allow; `pairs`,
matching of single image pairs of sequences; `covariances`, whether the covariances of positions are true.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from feature_frontend.runtime.heap import keep_freed_memory
from feature_frontend.system.files import print_any_name
from feature_frontend.tools.common.arguments import Parser, finite, keypoints, positive
from feature_frontend.tools.common.guard import run_tool
from feature_frontend_lab.evaluation.commands.arguments import (
    add_image_arguments,
    add_method_arguments,
    methods_of,
    pairs_progress,
)
from feature_frontend_lab.evaluation.commands.covariances import add_covariances
from feature_frontend_lab.evaluation.commands.odometry import add_odometry
from feature_frontend_lab.evaluation.commands.pairs import add_pairs
from feature_frontend_lab.evaluation.commands.robustness import add_robustness
from feature_frontend_lab.evaluation.commands.tracks import add_tracks
from feature_frontend_lab.evaluation.homography.benchmark import HomographyBenchmark, evaluate_methods, select_images
from feature_frontend_lab.evaluation.reports.homography_report import (
    homography_table,
    timing_table,
    write_homography_report,
)
from feature_frontend_lab.evaluation.reports.writing import make_report_folder

__all__ = ["main"]

DEFAULT_METHODS = ("orb", "sift", "dotlet", "aliked-t16", "aliked-n16", "silk-vggnp-mu", "random")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool; returns 0 if everything was evaluated and written, `INCOMPLETE` if images are lost."""
    print_any_name()
    keep_freed_memory()
    arguments = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    return run_tool(lambda: int(arguments.run(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="evaluate", description="Compare the front-end with other methods.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_homography(commands)
    add_robustness(commands)
    add_tracks(commands)
    add_odometry(commands)
    add_pairs(commands)
    add_covariances(commands)
    return parser


def _add_homography(commands: argparse._SubParsersAction[Parser]) -> None:
    defaults = HomographyBenchmark()
    command = commands.add_parser(
        "homography",
        help="repeatability, matching and homography accuracy on warped photographs",
        description="Compares methods on photographs warped by random homographies (docs/evaluation.md). Writes "
        "homography.md, homography.json and homography.png. Results are reproducible.",
    )
    add_image_arguments(command, defaults.image_count, defaults.short_side, defaults.seed)
    command.add_argument(
        "--homographies",
        type=positive,
        default=defaults.homographies,
        metavar="N",
        help="warped views per image (default: %(default)s)",
    )
    command.add_argument(
        "--keypoints",
        type=keypoints,
        nargs="+",
        default=list(defaults.keypoints),
        metavar="N",
        help=f"keypoint budgets, evaluated separately (default: {' '.join(map(str, defaults.keypoints))})",
    )
    command.add_argument(
        "--ratio-thresholds",
        type=finite,
        nargs="+",
        default=list(defaults.ratio_thresholds),
        metavar="X",
        help="thresholds of the ratio test, evaluated separately; 1 disables it (default: 1)",
    )
    add_method_arguments(command, DEFAULT_METHODS)
    command.set_defaults(run=_homography)


def _homography(arguments: argparse.Namespace) -> int:
    benchmark = HomographyBenchmark(
        image_count=arguments.count,
        homographies=arguments.homographies,
        keypoints=tuple(dict.fromkeys(arguments.keypoints)),
        ratio_thresholds=tuple(dict.fromkeys(arguments.ratio_thresholds)),
        short_side=arguments.short_side,
        seed=arguments.seed,
    )
    files = select_images(arguments.images, benchmark.image_count, benchmark.seed)
    methods = methods_of(arguments)
    make_report_folder(arguments.output)
    total = len(files) * benchmark.homographies * len(benchmark.keypoints) * len(methods)
    with pairs_progress(total) as advance:
        results = evaluate_methods(methods, files, benchmark, advance)
    print(homography_table(results))
    print(f"\nMedian times on this machine:\n\n{timing_table(results)}\n")
    for path in write_homography_report(arguments.output, results, benchmark, files):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
