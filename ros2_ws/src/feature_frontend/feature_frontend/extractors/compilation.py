"""Compiles networks for the CPU in the background with `torch.compile`, caches them on disk, and uses them once ready.

The first compilation takes half a minute on two cores. A separate low-priority process does it and leaves the code in
the cache; the node's process only loads it. Meanwhile the uncompiled network processes the images. Code in the cache is
executed without verification: as with every cache of PyTorch, nobody whom the node's user does not trust may be able to
write to the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from feature_frontend.extractors.base import FastNetwork
from feature_frontend.models.weights import cache_folder
from feature_frontend.system.files import move_whole

__all__ = ["BackgroundCompiler", "compiled_cache", "fill_cache"]

_FRAMES_BEFORE = 10  # a size that occurs so often will recur; a folder of a few images is finished before
_MOST_SIZES = 4
_NICENESS = 5
_COMPILERS = ("g++", "clang++", "c++")
_REASON_LENGTH = 300
_UNFINISHED = ".unfinished-"
_LONGEST_COMPILATION_S = 3600.0
_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Invalid\w*|Unsupported)\b")

_logger = logging.getLogger(__name__)

Dense = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class _Job:
    """One compilation: network name, floating-point type, batch shape and number of threads."""

    extractor: str
    shape: tuple[int, ...]
    dtype: str
    threads: int

    def arguments(self) -> list[str]:
        return [self.extractor, "x".join(map(str, self.shape)), self.dtype, str(self.threads)]

    @staticmethod
    def parse(arguments: Sequence[str]) -> _Job:
        extractor, shape, dtype, threads = arguments
        return _Job(extractor, tuple(int(side) for side in shape.split("x")), dtype, int(threads))

    def marker(self) -> Path:
        """The file whose existence means that the cache contains this job's code."""
        own = Path(__file__).parent
        sources = b"".join(file.read_bytes() for file in sorted(own.rglob("*.py")))
        parts = [torch.__version__, torch.backends.cpu.get_cpu_capability(), sys.version, *self.arguments()]
        digest = hashlib.sha256("\n".join(parts).encode() + sources).hexdigest()
        return compiled_cache() / f"{self.extractor}-{digest[:16]}.done"


def compiled_cache() -> Path:
    """Folder of compiled code: `$TORCHINDUCTOR_CACHE_DIR`, or `compiled` in the cache of the weights."""
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return Path(chosen) if chosen else cache_folder() / "compiled"


