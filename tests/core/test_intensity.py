"""Conversion of samples of more than 8 bits to grey levels, in each mode."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.image.intensity import INTENSITY_MODES, IntensityRange
from feature_frontend.image.preprocessing import grey_range
from feature_frontend.settings import PARAMETERS

Uint8Array = npt.NDArray[np.uint8]


@pytest.fixture
def thermal(photographs: list[Uint8Array]) -> npt.NDArray[np.uint16]:
    """What a 14-bit thermal camera might see of the desk: a narrow band of counts, and one pixel that is hot."""
    counts = photographs[0][..., 1].astype(np.uint16) * 3 + 7000
    counts[100, 100] = 16_383
    return counts


def test_percentiles_are_not_impressed_by_a_hot_pixel(
    thermal: npt.NDArray[np.uint16], photographs: list[Uint8Array]
) -> None:
    levels = IntensityRange("percentile").to_grey_levels(thermal)
    assert levels[100, 100] == 255
    clipped = (levels == 0) | (levels == 255)
    assert clipped.mean() < 0.03
    grey = photographs[0][..., 1]
    assert np.corrcoef(levels[~clipped], grey[~clipped])[0, 1] > 0.999
    assert np.percentile(levels, 98) - np.percentile(levels, 2) > 200
    crushed = IntensityRange("minmax").to_grey_levels(thermal)
    assert (crushed.max(), np.delete(crushed, 100, 0).max() < 25) == (255, True)


def test_fixed_limits_give_a_sample_the_same_level_in_every_image(thermal: npt.NDArray[np.uint16]) -> None:
    fixed = IntensityRange("fixed", 7000, 7000 + 255 * 3)
    levels = fixed.to_grey_levels(thermal)
    np.testing.assert_array_equal(fixed.to_grey_levels(thermal[:100, ::-1]), levels[:100, ::-1])
    np.testing.assert_array_equal(
        fixed.to_grey_levels(np.array([[0, 7000, 7765, 65_535]], np.uint16)), [[0, 0, 255, 255]]
    )


@pytest.mark.parametrize(
    ("sample", "darkest", "brightest"),
    [("u2", 0, 65_535), ("i2", -32_768, 32_767), ("i4", -(2**31), 2**31 - 1), ("f4", 0.0, 1.0), ("f8", 0.0, 1.0)],
)
def test_full_is_the_range_of_the_type(sample: str, darkest: float, brightest: float) -> None:
    samples = np.array([[darkest, (darkest + brightest) / 2, brightest]], sample)
    assert IntensityRange("full").to_grey_levels(samples).tolist() in ([[0, 127, 255]], [[0, 128, 255]])


@pytest.mark.parametrize("mode", ["percentile", "minmax"])
def test_the_noise_of_a_blank_image_stays_dark(mode: str) -> None:
    noise = np.random.default_rng(0).normal(3000, 3, (480, 640)).round().astype(np.uint16)
    levels = IntensityRange(mode).to_grey_levels(noise)
    default = PARAMETERS["min_grey_range"].default
    assert isinstance(default, int)
    assert grey_range(levels) < default
    assert not IntensityRange(mode).to_grey_levels(np.full((480, 640), 3000, np.uint16)).any()


@pytest.mark.parametrize("mode", INTENSITY_MODES)
@pytest.mark.parametrize("sample", ["f4", "f8"])
def test_what_is_not_a_number_is_black_and_does_not_count(mode: str, sample: str) -> None:
    metres = np.linspace(0, 1, 64 * 64, dtype=sample).reshape(64, 64)
    holes = metres.copy()
    holes[:5], holes[5:10], holes[10:15] = np.nan, np.inf, -np.inf
    levels = IntensityRange(mode, 0.0, 1.0).to_grey_levels(holes)
    assert not levels[:15].any()
    low, high = IntensityRange(mode, 0.0, 1.0).limits(holes)
    assert 0 <= low < high <= 1
    assert levels.max() == 255
    for nothing in (np.full((8, 8), np.nan, sample), np.full((8, 8), np.inf, sample)):
        assert not IntensityRange(mode, 0.0, 1.0).to_grey_levels(nothing).any()


@pytest.mark.parametrize("mode", INTENSITY_MODES)
def test_absurd_floats_neither_warn_nor_fail(mode: str) -> None:
    for sample in ("f4", "f8"):
        info = np.finfo(sample)
        for values in ([info.min, info.max], [0, info.smallest_subnormal], [info.max, info.max], [-np.inf, info.max]):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                levels = IntensityRange(mode).to_grey_levels(np.array([values], sample))
            assert levels.shape == (1, 2)
