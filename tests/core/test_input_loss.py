"""The estimate of lost images: correct for real losses of FastDDS, and silent for slow or irregular cameras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from feature_frontend.runtime.input_loss import ARE_MISSING, PROFILE_ADVICE, WINDOW_S, InputLoss, LossEstimate
from tests.campaign import Campaign
from tests.conftest import REPOSITORY, shared_folder

_EPOCH_NS = 1_700_000_000_000_000_000
_LARGE, _SMALL = 6_220_800, 20_000
_STAMPS = REPOSITORY / "tests" / "data" / "stamps"
Floats = npt.NDArray[np.float64]
Rng = np.random.Generator


def _watch(
    stamps_s: Floats, received_s: Floats | None = None, every_s: float = 1.0
) -> tuple[list[str], LossEstimate | None]:
    """What is said every so often while images of these stamps arrive, and the last estimate with images missing."""
    received_s = stamps_s - stamps_s[0] if received_s is None else received_s
    loss, said, last, next_s = InputLoss(), [], None, every_s
    for stamp_s, now_s in zip(stamps_s, received_s, strict=True):
        while now_s >= next_s:
            warning, _ = loss.facts(next_s, is_best_effort=True)
            said.append(warning)
            if warning and (estimate := loss.estimate(next_s)).missing:
                last = estimate
            next_s += every_s
        loss.arrived(_EPOCH_NS + round(float(stamp_s) * 1e9), float(now_s), _LARGE)
    return said, last


def _periodic(rate_hz: float, length_s: float = 60.0) -> Floats:
    return np.arange(int(rate_hz * length_s)) / rate_hz


def _pauses(rng: Rng, rate_hz: float, *, in_step: bool, length_s: float = 60.0) -> Floats:
    stamps: list[float] = []
    now_s = 0.0
    while now_s < length_s:
        images, pause_s = int(rng.integers(10, 50)), float(rng.uniform(1, 4))
        stamps += [now_s + index / rate_hz for index in range(images)]
        now_s += images / rate_hz + (round(pause_s * rate_hz) / rate_hz if in_step else pause_s)
    return np.array(stamps)


def _throttled(rng: Rng, stamps_s: Floats, rate_hz: float) -> Floats:
    """As topic_tools' throttle leaves them out."""
    kept, last_s = [], -np.inf
    for stamp_s in stamps_s:
        if stamp_s + rng.normal(0, 5e-4) - last_s >= 1 / rate_hz:
            kept.append(stamp_s)
            last_s = stamp_s
    return np.array(kept)


def _late(rng: Rng, stamps_s: Floats) -> Floats:
    late_s = (rng.random(len(stamps_s)) < 0.1) * rng.exponential(0.02, len(stamps_s))
    return np.maximum.accumulate(stamps_s + late_s)


