"""Ctrl-C: an exception until the node spins, nothing but rclpy's own handler from then on."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from feature_frontend.ros.interrupts import quiet_interrupts
from tests.ros.harness import Client, RunningNode


def test_an_interrupt_is_an_exception_until_it_is_handed_over() -> None:
    before = signal.getsignal(signal.SIGINT)
    with quiet_interrupts() as hand_over:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        hand_over()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_node_that_is_interrupted_twice_ends_cleanly(domain_id: int) -> None:
    """As a launch file may do, which passes on what the terminal has sent to all already."""
    with RunningNode(domain_id, "extractor:=silk-vggnp-mu", "image_qos:=reliable") as running:
        with Client(domain_id) as client:
            client.wait_for_node()
            client.send_pixels(np.full((120, 160), 90, np.uint8), 1_000_000_000)
            client.wait_for("status", 1)
            segments = running.shared_memory()
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        code, seconds, output = running.interrupt()
    assert (code, "Traceback" in output) == (0, False), output
    assert seconds < 5.0
    assert segments
    assert not [path for path in segments if path.exists()]