class BackgroundCompiler:
    """Runs a network's dense part: compiled for sizes that recur, uncompiled until then.

    Call it from one thread; compilation runs in another and ends with the process, or by `close`.

    Args:
        name: The network's name in `EXTRACTORS`.
        network: On the CPU, in evaluation mode.
        dtype: Floating-point type of its weights.
        frames_before: Number of images of one size before the network is compiled for that size.

    Attributes:
        frames_before: The same; may change between two images.
    """

    def __init__(
        self, name: str, network: FastNetwork, dtype: torch.dtype, frames_before: float = _FRAMES_BEFORE
    ) -> None:
        self._name = name
        self._dtype = str(dtype).removeprefix("torch.")
        self._network = network
        self.frames_before = frames_before
        self._seen: dict[tuple[int, ...], int] = {}
        self._compiled: dict[tuple[int, ...], Dense] = {}
        self._worker: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # for state used by the compiling thread and `close`
        self._gave_up = False
        self._is_closed = False
        self._is_in_use = False

    def run(self, images: torch.Tensor, *, is_made_smaller: bool = False) -> tuple[torch.Tensor, ...]:
        """The network's maps of (B, C, H, W) images; with several scales, `is_in_use` refers to the largest."""
        shape = tuple(images.shape)
        compiled = self._compiled.get(shape)
        if not is_made_smaller:
            self._is_in_use = compiled is not None
        if compiled is not None:
            try:
                return compiled(images)
            except Exception as error:
                # Do not lose a frame if PyTorch recompiles, for example for another number of threads.
                self._give_up(error)
                return self._network.dense(images)
        self._seen[shape] = self._seen.get(shape, 0) + 1
        if self._seen[shape] >= self.frames_before:
            self._begin(images)
        return self._network.dense(images)

    @property
    def is_in_use(self) -> bool:
        """Whether the latest batch ran compiled code."""
        return self._is_in_use

    def is_compiled(self, shape: Sequence[int]) -> bool:
        """Whether batches of this shape run compiled code."""
        return tuple(shape) in self._compiled

    def wait(self, timeout_s: float | None = None) -> None:
        """Waits until nothing is being compiled."""
        if self._worker is not None:
            self._worker.join(timeout_s)

    def close(self) -> None:
        """Ends the compiling process and discards compiled code; the uncompiled network processes further images.

        A thread that is already loading the compiled code cannot be stopped: its result is discarded.
        """
        with self._lock:
            self._is_closed = True
            self._compiled.clear()
            if self._process is not None:
                _end(self._process)

    def _begin(self, images: torch.Tensor) -> None:
        is_busy = self._worker is not None and self._worker.is_alive()
        if self._gave_up or self._is_closed or is_busy or len(self._compiled) >= _MOST_SIZES:
            return
        job = _Job(self._name, tuple(images.shape), self._dtype, torch.get_num_threads())
        self._worker = threading.Thread(target=self._compile, args=(job,), name="compile", daemon=True)
        self._worker.start()

    def _give_up(self, error: Exception) -> None:
        self._gave_up = True
        self._compiled.clear()
        _logger.warning("%s runs uncompiled, which is slower: %s", self._name, _first_line(error))

    def _compile(self, job: _Job) -> None:
        try:
            is_new = self._fill_cache(job)
            try:
                compiled = _compile(self._network, job)
            except Exception as error:
                if is_new or self._is_closed:
                    raise
                # A damaged file, of a failing disk or an older version, would otherwise last for ever.
                _logger.info("%s is compiled again, as its cached code is unusable: %s", self._name, _first_line(error))
                job.marker().unlink(missing_ok=True)
                self._fill_cache(job)
                compiled = _compile(self._network, job)
        except Exception as error:
            # Whatever prevents compilation here, the uncompiled network does the same work.
            if not self._is_closed:
                self._give_up(error)
            return
        with self._lock:
            if self._is_closed:
                return
            self._compiled[job.shape] = compiled
        _logger.info("%s is compiled for %s", self._name, "x".join(map(str, job.shape)))

    def _fill_cache(self, job: _Job) -> bool:
        """Compiles in another process, unless the result is already on disk; returns whether it did."""
        if job.marker().exists():
            return False
        if not os.environ.get("CXX") and not any(shutil.which(compiler) for compiler in _COMPILERS):
            raise RuntimeError(
                "no C++ compiler on this machine; install one (apt install g++), or set the parameter compile to false"
            )
        command = [sys.executable, "-m", f"{__package__}.compiling_process", *job.arguments()]
        # The compiling process holds the other end of the pipe: if this process ends in any way, so does that one.
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            with self._lock:
                self._process = process
                if self._is_closed:
                    _end(process)
            assert process.stderr is not None
            errors = process.stderr.read().decode(errors="replace")
            code = process.wait()
            with self._lock:
                self._process = None
        if code != 0:
            # The line of the traceback that names the error; the rest is advice for PyTorch's developers.
            lines = [line for line in errors.splitlines() if _ERROR_LINE.match(line)]
            raise RuntimeError(lines[0] if lines else f"the compiling process ended with {code}")
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a compiling process and its compilers, which remove their temporary files."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def _remove_unfinished(cache: Path) -> None:
    """Removes what compiling processes left that were ended."""
    for folder in cache.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _LONGEST_COMPILATION_S:
                shutil.rmtree(folder)


def _own_code(method: Dense) -> Dense:
    """A copy of the method's code: PyTorch compiles one code object at most eight times per process."""
    bound = cast(types.MethodType, method)
    function = cast(types.FunctionType, bound.__func__)
    copy = types.FunctionType(
        function.__code__.replace(),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return cast(Dense, types.MethodType(copy, bound.__self__))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_REASON_LENGTH]


def _compile(network: FastNetwork, job: _Job) -> Dense:
    """Compiles in this process; quick if the cache has the code."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_cache()))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    layout = torch.channels_last if job.shape[1] > 1 else torch.contiguous_format
    example = torch.zeros(job.shape).to(memory_format=layout)
    compiled: Dense = torch.compile(_own_code(network.dense), dynamic=False, fullgraph=True)
    with torch.no_grad():
        compiled(example)
    return compiled


def fill_cache(arguments: Sequence[str]) -> None:
    """Compiles the job given by `_Job.arguments`; runs in the dedicated process."""
    from feature_frontend.extractors.registry import EXTRACTORS

    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    job = _Job.parse(arguments)
    cache = compiled_cache()
    cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(job.threads)
    network: nn.Module = EXTRACTORS[job.extractor].inference(EXTRACTORS[job.extractor].build().eval())
    network = network.to(dtype=getattr(torch, job.dtype)).eval().requires_grad_(requires_grad=False)
    # Compilers write under the final names: in the cache, one that is ended would leave half a file.
    _remove_unfinished(cache)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=cache) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        _compile(cast(FastNetwork, network), job)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.suffix != ".lock":
                move_whole(path, cache / path.relative_to(folder))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    job.marker().touch()
