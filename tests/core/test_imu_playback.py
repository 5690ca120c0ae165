"""The schedule of images and measurements of an IMU together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from feature_frontend.sources import ImuMeasurements, PlaybackSettings, ScheduledFrame, schedule
from feature_frontend.sources.datasets.layouts import open_dataset
from feature_frontend.sources.image_files import ImageFilesSource
from feature_frontend.sources.imu_playback import ScheduledMeasurement, with_imu
from tests.campaign import Campaign
from tests.datasets import noise_flight, write_layout
from tests.generated import for_each

MS = 1_000_000


def _imu(stamps_ns: list[int]) -> ImuMeasurements:
    values = np.zeros((len(stamps_ns), 3))
    return ImuMeasurements(np.array(stamps_ns, np.int64), values, values, np.eye(4))


def test_a_sequence_from_the_first_measurement_to_the_last(tmp_path: Path) -> None:
    flight = noise_flight()
    source = open_dataset(write_layout("EuRoC", tmp_path, flight))
    assert source.imu is not None
    settings = PlaybackSettings()
    events = list(with_imu(schedule(source, settings), source, source.imu, settings))
    stamps_ns = [event.stamp_ns for event in events]
    assert stamps_ns == sorted(source.imu.stamps_ns.tolist() + list(flight.stamps_ns))
    # One measurement has the stamp of the first image, and comes before it.
    places = [index for index, event in enumerate(events) if isinstance(event, ScheduledFrame)]
    assert stamps_ns[places[0] - 1] == stamps_ns[places[0]]
    begin_ns = flight.stamps_ns[0]
    np.testing.assert_allclose(
        [event.due_s for event in events], [(ns - begin_ns) / 1e9 for ns in stamps_ns], atol=1e-9
    )
    assert events[0].due_s == pytest.approx(-0.02)


@dataclass(frozen=True)
class _Case:
    images_ns: list[int]
    imu_ns: list[int]
    settings: PlaybackSettings


@st.composite
def _cases(draw: st.DrawFn) -> _Case:
    images = draw(st.lists(st.integers(0, 400), min_size=1, max_size=6, unique=True))
    imu = draw(st.lists(st.integers(0, 500), max_size=20, unique=True))
    settings = PlaybackSettings(
        rate_hz=draw(st.sampled_from([None, 0.0, 7.0, 1000.0])),
        loop=draw(st.booleans()),
        start=draw(st.integers(0, len(images) - 1)),
        count=draw(st.sampled_from([None, 1, 2])),
    )
    return _Case([at * MS for at in sorted(images)], [at * MS for at in sorted(imu)], settings)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "a.pgm"
    path.write_bytes(b"P5 1 1 255\n\0")
    return path


def test_any_images_and_measurements_come_in_the_order_of_their_stamps(campaign: Campaign, image: Path) -> None:
    def check(case: _Case) -> None:
        settings = case.settings
        source = ImageFilesSource(image, [image] * len(case.images_ns), case.images_ns)
        events = list(itertools.islice(with_imu(schedule(source, settings), source, _imu(case.imu_ns), settings), 100))
        keys = [(event.stamp_ns, isinstance(event, ScheduledFrame)) for event in events]
        assert keys == sorted(keys)
        dues = [event.due_s for event in events]
        assert dues == sorted(dues)
        if settings.rate_hz == 0:
            assert set(dues) == {0.0}
        if settings.loop:
            return
        chosen = case.images_ns[settings.start :][: settings.count]
        assert [event.stamp_ns for event in events if isinstance(event, ScheduledFrame)] == chosen
        begin_ns = case.images_ns[settings.start - 1] if settings.start else -1
        end_ns = chosen[-1] if settings.count else 10**12
        measurements = [event for event in events if isinstance(event, ScheduledMeasurement)]
        assert [event.stamp_ns for event in measurements] == [ns for ns in case.imu_ns if begin_ns < ns <= end_ns]
        assert [case.imu_ns[event.index] for event in measurements] == [event.stamp_ns for event in measurements]

    for_each(_cases(), campaign.count(3000, "sequences"), check, campaign.seed)


def test_in_a_loop_each_round_begins_with_the_measurements_before_it(image: Path) -> None:
    source = ImageFilesSource(image, [image] * 3, [100 * MS, 200 * MS, 300 * MS])
    settings = PlaybackSettings(loop=True)
    events = with_imu(schedule(source, settings), source, _imu([at * MS for at in range(0, 500, 50)]), settings)
    found = [(event.stamp_ns or 0) // MS for event in itertools.islice(events, 17)]
    first = [0, 50, 100, 100, 150, 200, 200, 250, 300, 300]
    assert found == [*first, 350, 400, 400, 450, 500, 500, 550]
