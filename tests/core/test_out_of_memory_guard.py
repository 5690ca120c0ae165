"""Frames that exceed the memory: the rule, and a process that really runs out of memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from feature_frontend.errors import OutOfMemoryError
from feature_frontend.runtime.adaptive_resolution import OutOfMemoryGuard

_NEEDED_MIB = 100
_MESSAGE = "CUDA out of memory. Tried to allocate 100 MiB.\nmore lines"
# The frame needs between 700 and 1000 MiB beyond what the process has when the limit is set, half of its pixels less
# than 600.
_SCRIPT = """
import resource, sys
import numpy as np
from feature_frontend.pipeline.frontend import Frontend
from feature_frontend.runtime.adaptive_resolution import OutOfMemoryGuard
from feature_frontend.settings import Settings

settings = Settings(extractor="silk-vggnp-mu", tracker="chain", compile=False, max_num_keypoints=200)
frontend = Frontend.from_pretrained(settings)
frontend.warm_up(240, 320)
image = np.random.default_rng(0).integers(0, 256, (1200, 1600), dtype=np.uint8)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
keeper = OutOfMemoryGuard()

def process():
    frontend.extractor.pixel_fraction = keeper.fraction
    return frontend.process(image, 0)

result, note = keeper.run(process, frontend.free_memory, 0.0)
print(len(result.features), result.features.keypoints.max(dim=0).values.tolist(), note, keeper.fraction, sep="|")
"""


class _Device:
    """A frame that needs memory in proportion to its pixels."""

    def __init__(self, keeper: OutOfMemoryGuard, free_mib: float) -> None:
        self.keeper, self.free_mib, self.freed = keeper, free_mib, 0

    def frame(self) -> float:
        if self.keeper.fraction * _NEEDED_MIB > self.free_mib:
            raise torch.cuda.OutOfMemoryError(_MESSAGE)
        return self.keeper.fraction

    def free(self) -> None:
        self.freed += 1

    def run(self, now_s: float) -> tuple[float, str]:
        return self.keeper.run(self.frame, self.free, now_s)


def _behind_another() -> None:
    try:
        raise torch.cuda.OutOfMemoryError(_MESSAGE)
    finally:
        msg = "the capture cannot be ended"
        raise RuntimeError(msg)


def _of_a_library() -> None:
    msg = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    raise RuntimeError(msg)


def _of_a_convolution() -> None:
    msg = "GET was unable to find an engine to execute this computation"
    raise RuntimeError(msg)


def test_all_that_runs_out_of_memory_is_known() -> None:
    for fail in (_behind_another, _of_a_library, _of_a_convolution):
        keeper, outcomes = OutOfMemoryGuard(), iter([fail, lambda: None])
        _, note = keeper.run(lambda outcomes=outcomes: next(outcomes)(), lambda: None, 0.0)  # type: ignore[misc]
        assert (keeper.fraction, note.startswith("memory ran out")) == (0.5, True)
    with pytest.raises(RuntimeError, match="something else"):
        OutOfMemoryGuard().run(lambda: _raise("something else"), lambda: None, 0.0)


def _raise(message: str) -> None:
    raise RuntimeError(message)


def test_a_frame_that_does_not_fit_is_tried_once_more_with_half() -> None:
    keeper = OutOfMemoryGuard()
    device = _Device(keeper, free_mib=60)
    fraction, note = device.run(0.0)
    assert (fraction, device.freed) == (0.5, 1)
    assert note == (
        "memory ran out (CUDA out of memory. Tried to allocate 100 MiB.): the network sees at most 50.00% of its usual "
        "pixels for now"
    )
    assert device.run(59.0) == (0.5, "")
    assert device.freed == 1


def test_the_larger_image_is_tried_again_every_minute() -> None:
    keeper = OutOfMemoryGuard()
    device = _Device(keeper, free_mib=60)
    device.run(0.0)
    assert device.run(60.0)[1] != ""
    assert device.run(119.0) == (0.5, "")
    device.free_mib = 200
    assert device.run(120.0) == (1.0, "")
    assert device.run(1000.0) == (1.0, "")


def test_a_frame_that_never_fits_is_refused_and_the_next_one_begins_smaller() -> None:
    keeper = OutOfMemoryGuard()
    device = _Device(keeper, free_mib=20)
    with pytest.raises(OutOfMemoryError, match=r"ran out twice .*lower max_pixels"):
        device.run(0.0)
    assert keeper.fraction == 0.25
    assert device.run(1.0)[0] == 0.125
    device.free_mib = 0
    for _ in range(5):
        with pytest.raises(OutOfMemoryError):
            device.run(2.0)
    assert keeper.fraction == 1 / 32


def test_other_errors_are_none_of_its_business() -> None:
    def fail() -> None:
        msg = "device-side assert"
        raise RuntimeError(msg)

    keeper = OutOfMemoryGuard()
    with pytest.raises(RuntimeError, match="device-side"):
        keeper.run(fail, lambda: None, 0.0)
    assert keeper.fraction == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's address space, which Linux can")
def test_a_process_that_runs_out_of_memory_continues_with_a_smaller_image() -> None:
    command = [sys.executable, "-c", _SCRIPT, "700"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    count, _, note, fraction = done.stdout.strip().split("|")
    assert int(count) == 200
    assert "memory ran out" in note
    assert float(fraction) < 1
