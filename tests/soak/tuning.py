"""Random valid and invalid parameter changes in front-ends that may be dying."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter

__all__ = ["Change", "Tuner"]

# An answer takes longer only where there is nobody left to give it.
_ANSWER_S = 60.0
_Values = dict[str, object]
_GOOD: tuple[Callable[[random.Random], _Values], ...] = (
    # A model and a tracker that go together, whatever is in use.
    lambda chance: {
        "extractor": chance.choice(("silk-vggnp-mu", "sift", "rootsift")),
        "tracker": chance.choice(("auto", "chain")),
    },
    lambda chance: {
        "extractor": "silk-vggnp-mu",
        "tracker": chance.choice(("auto", "chain", "persistent")),
        "multi_scale": False,
    },
    lambda chance: {"max_num_keypoints": chance.randint(1, 400)},
    lambda chance: {
        "ratio_threshold": chance.choice((0.8, 0.95, 1.0)),
        "min_similarity": chance.choice((-1.0, 0.5, 0.9)),
    },
    lambda chance: {"detection_threshold": chance.choice((0.0, 0.02, 0.9))},
    lambda chance: {"distribution": chance.choice(("none", "grid")), "grid_rows": chance.randint(1, 9)},
    lambda chance: {"resize_height": chance.choice((0, 120, 200))},
    lambda chance: {"epipolar_check": chance.choice((True, False))},
    lambda chance: {"store_frames": chance.randint(0, 50)},
    lambda chance: {"max_gap_s": chance.choice((0.0, 1.0, 5.0))},
    lambda chance: {"publish_descriptors": chance.choice((True, False)), "descriptor_type": "float16"},
    lambda chance: {"deadline_ms": chance.choice((0.0, 200.0))},
)
_WRONG: tuple[_Values, ...] = (
    {"max_num_keypoints": 0},
    {"max_num_keypoints": 50, "detection_threshold": 7.0},
    {"extractor": "aliked-n64"},
    {"extractor": "sift", "tracker": "persistent"},
    {"weights_path": "/nowhere/model.pth"},
    {"matcher": "lightglue", "extractor": "silk-vggnp-mu", "tracker": "chain"},
    {"queue_policy": "latest"},
    {"mask_path": "/nowhere/mask.png"},
    {"max_gap_s": -1.0},
)


@dataclass
class Change:
    """A request to a front-end.

    Attributes:
        name: Namespace of the front-end.
        values: What it is asked to set.
        is_good: Whether it has to accept that.
        future: Of the answer.
        asked_s: When, by the steady clock.
    """

    name: str
    values: _Values
    is_good: bool
    future: Any
    asked_s: float


class Tuner:
    """Asks for changes and counts the answers.

    Attributes:
        counts: "accepted", "refused" and "unanswered" changes.
        wrong: What was answered otherwise than it should be, in words.
        unanswered: Those that nobody answered.
    """

    def __init__(self, node: Node, chance: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.unanswered: list[Change] = []
        self._node, self._chance = node, chance
        self._callers: dict[str, Any] = {}
        self._waiting: list[Change] = []

    def change(self, name: str) -> None:
        """Asks the front-end in the namespace `name` for one change."""
        if name not in self._callers:
            service = f"/{name}/frontend/set_parameters_atomically"
            self._callers[name] = self._node.create_client(SetParametersAtomically, service)
        caller, is_good = self._callers[name], self._chance.random() < 0.8
        values = self._chance.choice(_GOOD)(self._chance) if is_good else self._chance.choice(_WRONG)
        if not caller.service_is_ready():
            return
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(key, value=value).to_parameter_msg() for key, value in values.items()]
        self._waiting.append(Change(name, values, is_good, caller.call_async(request), time.monotonic()))

    def collect(self, *, is_over: bool = False) -> None:
        """Takes the answers that have come; `is_over`: no more will come."""
        now_s = time.monotonic()
        for change in list(self._waiting):
            if change.future.done():
                self._judge(change, change.future.result().result)
            elif is_over or now_s - change.asked_s > _ANSWER_S:
                self._callers[change.name].remove_pending_request(change.future)
                self.counts["unanswered"] += 1
                self.unanswered.append(change)
            else:
                continue
            self._waiting.remove(change)

    def _judge(self, change: Change, result: Any) -> None:
        self.counts["accepted" if result.successful else "refused"] += 1
        if result.successful != change.is_good or bool(result.reason) == result.successful:
            self.wrong.append(f"{change.name}: {change.values}: {result}")
