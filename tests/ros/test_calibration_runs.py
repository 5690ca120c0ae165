"""Which calibration an image gets if stamps go back: random streams compared with a model without forgetting."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

pytest.importorskip("rclpy", reason="needs rclpy (ROS 2)")

from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo

from feature_frontend.camera.camera_info_history import CalibrationState, CalibrationWatch
from feature_frontend.ros.stamps import stamp_from_ns
from feature_frontend.runtime.snapshot import pack, unpack
from feature_frontend.runtime.time_segments import MOST_APART
from tests.campaign import Campaign
from tests.generated import for_each

_SIZES = ((640, 480), (320, 240))
_MOST_FRAMES = MOST_APART // 2 - 1
_MOST_BEHIND = 6


def _info(stamp_ns: int, number: int) -> CameraInfo:
    """Calibration `number`: focal length and size of it; every third is none."""
    width, height = _SIZES[number % 2]
    info = CameraInfo(width=width, height=height)
    info.header.stamp = stamp_from_ns(stamp_ns)
    focal_px = 0.0 if number % 3 == 2 else 500.0 + number
    info.k = [focal_px, 0.0, width / 2, 0.0, focal_px, height / 2, 0.0, 0.0, 1.0]
    return info


def _expected(number: int | None) -> tuple[float, int] | None:
    return None if number is None or number % 3 == 2 else (500.0 + number, _SIZES[number % 2][0])


def _used(watch: CalibrationWatch, stamp_ns: int, run: int) -> tuple[float, int] | None:
    calibration, problem = watch.at(stamp_ns, run)
    assert (calibration is None) == bool(problem)
    return None if calibration is None else (calibration.camera_matrix[0], calibration.width)


@dataclass(frozen=True)
class _Step:
    """What happens: an info or an image arrives, an image that has waited is processed, the state is handed over."""

    what: str
    run: int = 0
    stamp_ns: int = 0
    number: int = 0


@st.composite
def _streams(draw: st.DrawFn) -> list[_Step]:
    """A camera that looks at several time segments; one topic is behind the other by some messages, now this, now that.

    Every frame has its image and its info, a little earlier or later; some infos get lost, none next to a jump.
    """
    count = draw(st.integers(2, _MOST_FRAMES))
    # Not drawn one by one, which takes a hundred times as long.
    chance = random.Random(draw(st.integers(0, 2**32)))
    frames: list[tuple[int, int, int]] = []
    stamp_ns, run, number = chance.randint(10, 500), 0, 0
    for _ in range(count):
        frames.append((run, stamp_ns, number))
        if chance.random() < 0.2 and stamp_ns > 5 and len(frames) > 1:
            run, stamp_ns = run + 1, chance.randint(5, stamp_ns - 1)
        else:
            stamp_ns += chance.choice([0, 1, 1, 1, 30, 1000])
        number = chance.randint(0, 6) if chance.random() < 0.5 else number
    edges = [0, *(i for i in range(1, count) if frames[i][0] != frames[i - 1][0]), count]
    near = {i + shift for i in edges for shift in (-1, 0)}
    later_ns = chance.randint(-1, 1)
    infos = [
        _Step("info", run, stamp_ns + later_ns, number)
        for i, (run, stamp_ns, number) in enumerate(frames)
        if i in near or chance.random() < 0.8
    ]
    images = [_Step("image", run, stamp_ns) for run, stamp_ns, _ in frames]
    steps: list[_Step] = []
    for first in (infos, images) if chance.random() < 0.5 else (images, infos):
        steps.append(first.pop(0))
    while infos or images:
        behind = len(images) - len(infos)
        takes_info = behind < 0 if abs(behind) > _MOST_BEHIND else chance.random() < 0.5
        steps.append((infos if infos and (takes_info or not images) else images).pop(0))
        steps += [_Step(chance.choice(["process", "process", "hand over"])) for _ in range(chance.randint(0, 3))]
    return [*steps, *[_Step("process")] * count]


class _Model:
    """Remembers everything, and is told which run a message is of."""

    def __init__(self) -> None:
        self.infos: list[_Step] = []

    def number(self, image: _Step) -> int | None:
        own = [info for info in self.infos if info.run == image.run]
        at_or_before = [info for info in own if info.stamp_ns <= image.stamp_ns]
        earlier = [info for info in self.infos if info.run < image.run]
        for chosen in (at_or_before[-1:], own[:1], earlier[-1:], self.infos[:1]):
            if chosen:
                return chosen[0].number
        return None


def _check(steps: list[_Step]) -> None:
    watch, model = CalibrationWatch(), _Model()
    waiting: list[tuple[_Step, int]] = []
    for step in steps:
        if step.what == "info":
            model.infos.append(step)
            watch.take(_info(step.stamp_ns, step.number))
        elif step.what == "image":
            waiting.append((step, watch.arrived(step.stamp_ns)))
        elif step.what == "hand over":
            state = unpack(pack(watch.get_state()), CalibrationState)
            watch = CalibrationWatch()
            watch.set_state(state)
        elif waiting:
            image, run = waiting.pop(0)
            assert _used(watch, image.stamp_ns, run) == _expected(model.number(image))


def test_an_image_gets_the_latest_of_its_own_time_segment(campaign: Campaign) -> None:
    for_each(_streams(), campaign.count(500, "streams"), _check, campaign.seed)


def test_equal_infos_of_a_loop_are_distinguished_from_those_of_before() -> None:
    """As it was seen: 600 px up to 20 s, where it changes to 700; back at 10 s, it is 600 again."""
    watch = CalibrationWatch()
    for stamp_ns, number in ((10, 0), (19, 0), (20, 1), (21, 1), (10, 0), (20, 1), (10, 1), (15, 1)):
        run = watch.arrived(stamp_ns)
        watch.take(_info(stamp_ns, number))
        assert _used(watch, stamp_ns, run) == _expected(number)
    assert _used(watch, 21, 0) == _expected(1)
    assert _used(watch, 12, 0) == _expected(0)


@pytest.mark.parametrize("goes_back", ["infos", "images"])
def test_a_jump_of_one_topic_alone_is_made_up_for(goes_back: str) -> None:
    watch = CalibrationWatch()
    stamps = {"infos": 1000, "images": 1000}
    run = 0
    for message in range(2 * MOST_APART):
        if message == 10:
            stamps[goes_back] -= 500
        stamps = {name: stamp_ns + 1 for name, stamp_ns in stamps.items()}
        watch.take(_info(stamps["infos"], 0 if message < 10 else 1))
        run = watch.arrived(stamps["images"])
    assert _used(watch, stamps["images"], run) == _expected(1)
    watch.take(_info(stamps["infos"] + 1, 3))
    assert _used(watch, stamps["images"] + 501, run) == _expected(3)


@pytest.mark.parametrize("stamp_ns", [0, 7, 10**18])
def test_one_info_for_all_time_stays_in_use(stamp_ns: int) -> None:
    watch = CalibrationWatch()
    watch.take(_info(stamp_ns, 1))
    for _ in range(3):
        for image_ns in range(100, 300):
            assert _used(watch, image_ns, watch.arrived(image_ns)) == _expected(1)
            watch.take(_info(stamp_ns, 1), again=True)
    watch.take(_info(0, 3))
    assert _used(watch, 300, watch.arrived(300)) == _expected(3)


def test_what_comes_again_and_late_is_no_step_back() -> None:
    watch = CalibrationWatch()
    for stamp_ns, number in ((10, 0), (20, 1), (30, 1)):
        watch.take(_info(stamp_ns, number))
    state = watch.get_state()
    for stamp_ns, number in ((10, 0), (15, 0), (20, 1), (30, 1), (29, 1)):
        watch.take(_info(stamp_ns, number), again=True)
        assert watch.get_state() == state
    watch.take(_info(40, 3), again=True)
    assert _used(watch, 40, watch.arrived(40)) == _expected(3), "a publisher that has restarted"


def test_months_of_equal_infos_take_no_memory() -> None:
    watch = CalibrationWatch()
    for stamp_ns in range(1, 1000):
        watch.take(_info(stamp_ns % 100 + 1, 1))
        watch.take(_info(stamp_ns % 100 + 1, 1))
    assert len(watch.get_state().history) < 20
    assert len(pack(watch.get_state()).document) < 20_000