# Each by what a camera does that loses nothing, from a generator of random numbers.
_CLEAN: dict[str, Callable[[Rng], Floats]] = {
    "1 Hz": lambda rng: _periodic(1, 200),
    "5 Hz, 5 % jitter": lambda rng: _periodic(5, 200) + rng.normal(0, 0.01, 1000),
    "30 Hz": lambda rng: _periodic(30) + rng.normal(0, 1e-3, 1800),
    "30 Hz, whole ms": lambda rng: np.round(_periodic(30), 3),
    "120 Hz, whole ms": lambda rng: np.round(_periodic(120, 20), 3),
    "5 Hz, 20 % jitter": lambda rng: np.cumsum(rng.uniform(0.8, 1.2, 500) / 5),
    "5 Hz, 50 % jitter": lambda rng: np.cumsum(rng.uniform(0.5, 1.5, 500) / 5),
    "5 Hz, 50 % jitter, clock of 10 ms": lambda rng: np.round(np.cumsum(rng.uniform(0.5, 1.5, 500) / 5), 2),
    "30 Hz, 50 % jitter": lambda rng: np.cumsum(rng.uniform(0.5, 1.5, 1800) / 30),
    "30 Hz, each 50 % off its time": lambda rng: np.sort(_periodic(30) + rng.uniform(-0.25, 0.25, 1800) / 30),
    "events": lambda rng: np.cumsum(rng.exponential(0.1, 600)),
    "events, whole ms": lambda rng: np.round(np.cumsum(rng.exponential(0.1, 600)), 3),
    "5 Hz with pauses in step": lambda rng: _pauses(rng, 5, in_step=True, length_s=100),
    "5 Hz with pauses": lambda rng: _pauses(rng, 5, in_step=False, length_s=100),
    "30 Hz with pauses in step": lambda rng: _pauses(rng, 30, in_step=True),
    "2 Hz with pauses": lambda rng: _pauses(rng, 2, in_step=True, length_s=200),
    "every 2nd": lambda rng: _periodic(30)[::2],
    "all but every 5th": lambda rng: _periodic(30)[np.arange(1800) % 5 != 0],
    "all but every 20th": lambda rng: _periodic(30)[np.arange(1800) % 20 != 0],
    "5 of 10": lambda rng: _periodic(30)[np.arange(1800) % 10 < 5],
    "one and two periods by turns": lambda rng: np.cumsum(np.tile([1 / 30, 2 / 30], 600)) + rng.normal(0, 1e-3, 1200),
    "22 Hz on frames of 30 Hz": lambda rng: np.ceil(_periodic(22) * 30 - 1e-9) / 30,
    "throttled to 10 Hz": lambda rng: _throttled(rng, _periodic(30), 10),
    "throttled to 20 Hz": lambda rng: _throttled(rng, _periodic(30), 20),
    "30, 15 and 10 Hz": lambda rng: np.cumsum(np.repeat(rng.choice([1, 2, 3], 20), rng.integers(60, 120, 20)) / 30),
    "30 or 20 Hz": lambda rng: np.cumsum(np.repeat(rng.choice([2, 3], 20), 80) / 60),
    "30 or 20 Hz, image by image": lambda rng: np.cumsum(rng.choice([2, 3], 1500) / 60),
    "exposure that drifts": lambda rng: np.cumsum(1.5 + 0.5 * np.sin(np.cumsum(rng.normal(0, 0.02, 1500)))) / 30,
    "a loop that hangs": lambda rng: np.cumsum(1 + (rng.random(1200) < 0.2) * rng.uniform(0.2, 3, 1200)) / 15,
    "stamped late": lambda rng: _late(rng, _periodic(30)),
}


@pytest.mark.parametrize("kind", _CLEAN)
def test_nothing_is_said_of_a_camera_that_loses_nothing(kind: str, campaign: Campaign) -> None:
    for index in range(campaign.count(10, "cameras")):
        said, _ = _watch(_CLEAN[kind](np.random.default_rng([campaign.seed, index])), every_s=4.0)
        assert len(said) >= 4
        assert not any(said), (index, next(filter(None, said)))


@pytest.mark.parametrize(
    ("name", "period_s", "sent"),
    [
        ("1080p_12_hz", 1 / 12, 240),
        ("1080p_12_hz_busy", 1 / 12, 1080),
        ("720p_15_hz", 1 / 15, 300),
        ("vga_30_hz", 1 / 30, 600),
    ],
)
def test_what_fastdds_lost_is_found(name: str, period_s: float, sent: int) -> None:
    stamps_ns = np.loadtxt(_STAMPS / f"fastdds_{name}.txt", dtype=np.int64)
    said, last = _watch((stamps_ns - stamps_ns[0]) / 1e9)
    first = next(index for index, text in enumerate(said) if text)
    assert first <= 12, "seconds"
    assert all(said[first:])
    assert last is not None
    assert last.period_s == pytest.approx(period_s, rel=2e-3)
    assert last.fraction == pytest.approx(1 - len(stamps_ns) / sent, abs=0.06)


# Of the time from 30 s on in which it is said, where the image rate, its jitter and the share lost are these.
@pytest.mark.parametrize(
    ("rate_hz", "share", "burst", "least"),
    [
        (5, 0.5, 1, 0.9),
        (12, 0.2, 2, 0.5),
        (12, 0.5, 2, 0.9),
        (12, 0.9, 1, 0.8),
        (30, 0.05, 1, 0.9),
        (30, 0.5, 3, 0.5),
        (30, 0.9, 1, 0.9),
    ],
)
def test_lost_images_are_found(rate_hz: float, share: float, burst: int, least: float, campaign: Campaign) -> None:
    fractions, said = [], []
    for index in range(campaign.count(20, "streams")):
        rng = np.random.default_rng([campaign.seed, index, round(rate_hz), round(100 * share)])
        stamps_s = _periodic(rate_hz, 100)
        stamps_s = np.round(stamps_s + rng.normal(0, 0.03 / rate_hz, len(stamps_s)), 3)
        begin, is_lost, kept = share / (1 - share) / burst, False, []
        for _ in stamps_s:
            lost_next = rng.random() >= 1 / burst if is_lost else rng.random() < begin
            is_lost = rng.random() < share if burst == 1 else bool(lost_next)
            kept.append(not is_lost)
        texts, last = _watch(stamps_s[np.array(kept)], every_s=5.0)
        said += texts[6:]
        fractions += [] if last is None else [last.fraction]
    assert np.mean([bool(text) for text in said]) >= least
    assert np.median(fractions) == pytest.approx(share, abs=0.08)


