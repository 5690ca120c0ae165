"""Step: a nearly full device: the front-end continues with a smaller image, and recovers."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.types import Canvas, Table
from feature_frontend.errors import OutOfMemoryError
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.runtime.adaptive_resolution import LatencyController, OutOfMemoryGuard
from feature_frontend.types import FrameResult
from scripts.gpu_check.models import available, on_device, settings_for
from scripts.gpu_check.right.comparing import compare_features
from scripts.gpu_check.right.wording import mark, verdict
from scripts.gpu_check.step import Context, Outcome
from scripts.gpu_check.timebox import TimeBox

__all__ = ["Memory", "full_memory"]

T = TypeVar("T")
_MIB = 2**20
_SAMPLE_S = 0.002
# Available fraction of what a frame needs beyond the memory held between frames.
_FRACTIONS = (0.6, 0.9, 0.3, 0.75, 0.45)
_RECOVERY_S = 61.0  # longer than the guard's retry interval of one minute
_SIZE, _REHEARSED_SIZE = (1920, 1080), (480, 360)
_LATE_MS, _DEADLINE_MS = 50.0, 20.0


class Memory:
    """The memory limit of this process: torch's limit on a GPU; in a rehearsal, its address space."""

    def __init__(self, device: str) -> None:
        self._is_card = device != "cpu"

    def held(self) -> int:
        """Bytes currently allocated."""
        if self._is_card:
            torch.cuda.synchronize()
            return int(torch.cuda.memory_reserved())
        return _virtual_size()

    def most_during(self, work: Callable[[], T]) -> tuple[T, int]:
        """The result of the work, and its peak allocation in bytes."""
        if self._is_card:
            torch.cuda.reset_peak_memory_stats()
            return work(), int(torch.cuda.max_memory_reserved())
        # The system's own peak covers the whole life of the process.
        sizes, is_done = [self.held()], threading.Event()

        def sample() -> None:
            while not is_done.wait(_SAMPLE_S):
                sizes.append(self.held())

        watcher = threading.Thread(target=sample, daemon=True)
        watcher.start()
        try:
            return work(), max(sizes)
        finally:
            is_done.set()
            watcher.join()

    @contextmanager
    def limited_to(self, size: int) -> Iterator[None]:
        """Limits allocation to `size` bytes in this block."""
        if self._is_card:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(size / total, 1.0))
            try:
                yield
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
            return
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


class _Node:
    """The node's handling of a frame with too little memory or time."""

    def __init__(self, frontend: Frontend) -> None:
        self.frontend = frontend
        self.out_of_memory_guard, self.latency_controller = OutOfMemoryGuard(), LatencyController()
        self._stamp_ns = 0

    def process(self, image: Canvas, now_s: float) -> tuple[FrameResult, str]:
        """The frame's result and its status text."""

        def work() -> FrameResult:
            fraction = self.latency_controller.fraction * self.out_of_memory_guard.fraction
            self.frontend.extractor.pixel_fraction = fraction
            return self.frontend.process(image, self._stamp_ns)

        self._stamp_ns += 1
        return self.out_of_memory_guard.run(work, self.frontend.free_memory, now_s)


