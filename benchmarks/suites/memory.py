"""Suite `memory`: whether the node's memory grows over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.images import load_frames, resized
from benchmarks.node_process import Client, NodeProcess
from benchmarks.suites.node import network_of, node_parameters
from benchmarks.types import Options, Size, SuiteResult, Table
from feature_frontend.errors import FeatureFrontendError

__all__ = ["HELP", "growth", "growth_of_memory", "run"]

HELP = "resident and GPU memory of the node over 5,000 frames (--frames)"
BAR = 0.01

_SIZE: Size = (160, 120)
_BUDGET = 1000
_FRAME_COUNT = 8
_QUICK_FRAMES = 100
_FEWEST_FRAMES = 20
_TIMEOUT_S = 60.0
_PROGRESS = 1000

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Sample:
    """Memory after a number of frames, MiB; `gpu` is None without a GPU."""

    frame: int
    rss: float
    gpu: float | None


def run(options: Options, log: Log) -> SuiteResult:
    """Sends frames one by one and reads the node's memory after each.

    Raises:
        FeatureFrontendError: Too few frames were requested, the node does not start, or a frame is not answered.
    """
    count = min(options.frames, _QUICK_FRAMES) if options.quick else options.frames
    if count < _FEWEST_FRAMES:
        msg = f"{count} frames cannot show growth; expected at least {_FEWEST_FRAMES}: raise --frames"
        raise FeatureFrontendError(msg)
    size = options.sizes[0] if options.sizes else _SIZE
    frames = resized(load_frames(options.images, _FRAME_COUNT), size)
    images = [np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) for image in frames.images]
    parameters = [
        *node_parameters(options, _BUDGET),
        "queue_policy:=every_frame",
        "image_qos:=reliable",
    ]
    samples: list[_Sample] = []
    with NodeProcess(parameters, options.threads) as process, Client(images, "reliable") as client:
        client.wait_for_node(process)
        process.wait_until_idle()
        for number in range(1, count + 1):
            if client.round_trip(_TIMEOUT_S) is None:
                msg = f"frame {number} of {count} got no status within {_TIMEOUT_S:g} s; it printed: {process.output}"
                raise FeatureFrontendError(msg)
            samples.append(_Sample(number, process.rss_mib(), process.gpu_mib()))
            if number % _PROGRESS == 0:
                log(f"memory: {number} of {count} frames, {samples[-1].rss:.0f} MiB")
    memories = {"resident": [sample.rss for sample in samples]}
    on_gpu = [sample.gpu for sample in samples if sample.gpu is not None]
    if on_gpu:
        memories["GPU, all processes"] = on_gpu
    width, height = size
    title = f"Memory of the node over {count} frames {width}x{height}, {network_of(options)}"
    note = "Every frame is processed (`queue_policy: every_frame`) before the next is sent."
    data = {
        "size": list(size),
        "frames": count,
        "extractor": network_of(options),
        "growth": growth([sample.rss for sample in samples]),
        "samples": [vars(sample) for sample in samples],
    }
    return SuiteResult("memory", (growth_of_memory(title, memories, note),), data)


def growth(values: Sequence[float]) -> float:
    """Relative growth of the last tenth's median over the second tenth's; the first tenth is warm-up."""
    second, last = _tenths(values)
    return last / second - 1


def _tenths(values: Sequence[float]) -> tuple[float, float]:
    tenth = max(len(values) // 10, 1)
    return float(np.median(values[tenth : 2 * tenth])), float(np.median(values[-tenth:]))


def growth_of_memory(title: str, memories: Mapping[str, Sequence[float]], note: str) -> Table:
    """A table of memory growth with its limit.

    Args:
        title: Title of the table.
        memories: Samples in MiB, by name.
        note: How the samples were taken.
    """
    columns = ("memory", "first MiB", "second tenth MiB", "last tenth MiB", "largest MiB", "growth", "bar")
    rows = tuple(_row(name, values) for name, values in memories.items())
    meaning = f"Growth: median of the last tenth against that of the second tenth. Bar: below {BAR:.0%}."
    return Table(title, columns, rows, f"{meaning} {note}")


def _row(name: str, values: Sequence[float]) -> tuple[str, ...]:
    second, last = _tenths(values)
    fraction = growth(values)
    verdict = "met" if fraction < BAR else "MISSED"
    return name, f"{values[0]:.1f}", f"{second:.1f}", f"{last:.1f}", f"{max(values):.1f}", f"{fraction:+.2%}", verdict
