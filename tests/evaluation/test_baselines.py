from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.torch import save_file

from feature_frontend.errors import SettingsError
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend_lab.evaluation.homography.baselines import (
    METHODS,
    DescribedPoints,
    MethodOptions,
    Norm,
    load_methods,
    match_points,
)
from tests.core.seeded import seeded_network

Image = npt.NDArray[np.uint8]


def _blob(x: float, y: float) -> Image:
    rows, columns = np.mgrid[:240, :240]
    return (200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 3.0**2))).astype(np.uint8)


def test_every_extractor_is_a_method() -> None:
    assert set(METHODS) == {"orb", "random", *EXTRACTORS}


@pytest.mark.parametrize("name", ["orb", "sift", "random"])
def test_a_method_keeps_to_its_budget_and_repeats_itself(name: str, photographs: list[Image]) -> None:
    method = load_methods([name], MethodOptions())[name]
    for count in (1, 50, 2000):
        found = method.detect_and_describe(photographs[0], count)
        assert 0 < len(found.points) <= count
        assert len(found.descriptors) == len(found.points)
        assert ((found.points >= -0.5) & (found.points < [639.5, 479.5])).all()
        again = method.detect_and_describe(photographs[0], count)
        np.testing.assert_array_equal(found.points, again.points)
        np.testing.assert_array_equal(found.descriptors, again.descriptors)


@pytest.mark.parametrize("name", ["orb", "sift"])
def test_a_blank_image_has_no_points(name: str) -> None:
    found = load_methods([name], MethodOptions())[name].detect_and_describe(np.full((64, 64, 3), 90, np.uint8), 10)
    assert found.points.shape == (0, 2)
    assert len(match_points(found, found)) == 0


def test_sift_points_lie_where_the_blob_is() -> None:
    found = load_methods(["sift"], MethodOptions())["sift"].detect_and_describe(_blob(120.3, 110.6), 10)
    assert len(found.points) > 0
    np.testing.assert_allclose(found.points, np.broadcast_to([120.3, 110.6], found.points.shape), atol=0.05)


def test_random_points_depend_on_the_seed_and_the_image(photographs: list[Image]) -> None:
    one, other = (load_methods(["random"], MethodOptions(seed=seed))["random"] for seed in (0, 1))
    points = one.detect_and_describe(photographs[0], 500).points
    assert (points != one.detect_and_describe(photographs[1], 500).points).any()
    assert (points != other.detect_and_describe(photographs[0], 500).points).any()


@pytest.mark.parametrize(("name", "least"), [("orb", 300), ("sift", 300)])
def test_an_image_matches_itself(name: str, least: int, photographs: list[Image]) -> None:
    found = load_methods([name], MethodOptions())[name].detect_and_describe(photographs[0], 1000)
    matches = match_points(found, found)
    assert len(matches) > least
    # Equal descriptors at different places may be exchanged; there are few.
    assert np.mean(matches[:, 0] == matches[:, 1]) > 0.99


@pytest.mark.parametrize(
    ("norm", "descriptors0", "descriptors1"),
    [
        ("hamming", [[0b0000], [0b1111]], [[0b1110], [0b0001], [0b0111]]),
        ("cosine", [[1, 0], [0, 1]], [[0.6, 0.8], [0.99, 0.14], [0.8, 0.6]]),
    ],
)
def test_mutual_nearest_neighbors_by_hand(
    norm: Norm, descriptors0: list[list[float]], descriptors1: list[list[float]]
) -> None:
    dtype = np.uint8 if norm == "hamming" else np.float32
    found0, found1 = (
        DescribedPoints(np.zeros((len(rows), 2)), np.array(rows, dtype), norm) for rows in (descriptors0, descriptors1)
    )
    expected = {"hamming": [[0, 1], [1, 0]], "cosine": [[0, 1], [1, 0]]}[norm]
    assert sorted(match_points(found0, found1).tolist()) == expected
    # Distance over the second best's: 1/3 and 1/1; 0.01/0.2 and 0.2/0.4.
    ratio = {"hamming": 0.6, "cosine": 0.4}[norm]
    assert match_points(found0, found1, ratio).tolist() == [expected[0]]
    nothing = DescribedPoints(np.zeros((0, 2)), np.zeros((0, len(descriptors0[0])), dtype), norm)
    assert match_points(found0, nothing).shape == (0, 2)


def test_a_network_runs_with_given_weights_under_two_labels(tmp_path: Path, photographs: list[Image]) -> None:
    files = {}
    for label, seed in (("aliked-t16", 0), ("aliked-t16@other", 1)):
        files[label] = str(tmp_path / f"{seed}.safetensors")
        save_file(seeded_network(seed=seed).state_dict(), files[label])
    methods = load_methods(list(files), MethodOptions(device="cpu"), files)
    image = photographs[0][:160, :200]
    for method in methods.values():
        assert len(method.detect_and_describe(image, 20).points) == 20
        found = method.detect_and_describe(image, 100)
        assert len(found.points) == 100
        assert found.norm == "cosine"
        matches = match_points(found, found)
        np.testing.assert_array_equal(matches[:, 0], matches[:, 1])
    assert methods["aliked-t16"].identity != methods["aliked-t16@other"].identity


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        (["orb", "surf"], {}, "surf.* orb, aliked"),
        (["orb", "orb"], {}, "orb .*twice"),
        (["sift+lightglue", "aliked-t16+lightglue"], {}, r"aliked-t16\+lightglue, sift\+lightglue"),
        (["orb"], {"orb": "x.pth"}, "weights .*orb"),
        (["orb"], {"aliked-t16": "x.pth"}, "weights .*aliked-t16"),
    ],
)
def test_wrong_names_are_refused(names: list[str], weights: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_methods(names, MethodOptions(), weights)
