"""`make parity`: prints each network's agreement with its reference outputs, and fails if one is insufficient."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.conftest import shared_folder
from tests.parity.aliked_reference import IMAGES, MODELS, measure
from tests.parity.reduced_precision import measure_precision
from tests.parity.silk_reference import NAMES, measure_silk
from tests.tolerances import PARITY, REDUCED_PRECISION, SILK_PARITY


def main() -> int:
    """Prints the table; 1 if a bar is missed, 2 if there is nothing to compare with."""
    shared = shared_folder()
    if not (shared / "golden" / "aliked").is_dir():
        print(f"error: no reference outputs in {shared}/golden; set FEATURE_FRONTEND_SHARED", file=sys.stderr)
        return 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"torch {torch.__version__} on {device}\n")
    passes = [*_report_aliked(shared, device), *_report_silk(shared, device), *_report_precision(shared, device)]
    print(f"\n{sum(passes)} of {len(passes)} pass")
    return 0 if all(passes) else 1


def _report_aliked(shared: Path, device: str) -> list[bool]:
    print("ALIKED against the authors' outputs")
    print(
        f"bars: {PARITY.fraction:.1%} of 500 keypoints within {PARITY.position_px} px, scores within {PARITY.score:g}, "
        f"cosine >= {PARITY.cosine}; at threshold 0.2 at most {PARITY.set_difference} keypoints differ\n"
    )
    columns = ("model", "image", "found", "worst px", "worst score", "worst cosine", "at 0.2", "differ", "")
    layout = "{:<14}{:<7}{:>8}{:>11}{:>13}{:>14}{:>8}{:>8}  {}"
    print(layout.format(*columns))
    passes = []
    for model in MODELS:
        for image in IMAGES:
            result = measure(model, image, shared, device)
            passes.append(result.passes)
            figures = (
                f"{result.fraction:.1%}",
                f"{result.worst_position_px:.1e}",
                f"{result.worst_score:.1e}",
                f"{result.worst_cosine:.7f}",
                result.reference_count,
                result.set_difference,
            )
            print(layout.format(model, image, *figures, "ok" if result.passes else "MISSED"))
    return passes


def _report_silk(shared: Path, device: str) -> list[bool]:
    print("\nSiLK against the authors' outputs, seeded random weights")
    print(
        f"bars: logits within {SILK_PARITY.logit:g}, every keypoint within {SILK_PARITY.position_px:g} px, cosine >= "
        f"{PARITY.cosine}, the same pairs but for ties (rivals within {SILK_PARITY.tie:g}); pairs: differing/ties/all\n"
    )
    layout = "{:<16}{:>12}{:>8}{:>14}{:>12}{:>12}{:>16}  {}"
    print(layout.format("model", "worst logit", "found", "worst cosine", "mnn", "ratio 0.9", "double softmax", ""))
    passes = []
    for name in NAMES:
        result = measure_silk(name, shared, device)
        passes.append(result.passes)
        pairs = [f"{result.different[key]}/{result.ties[key]}/{result.pairs[key]}" for key in result.pairs]
        figures = (f"{result.worst_logit:.1e}", f"{result.found:.1%}", f"{result.worst_cosine:.7f}", *pairs)
        print(layout.format(f"silk-{name}", *figures, "ok" if result.passes else "MISSED"))
    return passes


def _report_precision(shared: Path, device: str) -> list[bool]:
    print("\nReduced precision against this project's float32, 1000 keypoints")
    bars = "; ".join(
        f"{dtype}: {bar.fraction:.0%} within {bar.position_px} px" for dtype, bar in REDUCED_PRECISION.items()
    )
    print(f"bars: {bars}; median cosine >= 0.99\n".replace("torch.", ""))
    layout = "{:<14}{:<10}{:<7}{:>8}{:>15}  {}"
    print(layout.format("model", "precision", "image", "found", "median cosine", ""))
    passes = []
    for model in ("aliked-t16", "aliked-n16"):
        for dtype in REDUCED_PRECISION:
            for image in ("tum", "kitti"):
                result = measure_precision(model, dtype, image, shared, device)
                passes.append(result.passes)
                figures = (f"{result.fraction:.1%}", f"{result.cosine:.5f}", "ok" if result.passes else "MISSED")
                print(layout.format(model, str(dtype).removeprefix("torch."), image, *figures))
    return passes


if __name__ == "__main__":
    raise SystemExit(main())
