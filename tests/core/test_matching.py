"""Matching compared with exhaustive search and with the reference outputs of SiLK's matchers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import cv2
import pytest
import torch

from feature_frontend import Features, load_matcher
from feature_frontend.errors import MatchingError, SettingsError
from feature_frontend.matchers.base import MatchingOptions, check_comparable
from feature_frontend.matchers.mutual_nn import MutualNearestNeighborMatcher
from tests.conftest import REPOSITORY


def _features(descriptors: torch.Tensor, extractor: str = "test@00000000") -> Features:
    count = len(descriptors)
    return Features(torch.zeros((count, 2)), torch.zeros(count), descriptors, 480, 640, extractor)


def _random(count: int, seed: int, dim: int = 16) -> Features:
    values = torch.randn((count, dim), generator=torch.Generator().manual_seed(seed))
    return _features(torch.nn.functional.normalize(values, dim=1))


def _pairs(matches: object) -> list[tuple[int, int]]:
    return list(zip(matches.indices0.tolist(), matches.indices1.tolist(), strict=True))  # type: ignore[attr-defined]


def test_convention_similarity_is_cosine_and_margin_is_to_the_second_best() -> None:
    features0, features1 = _random(60, 0), _random(45, 1)
    matches = load_matcher("mnn").match(features0, features1)
    similarity = features0.descriptors @ features1.descriptors.T
    expected = [
        (i, int(similarity[i].argmax()))
        for i in range(60)
        if int(similarity[:, int(similarity[i].argmax())].argmax()) == i
    ]
    assert _pairs(matches) == expected
    for row, (i, j) in enumerate(expected):
        ordered = similarity[i].sort(descending=True).values
        assert float(matches.similarity[row]) == pytest.approx(float(similarity[i, j]), abs=1e-6)
        assert float(matches.margin[row]) == pytest.approx(float(ordered[0] - ordered[1]), abs=1e-6)


def test_gates() -> None:
    features0, features1 = _random(80, 2), _random(80, 3)
    everything = load_matcher("mnn").match(features0, features1)
    similar = load_matcher("mnn", min_similarity=0.6).match(features0, features1)
    assert 0 < len(similar) < len(everything)
    assert float(similar.similarity.min()) >= 0.6
    distinct = load_matcher("mnn", ratio_threshold=0.8).match(features0, features1)
    second = everything.similarity - everything.margin
    kept = (1 - everything.similarity) < 0.8 * (1 - second)
    assert 0 < len(distinct) < len(everything)
    assert distinct.indices0.tolist() == everything.indices0[kept].tolist()


def test_double_softmax_is_the_product_of_two_softmaxes() -> None:
    features0, features1 = _random(50, 4), _random(70, 5)
    matches = load_matcher("mnn", double_softmax_threshold=0.2, double_softmax_temperature=0.1).match(
        features0, features1
    )
    logits = (features0.descriptors @ features1.descriptors.T / 0.1).double()
    probability = logits.softmax(dim=1) * logits.softmax(dim=0)
    expected = [
        (i, int(probability[i].argmax()))
        for i in range(50)
        if int(probability[:, int(probability[i].argmax())].argmax()) == i and float(probability[i].max()) >= 0.2
    ]
    assert len(expected) > 3
    assert _pairs(matches) == expected


@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_blocks_do_not_change_the_result(threshold: float) -> None:
    features0, features1 = _random(101, 6), _random(77, 7)
    options = MatchingOptions(-1.0, 0.95, 0.1, threshold)
    whole = MutualNearestNeighborMatcher(options).match(features0, features1)
    blocks = MutualNearestNeighborMatcher(options, block_elements=77 * 9).match(features0, features1)
    assert len(whole) > 5
    assert _pairs(whole) == _pairs(blocks)
    torch.testing.assert_close(whole.similarity, blocks.similarity)
    torch.testing.assert_close(whole.margin, blocks.margin)


@pytest.mark.parametrize("temperature", [0.001, 0.024, 0.026, 10.0])
def test_double_softmax_at_any_temperature(temperature: float) -> None:
    features0, features1 = _random(90, 12), _random(70, 13)
    # Two descriptors nearly opposite to all others have nothing but vanishing terms in their row and column.
    for features in (features0, features1):
        features.descriptors[5] = -features.descriptors.mean(dim=0)
        features.descriptors[5] /= features.descriptors[5].norm()
    logits = (features0.descriptors.double() @ features1.descriptors.double().T) / temperature
    probability = logits.softmax(dim=1) * logits.softmax(dim=0)
    forward, backward = probability.argmax(dim=1), probability.argmax(dim=0)
    for threshold in (1e-30, 0.001, 0.3):
        options = MatchingOptions(-1.0, 1.0, temperature, threshold)
        expected = [
            (i, int(forward[i]))
            for i in range(90)
            if int(backward[forward[i]]) == i and float(probability[i, forward[i]]) >= threshold
        ]
        assert _pairs(MutualNearestNeighborMatcher(options).match(features0, features1)) == expected


def test_the_rival_under_the_double_softmax_is_the_most_similar_other_one() -> None:
    features0, features1 = _random(300, 14, dim=4), _random(280, 15, dim=4)
    matches = load_matcher("mnn", double_softmax_threshold=1e-9).match(features0, features1)
    similarity = features0.descriptors[matches.indices0] @ features1.descriptors.T
    matched = torch.nn.functional.one_hot(matches.indices1, 280).bool()
    rival = similarity.masked_fill(matched, -torch.inf).max(dim=1).values
    assert (matches.margin < 0).any()
    torch.testing.assert_close(matches.margin, matches.similarity - rival)


@pytest.mark.parametrize("block_elements", [64, 150 * 7, 16 * 1024 * 1024])
@pytest.mark.parametrize(("count0", "count1"), [(400, 150), (150, 400), (1, 40), (40, 1)])
def test_of_equals_the_first_counts(count0: int, count1: int, block_elements: int) -> None:
    # Products of small integers are exact, so that equals are equal however they are computed.
    sides = []
    for count, seed in ((count0, 16), (count1, 17)):
        values = torch.randint(-1, 2, (count, 5), generator=torch.Generator().manual_seed(seed)).float()
        sides.append(_features(values))
    similarity = (sides[0].descriptors @ sides[1].descriptors.T).numpy()
    forward, backward = similarity.argmax(axis=1), similarity.argmax(axis=0)
    options = MatchingOptions(-100.0, 1.0, 0.1, 0.0)
    matches = MutualNearestNeighborMatcher(options, block_elements).match(*sides)
    assert _pairs(matches) == [(i, int(forward[i])) for i in range(count0) if backward[forward[i]] == i]
    if count1 > 1:
        ordered = torch.from_numpy(similarity)[matches.indices0].sort(dim=1, descending=True).values
        assert torch.equal(matches.margin, ordered[:, 0] - ordered[:, 1])


@pytest.mark.parametrize(("count0", "count1", "dim"), [(2048, 2048, 128), (700, 1500, 64)])
def test_pairs_are_those_of_opencv(count0: int, count1: int, dim: int) -> None:
    # Half of the points have a true partner, as in two frames of a camera.
    features1 = _random(count1, 18, dim)
    shared = min(count0, count1) // 2
    noisy = torch.cat([features1.descriptors[:shared], torch.zeros((count0 - shared, dim))]).flip(0)
    noisy += 0.1 * torch.randn((count0, dim), generator=torch.Generator().manual_seed(19))
    features0 = _features(torch.nn.functional.normalize(noisy, dim=1))
    found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(
        features0.descriptors.numpy(), features1.descriptors.numpy()
    )
    expected = sorted((match.queryIdx, match.trainIdx) for match in found)
    assert len(expected) >= shared
    assert _pairs(load_matcher("mnn").match(features0, features1)) == expected


@pytest.mark.parametrize(("temperature", "threshold"), [(0.1, 0.0), (0.001, 0.01), (0.1, 0.01), (10.0, 1e-9)])
@pytest.mark.parametrize(("count0", "count1"), [(90, 70), (128, 128), (60, 1), (1, 60), (60, 0), (0, 60), (0, 0)])
def test_padding_does_not_change_the_result(count0: int, count1: int, temperature: float, threshold: float) -> None:
    features0, features1 = _random(count0, 20), _random(count1, 21)
    matcher = MutualNearestNeighborMatcher(MatchingOptions(-0.5, 0.95, temperature, threshold), block_elements=128 * 50)
    expected = matcher.match(features0, features1)
    padded = []
    for features in (features0, features1):
        # The first descriptors once more, and anything: neither may take part.
        padding = torch.cat([features.descriptors[:20], 3.0 * _random(128, 22).descriptors])
        padded.append(torch.cat([features.descriptors, padding])[:128])
    counts = [torch.tensor(count) for count in (count0, count1)]
    found = matcher.padded(padded[0], counts[0], padded[1], counts[1]).unpadded("mnn")
    assert _pairs(found) == _pairs(expected)
    torch.testing.assert_close(found.similarity, expected.similarity)
    torch.testing.assert_close(found.margin, expected.margin)


def test_nothing_on_either_side_gives_no_matches() -> None:
    matcher = load_matcher("mnn", double_softmax_threshold=0.5)
    for count0, count1 in ((0, 5), (5, 0), (0, 0)):
        matches = matcher.match(_random(count0, 0), _random(count1, 1))
        assert len(matches) == 0
        assert matches.indices0.dtype == torch.int64
        assert matches.similarity.shape == (0,)


def test_a_single_candidate_has_no_rival() -> None:
    features = _random(1, 8)
    matches = load_matcher("mnn", ratio_threshold=0.5).match(features, features)
    assert _pairs(matches) == [(0, 0)]
    assert float(matches.margin[0]) == pytest.approx(2.0, abs=1e-6)


def test_identical_images_match_row_by_row() -> None:
    features = _random(300, 9, dim=64)
    assert _pairs(load_matcher("mnn").match(features, features)) == [(i, i) for i in range(300)]


def test_half_precision_descriptors_are_matched_in_float32() -> None:
    features0, features1 = _random(40, 10), _random(40, 11)
    half = [_features(f.descriptors.half()) for f in (features0, features1)]
    back = [_features(f.descriptors.float()) for f in half]
    matcher = load_matcher("mnn")
    assert _pairs(matcher.match(*half)) == _pairs(matcher.match(*back))
    assert matcher.match(*half).similarity.dtype == torch.float32


def test_descriptors_of_two_lengths_do_not_compare() -> None:
    one, other = _random(5, 0, dim=16), _random(4, 1, dim=32)
    with pytest.raises(MatchingError, match=r"16 and 32 .*test@00000000"):
        check_comparable(one, other)
    with pytest.raises(MatchingError, match=r"16.* 32"):
        load_matcher("mnn").match(one, other)
    check_comparable(one, _random(0, 1, dim=32))


def test_descriptors_of_different_extractors_do_not_compare() -> None:
    with pytest.raises(MatchingError, match="a@1 and b@2"):
        load_matcher("mnn").match(_features(torch.ones(1, 1), "a@1"), _features(torch.ones(1, 1), "b@2"))


def test_unknown_matchers_and_gates_list_the_choices() -> None:
    with pytest.raises(SettingsError, match=r"'flann'.* mnn"):
        load_matcher("flann")
    with pytest.raises(SettingsError, match=r"ratio_threshold is 1\.5.* 0\.01 to 1\.0"):
        load_matcher("mnn", ratio_threshold=1.5)


_MANY = """
import torch
from feature_frontend import Features, load_matcher
from tests.memory import peak_mib

def features(count, seed):
    values = torch.randn((count, 128), generator=torch.Generator().manual_seed(seed))
    descriptors = torch.nn.functional.normalize(values, dim=1)
    return Features(torch.zeros((count, 2)), torch.zeros(count), descriptors, 480, 640, "test@00000000")

matcher = load_matcher("mnn", ratio_threshold=0.95, double_softmax_threshold=0.001)
many0, many1 = features(10_000, 0), features(10_000, 0)
matcher.match(features(200, 2), features(200, 3))
before_mib = peak_mib()
assert len(matcher.match(many0, many1)) == 10_000
print(peak_mib() - before_mib)
"""


def test_ten_thousand_points_a_side_fit_into_500_mb(report_figure: Callable[[str], None]) -> None:
    result = subprocess.run([sys.executable, "-c", _MANY], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    report_figure(f"matching 10,000 x 10,000 with the double softmax: {float(result.stdout):.0f} MiB more")
    # A block of 16 MiB and its probabilities leave a trace: a figure near zero would not be one.
    assert 15 < float(result.stdout) < 500
