"""`evaluate robustness`: extractors on rotated and downscaled photographs."""

from __future__ import annotations

import argparse

from feature_frontend.tools.common.arguments import Parser, above_zero, keypoints
from feature_frontend_lab.evaluation.commands.arguments import (
    add_image_arguments,
    add_method_arguments,
    methods_of,
    pairs_progress,
)
from feature_frontend_lab.evaluation.homography.baselines import MULTI_SCALE
from feature_frontend_lab.evaluation.homography.benchmark import select_images
from feature_frontend_lab.evaluation.homography.robustness import (
    ANGLES_DEG,
    OCTAVES,
    RobustnessBenchmark,
    evaluate_robustness,
)
from feature_frontend_lab.evaluation.reports.homography_report import robustness_tables, write_robustness_report
from feature_frontend_lab.evaluation.reports.writing import make_report_folder

__all__ = ["add_robustness"]

_DEFAULT_METHODS = (
    "dotlet", "aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32", "silk-vggnp-mu", "sift", "rootsift", "orb",
    f"aliked-n16{MULTI_SCALE}", f"silk-vggnp-mu{MULTI_SCALE}",
)  # fmt: skip


def add_robustness(commands: argparse._SubParsersAction[Parser]) -> None:
    """Adds the subcommand."""
    defaults = RobustnessBenchmark()
    command = commands.add_parser(
        "robustness",
        help="matching accuracy over rotation and scale, on photographs",
        description="Every method on the same photographs, turned by 0 to 45 degrees and made smaller by up to 2^3, as "
        "in the ALIKED paper (docs/evaluation.md). Writes robustness.md, robustness.json and robustness.png. The same "
        "options give the same numbers.",
    )
    add_image_arguments(command, defaults.image_count, defaults.short_side, defaults.seed)
    command.add_argument(
        "--keypoints", type=keypoints, default=defaults.keypoints, metavar="N", help="budget (default: %(default)s)"
    )
    command.add_argument(
        "--threshold",
        type=above_zero,
        default=defaults.threshold_px,
        metavar="PX",
        help="error below which a match is correct, in the warped image (default: %(default)s)",
    )
    add_method_arguments(command, _DEFAULT_METHODS)
    command.set_defaults(run=_robustness)


def _robustness(arguments: argparse.Namespace) -> int:
    benchmark = RobustnessBenchmark(
        image_count=arguments.count,
        keypoints=arguments.keypoints,
        short_side=arguments.short_side,
        seed=arguments.seed,
        threshold_px=arguments.threshold,
    )
    files = select_images(arguments.images, benchmark.image_count, benchmark.seed)
    methods = methods_of(arguments)
    make_report_folder(arguments.output)
    total = len(files) * (len(ANGLES_DEG) + len(OCTAVES)) * len(methods)
    with pairs_progress(total) as advance:
        results = evaluate_robustness(methods, files, benchmark, advance)
    print(f"{robustness_tables(results)}\n")
    for path in write_robustness_report(arguments.output, results, benchmark, files):
        print(path)
    return 0
