"""The persistent tracker on real sequences with ground truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from feature_frontend_lab.evaluation.tracks.metrics import fraction_alive, fraction_seen
from tests.campaign import Campaign
from tests.tolerances import SEQUENCE_TRACKING, TRACKING


def _image(path: Path) -> npt.NDArray[np.uint8]:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("sequence", SEQUENCE_TRACKING)
def test_points_live_through_a_real_sequence(
    sequence: str, shared: Path, weights_dir: str, report_figure: Callable[[str], None], campaign: Campaign
) -> None:
    if sequence != "kitti00":
        campaign.only("a second sequence")
    paths = sorted((shared / "data" / sequence).glob("*.png"))
    images = [_image(path) for path in paths]
    frontend = Frontend.from_pretrained(
        Settings(extractor="aliked-n16", weights_dir=weights_dir, device="cpu", compile=False, tracker="persistent")
    )
    results = [frontend.process(image, number * 100_000_000) for number, image in enumerate(images)]
    tracks = [result.tracks for result in results]
    alive = fraction_alive(tracks)
    fractions = ", ".join(f"{fraction:.3f} after {gap}" for gap, fraction in alive.items())
    report_figure(f"{sequence}, aliked-n16, 1000 keypoints, persistent: fraction of points alive {fractions} frames")
    assert alive[5] >= SEQUENCE_TRACKING[sequence].fraction_alive
    assert max(len(result.features) for result in results) <= 1000

    height, width = images[0].shape[:2]
    unrelated = cv2.resize(_image(sorted((shared / "images" / "val").glob("*.jpg"))[0]), (width, height))
    claimed = frontend.process(unrelated.astype(np.uint8), len(images) * 100_000_000).tracks
    report_figure(
        f"{sequence}, then an unrelated image: {fraction_seen([tracks[-1], claimed], 1):.2%} of tracks seen in it"
    )
    assert fraction_seen([tracks[-1], claimed], 1) <= TRACKING.fraction_invented
