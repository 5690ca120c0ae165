"""The allocator's setting, in separate processes: it is process-wide and cannot be undone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from feature_frontend.runtime.heap import HeapReserve
from tests.conftest import REPOSITORY

_SCRIPT = """
import resource
from feature_frontend.runtime.heap import keep_freed_memory
kept = keep_freed_memory()
import numpy as np
for _ in range(3):
    np.ones(80_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(80_000_000, np.uint8)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

_needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def _run(**variables: str) -> tuple[bool, int]:
    """Whether the setting was made, and how many pages were then faulted in by 800 MB of short-lived arrays."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    # NumPy asks for huge pages by default, which makes faults few and expensive.
    environment |= {"NUMPY_MADVISE_HUGEPAGE": "0", **variables}
    output = subprocess.run(
        [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return output[0] == "True", int(output[1])


@_needs_glibc
def test_freed_memory_is_used_again() -> None:
    kept, faults = _run()
    assert kept
    assert faults < 1000


@_needs_glibc
@pytest.mark.parametrize("variable", [("MALLOC_ARENA_MAX", "4"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=4")])
def test_a_setting_of_the_user_stays_in_force(variable: tuple[str, str]) -> None:
    kept, _ = _run(**dict([variable]))
    assert not kept


_CACHES_SCRIPT = """
import ctypes, os, sys
from feature_frontend.runtime.heap import keep_freed_memory, restart_without_thread_caches
started_as = os.environ.setdefault("STARTED_AS", str(os.getpid()))
restart_without_thread_caches()
keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("a", "b", "c", "d", "e", "f", "g", "used", "h", "i")]
library.mallinfo.restype = Info
library.mallinfo()
before = library.mallinfo().used
for block in [library.malloc(200) for _ in range(5)]:
    library.free(block)
cached = library.mallinfo().used - before
inherited = "GLIBC_TUNABLES" in os.environ
print(os.getpid() == int(started_as), cached > 0, inherited, *sys.argv[1:])
"""


@_needs_glibc
@pytest.mark.parametrize(
    ("variables", "cached"), [({}, False), ({"MALLOC_ARENA_MAX": "1"}, True)], ids=["restarted", "user's setting"]
)
def test_no_thread_keeps_small_blocks_for_itself(variables: dict[str, str], cached: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    output = subprocess.run(
        [sys.executable, "-c", _CACHES_SCRIPT, "an argument"],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split(maxsplit=3)
    assert output == ["True", str(cached), "False", "an argument\n"]


@_needs_glibc
def test_kept_memory_goes_back_on_request() -> None:
    script = """
import numpy as np
from feature_frontend.runtime.heap import give_back_freed_memory, keep_freed_memory
from tests.memory import resident_mib
keep_freed_memory()
blocks = [np.ones(8_000_000, np.uint8) for _ in range(20)]
del blocks
kept = resident_mib()
give_back_freed_memory()
print(kept - resident_mib())
"""
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert float(output) > 100


@_needs_glibc
def test_slack_is_reserved_once() -> None:
    script = """
import numpy as np
from feature_frontend.runtime.heap import give_back_freed_memory, keep_freed_memory, reserve_slack
from tests.memory import resident_mib
assert reserve_slack() == 0
keep_freed_memory()
def frame():
    blocks = [np.ones(20_000_000, np.uint8) for _ in range(3)]
frame()
before = resident_mib()
assert reserve_slack() > 50 * 2**20
first = resident_mib() - before
for _ in range(3):
    frame()
    assert reserve_slack() == 0
second = resident_mib() - before - first
give_back_freed_memory()
print(first, second, resident_mib() - before)
"""
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    first, second, left = map(float, output.split())
    assert 50 < first < 140
    # The kernel adds pages of its own accord; another reserve would add as much as the first.
    assert second < first / 2
    assert left < 0


def test_slack_is_reserved_for_what_stays() -> None:
    reserved: list[str] = []
    keeper = HeapReserve(lambda: reserved.append(""))
    camera, stray = (480, 640), (2000, 2000)
    for _ in range(3):
        assert not reserved
        keeper.note("model", camera)
    assert len(reserved) == 1
    # A few images of another size, again and again, change nothing.
    for _ in range(20):
        for size in (*[stray] * 29, *[camera] * 3):
            keeper.note("model", size)
    assert len(reserved) == 1
    for _ in range(60):
        keeper.note("model", stray)
    assert len(reserved) == 2
    # Another model is chosen by whoever may, and acts at once.
    for _ in range(3):
        keeper.note("other", stray)
    assert len(reserved) == 3
