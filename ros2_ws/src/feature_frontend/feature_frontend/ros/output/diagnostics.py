"""The node's health, once a second: on `/diagnostics`, and in the log when it changes."""

from __future__ import annotations

import math
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from feature_frontend_msgs.msg import FrameStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from feature_frontend.runtime.health import (
    WINDOW_S,
    Finding,
    FrameFacts,
    Health,
    HealthWindow,
    Level,
    assess,
    findings_of,
)
from feature_frontend.runtime.state_log import StateLog
from feature_frontend.types import FrameState

__all__ = ["Diagnostics", "Facts"]

# Absolute: a robot has one such topic, whatever the node's namespace.
_TOPIC = "/diagnostics"
_PERIOD_S = 1.0
_DEPTH = 10
_MIB = 1 << 20


@dataclass(frozen=True)
class Facts:
    """The state of the node apart from its frames.

    Attributes:
        model: Identity of the extractor.
        device: Device of the extractor.
        execution: Eager, compiled, or as a CUDA graph.
        precision: Number format of the extractor.
        calibration: State of the calibration, in one line.
        why_silent: Explains why no image arrives, as far as known, and what to do.
        warnings: Further findings; empty text if all is well.
        further: Keys and values that only some nodes have.
    """

    model: str
    device: torch.device
    execution: str
    precision: str
    calibration: str
    why_silent: Callable[[], str]
    warnings: Sequence[Finding] = ()
    further: Sequence[tuple[str, str]] = ()


class Diagnostics:
    """Summarises the published statuses and logs changes of health. Thread-safe.

    Args:
        node: Owner of the publisher and the timer.
        facts: Called once a second in the executor's thread; returns None while the node is not active.
    """

    def __init__(self, node: Node, facts: Callable[[], Facts | None]) -> None:
        self._node = node
        self._facts = facts
        self._lock = threading.Lock()
        self._window = HealthWindow(time.monotonic())
        self._last_status = FrameStatus()
        self._state_log = StateLog(self._log)
        self._name = f"{node.get_fully_qualified_name().lstrip('/')}: frontend"
        self._publisher = node.create_publisher(DiagnosticArray, _TOPIC, _DEPTH)
        # Steady clock: with use_sim_time, a paused simulation would stop the diagnostics too.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD_S, self._publish, clock=clock)

    def arrived(self, received_s: float) -> None:
        """Records an image that arrived at `received_s` on the monotonic clock, s."""
        with self._lock:
            self._window.arrived(received_s)

    def note(self, status: FrameStatus) -> None:
        """Records a frame's status."""
        frame = FrameFacts(
            time_s=time.monotonic(),
            state=FrameState(status.state),
            reason=status.reason,
            keypoints=status.keypoints,
            matches=status.matches,
            inlier_ratio=status.inlier_ratio,
            latency_ms=status.latency_ms,
        )
        with self._lock:
            self._window.add(frame)
            self._last_status = status

    def _publish(self) -> None:
        facts, now_s = self._facts(), time.monotonic()
        with self._lock:
            if facts is None:
                # Silence counts from the next activation.
                self._window = HealthWindow(now_s)
            health, last = self._window.summary(now_s), self._last_status
        level, message, values = Level.OK, "the node is not active", []
        if facts is None:
            self._state_log.forget()
        else:
            findings = findings_of(health, facts.warnings, facts.why_silent)
            self._state_log.update(findings, now_s)
            level, message = assess(health, findings)
            values = [*_values_of_health(health, last), *_values_of_facts(facts)]
        status = DiagnosticStatus(
            level=bytes([level]),
            name=self._name,
            message=message,
            # Identifies the machine; the node is in the name.
            hardware_id=platform.node(),
            values=[KeyValue(key=key, value=value) for key, value in values],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        try:
            self._publisher.publish(array)
        except Exception:
            # Ctrl-C may shut down the context at any moment.
            if self._node.context.ok():
                raise

    def _log(self, level: Level, text: str) -> None:
        logger = self._node.get_logger()
        # One call site per level: rclpy does not allow a call site to change its level.
        if level == Level.ERROR:
            logger.error(text)
        elif level == Level.OK:
            logger.info(text)
        else:
            logger.warning(text)


def _values_of_health(health: Health, last: FrameStatus) -> list[tuple[str, str]]:
    p50, p95, p99 = health.latency_ms
    return [
        ("Window (s)", f"{WINDOW_S:g}"),
        ("Input rate (Hz)", f"{health.input_rate_hz:.2f}"),
        ("Output rate (Hz)", f"{health.output_rate_hz:.2f}"),
        ("Latency p50 (ms)", _number(p50)),
        ("Latency p95 (ms)", _number(p95)),
        ("Latency p99 (ms)", _number(p99)),
        ("Images processed", str(health.processed)),
        ("Images dropped", str(health.dropped)),
        ("Images refused", str(health.refused)),
        ("Images without keypoints", str(health.blank)),
        ("Last refusal", health.last_refusal),
        ("Keypoints (median)", _number(health.keypoints)),
        ("Matches (median)", _number(health.matches)),
        ("Inlier ratio (median)", _number(health.inlier_ratio, 3)),
        ("Images received since start", str(last.frames_received)),
        ("Images dropped since start", str(last.frames_dropped)),
        ("Images refused since start", str(last.frames_refused)),
    ]


def _values_of_facts(facts: Facts) -> list[tuple[str, str]]:
    values = [
        ("Model", facts.model),
        ("Device", str(facts.device)),
        ("Execution", facts.execution),
        ("Precision", facts.precision),
        ("Calibration", facts.calibration),
        *facts.further,
    ]
    if facts.device.type == "cuda":
        values += [
            ("GPU", torch.cuda.get_device_name(facts.device)),
            ("GPU memory in use (MiB)", _number(torch.cuda.memory_allocated(facts.device) / _MIB, 0)),
            ("GPU memory reserved (MiB)", _number(torch.cuda.memory_reserved(facts.device) / _MIB, 0)),
        ]
    return values


def _number(value: float, decimals: int = 1) -> str:
    """A number, or "unknown" for NaN, which monitors would treat as a number."""
    return "unknown" if math.isnan(value) else f"{value:.{decimals}f}"