def test_the_real_sequences_lose_nothing() -> None:
    data = shared_folder() / "data"
    if not data.is_dir():
        pytest.skip(f"needs the shared data, not found at {data}")
    euroc = [
        np.loadtxt(data / "euroc_v101" / "mav0" / part / "data.csv", np.int64, delimiter=",", usecols=0, converters=int)
        if part == "imu0"
        else np.array([int(path.stem) for path in sorted((data / "euroc_v101" / "mav0" / part / "data").glob("*.png"))])
        for part in ("cam0", "imu0")
    ]
    sequences = {
        "EuRoC camera": (euroc[0] - euroc[0][0]) / 1e9,
        "EuRoC IMU": (euroc[1] - euroc[1][0]) / 1e9,
        "TUM": np.array([float(path.stem) for path in sorted((data / "tum_fr2_desk").glob("*.png"))]),
        "KITTI": np.loadtxt(data / "kitti00" / "times.txt"),
    }
    for name, stamps_s in sequences.items():
        # Played again and again, as `play --loop` does, without going back.
        length_s = stamps_s[-1] - stamps_s[0] + np.median(np.diff(stamps_s))
        looped = np.concatenate([stamps_s - stamps_s[0] + turn * length_s for turn in range(3)])
        said, _ = _watch(looped)
        assert not any(said), name
        halved = looped[np.random.default_rng(0).random(len(looped)) < 0.5]
        if len(halved) > 80:
            assert any(_watch(halved, every_s=0.5)[0]), name


@pytest.mark.parametrize(
    "stamps_s",
    [np.zeros(500), np.tile(np.arange(100) / 30, 5), np.repeat(_periodic(10, 25), 2), -_periodic(30, 500 / 30)],
    ids=["all zero", "played in a loop", "each twice", "backwards"],
)
def test_stamps_that_are_no_times(stamps_s: Floats) -> None:
    said, _ = _watch(stamps_s, np.arange(len(stamps_s)) / 30)
    assert said
    assert not any(said)


def test_the_advice_fits_the_size_and_the_qos() -> None:
    stamps_s = _periodic(30, 10)[np.random.default_rng(0).random(300) < 0.5]

    def said(image_bytes: int, *, is_best_effort: bool) -> str:
        loss = InputLoss()
        for stamp_s in stamps_s:
            loss.arrived(round(float(stamp_s) * 1e9), float(stamp_s), image_bytes)
        return loss.facts(10.0, is_best_effort=is_best_effort)[0]

    large = said(_LARGE, is_best_effort=True)
    assert large.startswith("about ")
    assert f"of 10 s {ARE_MISSING} (one every 33.3 ms)" in large
    assert "6.2 MB each" in large
    assert PROFILE_ADVICE in large
    assert "image_qos:=reliable" in said(_SMALL, is_best_effort=True)
    assert "reliable QoS" in said(_LARGE, is_best_effort=False)


def test_a_warning_ends_with_the_losses_and_with_the_stream() -> None:
    loss = InputLoss()
    rng = np.random.default_rng(0)
    for stamp_s in _periodic(30, 10)[rng.random(300) < 0.5]:
        loss.arrived(round(float(stamp_s) * 1e9), float(stamp_s), _LARGE)
    assert loss.facts(10.0, is_best_effort=True)[0]
    silent_s = 11 + WINDOW_S
    assert loss.facts(silent_s, is_best_effort=True) == ("", "unknown")
    for stamp_s in _periodic(30, 10)[rng.random(300) < 0.5]:
        loss.arrived(round((silent_s + stamp_s) * 1e9), float(silent_s + stamp_s), _LARGE)
    assert loss.facts(silent_s + 10, is_best_effort=True)[0]
    for stamp_s in silent_s + 10 + _periodic(30, 20):
        loss.arrived(round(float(stamp_s) * 1e9), float(stamp_s), _LARGE)
    loss.facts(silent_s + 30, is_best_effort=True)
    assert loss.facts(silent_s + 41, is_best_effort=True) == ("", "0 of 255 in 8 s")