def full_memory(context: Context, box: TimeBox) -> Outcome:
    """For several limits: frames continue, downscaled, over the whole image; with all memory back, as before."""
    networks, missing = available(
        context, ("silk-vggnp-mu",) if context.is_rehearsal else ("aliked-n16", "silk-vggnp-mu")
    )
    width, height = _REHEARSED_SIZE if context.is_rehearsal else _SIZE
    image = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    rows: list[tuple[str, ...]] = []
    data: dict[str, Any] = {}
    missed: list[str] = []
    settings = [
        (network, tracker, fraction)
        for fraction in _FRACTIONS
        for tracker in ("chain", "persistent")
        for network in networks
    ]
    for network, tracker, fraction in box.each(settings, lambda each: f"{each[0]} {each[1]}, {each[2]:.0%}"):
        with box.attempt(f"{network} {tracker}, {fraction:.0%}"):
            found = _squeeze(context, network, tracker, fraction, image)
            name = f"{network} {tracker}, {fraction:.0%}"
            passes = not found["wrong"]
            figures = (
                f"{found['needed_mib']:.0f}",
                f"{found['fraction']:.1%}",
                f"{found['points']}",
                f"{found['recovered']:.1%}",
            )
            rows.append((name, *figures, mark(passes)))
            data[name] = found
            missed += [] if passes else [f"{name} ({'; '.join(found['wrong'])})"]
    if rows and all(found["fraction"] == 1 for found in data.values()):
        missed.append("no limit made memory run out, so that nothing was checked")
    note = (
        f"{width}x{height}; memory needed for a frame and the fraction of it that is available; the fraction of pixels "
        "that the network then processed, the keypoints of that frame, and how many are unchanged with all memory back."
    )
    columns = ("network, tracker, there is", "needs MiB", "pixels", "points", "as before", "")
    table = Table("A device that is nearly full", columns, tuple(rows), note)
    text = verdict(len(rows), missed, missing)
    if context.is_rehearsal:
        text += "; a rehearsal: the limit is the process's address space"
    return Outcome(not missed, text, [table], {"results": data, "missing": missing})


def _squeeze(context: Context, network: str, tracker: str, fraction: float, image: Canvas) -> dict[str, Any]:
    settings = settings_for(context, network, tracker=tracker)
    node = _Node(Frontend(on_device(settings), settings))
    memory = Memory(context.device)
    wrong: list[str] = []
    # Permanent allocations, such as a library's workspace, are made by the first frame.
    expected, _ = node.process(image, 0.0)
    node.frontend.reset()
    node.frontend.free_memory()
    before = memory.held()
    _, most = memory.most_during(lambda: node.process(image, 0.0))
    needed = most - before
    node.frontend.reset()
    node.frontend.free_memory()
    limit = before + int(fraction * needed)
    refused = 0
    note = ""
    small: FrameResult | None = None
    with memory.limited_to(limit):
        # A frame that fails twice is refused and the next one starts smaller: the node continues.
        for number in range(6):
            try:
                small, found = node.process(image, float(number))
            except OutOfMemoryError:
                refused += 1
                continue
            note = found or note
            if number and not found:
                break
        smallest = node.out_of_memory_guard.fraction
    if small is None or len(small.features) == 0:
        wrong.append("no frame came through")
    elif not _spans(small, image):
        wrong.append("its points do not span the image")
    if refused == 0 and smallest < 1 and "memory ran out" not in note:
        wrong.append("status says nothing of the memory")
    node.frontend.reset()
    now_s = _RECOVERY_S
    while node.out_of_memory_guard.fraction < 1 and now_s < 10 * _RECOVERY_S:
        result, _ = node.process(image, now_s)
        now_s += _RECOVERY_S
    node.frontend.reset()
    result, said = node.process(image, now_s)
    agreement = compare_features(expected.features, result.features)
    if node.out_of_memory_guard.fraction < 1 or said:
        wrong.append(f"did not recover: {said or node.out_of_memory_guard.fraction}")
    elif not agreement.passes:
        wrong.append("finds something else with the memory back")
    wrong += _late(node, image)
    node.frontend.close()
    return {
        "needed_mib": needed / _MIB,
        "fraction": smallest,
        "points": 0 if small is None else len(small.features),
        "refused": refused,
        "status": note,
        "recovered": agreement.fraction,
        "wrong": wrong,
    }


def _spans(result: FrameResult, image: Canvas) -> bool:
    """Whether points cover the image as published, whatever size the network processed."""
    spread = result.features.keypoints.amax(dim=0) - result.features.keypoints.amin(dim=0)
    return bool((spread > 0.8 * torch.tensor([image.shape[1], image.shape[0]])).all())


def _late(node: _Node, image: Canvas) -> list[str]:
    """Frames that take too long: one step down, and a frame of that size."""
    for moment in range(3):
        node.latency_controller.note(_LATE_MS, moment, _DEADLINE_MS)
    if node.latency_controller.fraction == 1:
        return ["late frames did not make the image smaller"]
    result, said = node.process(image, 1e6)
    return [] if _spans(result, image) and not said else ["a frame made smaller for its time is not right"]


def _virtual_size() -> int:
    """Address space of this process in bytes; Linux only, like the limit."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()
