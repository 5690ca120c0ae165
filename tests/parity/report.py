"""`make parity`: prints how close every network comes to its reference outputs, and fails if one does not."""

from __future__ import annotations

import sys

import torch

from tests.conftest import shared_folder
from tests.parity.aliked_reference import IMAGES, MODELS, measure
from tests.tolerances import PARITY


def main() -> int:
    """Prints the table; 1 if a bar is missed, 2 if there is nothing to compare with."""
    shared = shared_folder()
    if not (shared / "golden" / "aliked").is_dir():
        print(f"error: no reference outputs in {shared}/golden; set FEATURE_FRONTEND_SHARED", file=sys.stderr)
        return 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"ALIKED against the authors' outputs; torch {torch.__version__} on {device}, float32")
    print(
        f"bars: {PARITY.share:.1%} of 500 keypoints within {PARITY.position_px} px, scores within {PARITY.score:g}, "
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
                f"{result.share:.1%}",
                f"{result.worst_position_px:.1e}",
                f"{result.worst_score:.1e}",
                f"{result.worst_cosine:.7f}",
                result.reference_count,
                result.set_difference,
            )
            print(layout.format(model, image, *figures, "ok" if result.passes else "MISSED"))
    print(f"\n{sum(passes)} of {len(passes)} pass")
    return 0 if all(passes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
