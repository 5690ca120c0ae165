"""The value "auto" of the parameter `tracker`: what it stands for, and that it follows model and settings."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend import load_extractor
from feature_frontend.errors import SettingsError
from feature_frontend.models.catalog import EXTRACTOR_MODELS
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.settings import Settings
from tests.core.seeded import seeded_extractor

_SETTINGS = Settings(tracker="auto", max_num_keypoints=60, device="cpu", compile=False)


def _is_possible(settings: Settings) -> bool:
    try:
        replace(settings, tracker="persistent")
    except SettingsError:
        return False
    return True


@pytest.mark.parametrize("multi_scale", [False, True])
def test_it_is_persistent_wherever_that_is_not_refused(multi_scale: bool) -> None:
    chosen = set()
    for extractor in ("auto", *EXTRACTOR_MODELS):
        settings = Settings(tracker="auto", extractor=extractor, multi_scale=multi_scale)
        tracker, why = settings.automatic_tracker
        assert (tracker == "persistent", why == "") == (_is_possible(settings),) * 2, extractor
        chosen.add(tracker)
    assert chosen == ({"chain"} if multi_scale else {"chain", "persistent"})


@pytest.mark.parametrize(
    "values",
    [
        {"matcher": "lightglue", "extractor": "aliked-n16"},
        {"min_similarity": 0.5},
        {"ratio_threshold": 0.9},
        {"double_softmax_threshold": 0.1},
    ],
)
def test_whoever_sets_a_matcher_gets_its_matches(values: dict[str, object]) -> None:
    name, value = next(iter(values.items()))
    tracker, why = Settings.from_mapping({"tracker": "auto", **values}).automatic_tracker
    assert (tracker, why) == ("chain", f"persistent does not use {name}, which is {value}")
    assert Settings(lightglue_threshold=0.5, double_softmax_temperature=1.0).automatic_tracker == ("persistent", "")


def test_a_front_end_names_the_tracker_in_use_and_changes_it(photographs: list[npt.NDArray[np.uint8]]) -> None:
    frontend = Frontend(seeded_extractor(_SETTINGS), _SETTINGS)
    assert frontend.settings == replace(_SETTINGS, tracker="persistent")
    assert frontend.choices(_SETTINGS) == "tracker auto is persistent"
    assert frontend.choices(frontend.settings) == ""
    image = photographs[0][:100, :120]
    stamps_ns = count()

    def with_settings(settings: Settings) -> tuple[str, str, str]:
        """The reason of the first image, the tracker, and what made the second one's matches."""
        frontend.configure(settings)
        first, second = (frontend.process(image, next(stamps_ns)) for _ in range(2))
        return first.reason, frontend.settings.tracker, second.matches.matcher

    assert with_settings(_SETTINGS) == ("", "persistent", "persistent")
    multi_scale = replace(_SETTINGS, multi_scale=True)
    assert with_settings(multi_scale) == ("tracker is now chain: multi_scale is true", "chain", "mnn")
    assert frontend.choices(multi_scale) == "tracker auto is chain: multi_scale is true"
    # By name it is the same one: no track ends.
    assert with_settings(replace(multi_scale, tracker="chain")) == ("", "chain", "mnn")
    assert with_settings(_SETTINGS) == ("tracker is now persistent", "persistent", "persistent")
    assert with_settings(replace(_SETTINGS, max_num_keypoints=50)) == ("", "persistent", "persistent")


def test_another_model_may_bring_another_tracker(photographs: list[npt.NDArray[np.uint8]]) -> None:
    frontend = Frontend(seeded_extractor(_SETTINGS), _SETTINGS)
    with_sift = replace(_SETTINGS, extractor="sift")
    frontend.swap_model(Frontend.from_pretrained(with_sift), "another model")
    assert frontend.settings.tracker == "chain"
    said = "another model; tracker is now chain: sift has no score map"
    assert frontend.process(photographs[0], 0).reason == said
    frontend.configure(with_sift)
    assert frontend.process(photographs[1], 1).stamp0_ns == 0
    frontend.swap_model(Frontend.from_pretrained(replace(with_sift, tracker="chain")), "the same tracker")
    assert frontend.process(photographs[0], 2).reason == "the same tracker"


def test_a_network_of_ones_own_decides_too() -> None:
    extractor = load_extractor("silk-vggnp-mu", device="cpu", compile=False)
    extractor.has_maps = False
    frontend = Frontend(extractor, _SETTINGS)
    assert frontend.settings.tracker == "chain"
    assert frontend.choices(_SETTINGS).endswith(f"tracker auto is chain: {extractor.identity} has no score map")
