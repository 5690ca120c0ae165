"""Compilation in the background, and the behaviour if it is not possible."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from feature_frontend.api import load_extractor
from feature_frontend.extractors import compilation
from feature_frontend.extractors.base import FastNetwork
from feature_frontend.extractors.compilation import BackgroundCompiler
from feature_frontend.extractors.extractor import Extractor
from feature_frontend.extractors.networks.aliked_inference import FastAliked
from feature_frontend.extractors.registry import EXTRACTORS
from feature_frontend.settings import Settings
from tests.campaign import Campaign
from tests.core.seeded import seeded_network

needs_compiler = pytest.mark.skipif(
    os.environ.get("CXX") is None and not any(map(shutil.which, ("g++", "clang++", "c++"))),
    reason="needs a C++ compiler (g++)",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    return tmp_path / "compiled"


def _network() -> FastAliked:
    return FastAliked(seeded_network())


def _small_network() -> FastNetwork:
    """Compiled in a third of the time that ALIKED's takes."""
    model = EXTRACTORS["silk-vggnp-mu"]
    network = model.inference(model.build().eval()).requires_grad_(requires_grad=False)
    return cast(FastNetwork, network)


@needs_compiler
@pytest.mark.slow
@torch.no_grad()
def test_frames_go_on_uncompiled_until_the_code_is_ready(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    network = _small_network()
    compiler = BackgroundCompiler("silk-vggnp-mu", network, torch.float32, frames_before=3)
    images = torch.rand((1, 1, 64, 96), generator=torch.Generator().manual_seed(0))
    expected = network.dense(images)
    for _ in range(4):
        torch.testing.assert_close(compiler.run(images), expected)
        assert not compiler.is_compiled(images.shape)
        assert not compiler.is_in_use
    compiler.wait()
    assert compiler.is_compiled(images.shape), caplog.text
    assert not compiler.is_compiled((1, 1, 64, 64))
    for mine, plain in zip(compiler.run(images), expected, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-4, rtol=1e-4)
    assert compiler.is_in_use
    compiler.run(torch.rand((1, 1, 64, 64)), is_made_smaller=True)
    assert compiler.is_in_use
    assert list(cache.glob("silk-vggnp-mu-*.done"))
    assert not list(cache.glob(".unfinished-*"))
    assert re.search("silk-vggnp-mu .* 1x1x64x96", caplog.text)


@needs_compiler
@pytest.mark.slow
@torch.no_grad()
def test_code_damaged_on_disk_is_compiled_again_and_nothing_unfinished_counts(
    cache: Path, caplog: pytest.LogCaptureFixture, campaign: Campaign
) -> None:
    if not campaign.is_whole:
        pytest.skip("compiles twice: make campaign")
    caplog.set_level(logging.INFO)
    left = cache / ".unfinished-killed"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    images = torch.rand((1, 1, 32, 48), generator=torch.Generator().manual_seed(0))
    compiler = BackgroundCompiler("silk-vggnp-mu", _small_network(), torch.float32, frames_before=1)
    job = compilation._Job("silk-vggnp-mu", tuple(images.shape), "float32", torch.get_num_threads())
    assert compiler._fill_cache(job)
    assert not list(cache.glob(".unfinished-*"))
    libraries = list(cache.rglob("*.main.so"))
    assert libraries
    for path in libraries:
        path.write_bytes(b"")
    expected = compiler.run(images)
    compiler.wait()
    assert compiler.is_compiled(images.shape), caplog.text
    for mine, plain in zip(compiler.run(images), expected, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-4, rtol=1e-4)
    assert "is compiled again, as its cached code is unusable" in caplog.text
    for path in libraries:
        # This process compiled nothing itself.
        assert path.stat().st_mtime_ns <= job.marker().stat().st_mtime_ns
        assert path.stat().st_size > 0


@torch.no_grad()
def test_cached_code_that_does_not_load_is_compiled_again_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    network = _network()
    images = torch.zeros((1, 3, 32, 32))
    job = compilation._Job("aliked-t16", tuple(images.shape), "float32", torch.get_num_threads())
    cache.mkdir()
    job.marker().touch()
    filled: list[bool] = []

    def fill(_compiler: BackgroundCompiler, job: compilation._Job) -> bool:
        is_new = not job.marker().exists()
        filled.append(is_new)
        return is_new

    def load(network: FastAliked, _job: compilation._Job) -> compilation.Dense:
        if filled == [False]:
            msg = "main.so: file too short"
            raise ImportError(msg)
        return network.dense

    monkeypatch.setattr(BackgroundCompiler, "_fill_cache", fill)
    monkeypatch.setattr(compilation, "_compile", load)
    compiler = BackgroundCompiler("aliked-t16", network, torch.float32, frames_before=1)
    compiler.run(images)
    compiler.wait()
    assert compiler.is_compiled(images.shape)
    assert filled == [False, True]
    assert "file too short" in caplog.text


@torch.no_grad()
def test_without_a_compiler_it_says_so_once_and_continues(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(cache))
    monkeypatch.delenv("CXX", raising=False)
    network = _network()
    compiler = BackgroundCompiler("aliked-t16", network, torch.float32, frames_before=1)
    images = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        torch.testing.assert_close(compiler.run(images), network.dense(images))
        compiler.wait()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "aliked-t16 runs uncompiled" in caplog.text
    assert re.search(r"aliked-t16 .*apt install g\+\+", caplog.text)


@torch.no_grad()
def test_a_failing_compiler_is_reported_by_what_it_says(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compilation, "_COMPILERS", (sys.executable,))
    compiler = BackgroundCompiler("no-such-extractor", _network(), torch.float32, frames_before=1)
    compiler.run(torch.zeros((1, 3, 32, 32)))
    compiler.wait()
    assert re.search("no-such-extractor .*KeyError: 'no-such-extractor'", caplog.text)


@torch.no_grad()
def test_more_sizes_than_pytorch_compiles_of_one_code() -> None:
    network = _network()
    # PyTorch's own limit is eight. Not by monkeypatch, which takes the limit away for good in torch 2.4.
    with torch._dynamo.config.patch(cache_size_limit=2):
        for width in (32, 64, 96):
            # "eager" traces and guards as ever and leaves out the slow part.
            code = compilation._own_code(network.dense)
            compiled = torch.compile(code, dynamic=False, fullgraph=True, backend="eager")
            images = torch.rand((1, 3, 32, width), generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(compiled(images), network.dense(images))


@torch.no_grad()
def test_compiled_code_that_fails_costs_no_frame(caplog: pytest.LogCaptureFixture) -> None:
    network = _network()
    compiler = BackgroundCompiler("aliked-t16", network, torch.float32)
    images = torch.zeros((1, 3, 32, 32))

    def failing(_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        msg = "recompile limit reached"
        raise RuntimeError(msg)

    compiler._compiled[tuple(images.shape)] = failing
    for _ in range(2):
        torch.testing.assert_close(compiler.run(images), network.dense(images))
    assert not compiler.is_compiled(images.shape)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert re.search("aliked-t16 .*recompile limit reached", caplog.text)


@torch.no_grad()
def test_closing_ends_the_compiling_process_and_frees_the_network(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # It would compile for half a minute; whether a compiler is there does not matter to this.
    monkeypatch.setattr(compilation, "_COMPILERS", (sys.executable,))
    network = _network()
    held = weakref.ref(network)
    compiler = BackgroundCompiler("aliked-t16", network, torch.float32, frames_before=1)
    images = torch.zeros((1, 3, 32, 32))
    compiler.run(images)
    deadline_s = time.monotonic() + 20
    while compiler._process is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process = compiler._process
    compiler.close()
    compiler.wait(timeout_s=20)
    assert process.poll() is not None
    assert not list(cache.glob("*.done"))
    torch.testing.assert_close(compiler.run(images), network.dense(images))
    assert compiler._process is None
    assert not caplog.records
    del compiler, network
    assert held() is None


@pytest.mark.parametrize("is_possible", [True, False])
def test_compiling_for_one_size_is_waited_for_and_no_other_size_follows(
    monkeypatch: pytest.MonkeyPatch, is_possible: bool
) -> None:
    def fill_cache(_compiler: BackgroundCompiler, _job: object) -> None:
        time.sleep(0.2)
        if not is_possible:
            msg = "no C++ compiler on this machine"
            raise RuntimeError(msg)

    monkeypatch.setattr(BackgroundCompiler, "_fill_cache", fill_cache)
    monkeypatch.setattr(compilation, "_compile", lambda network, _job: network.dense)
    extractor, plain = (
        Extractor(_network(), "aliked-t16@seeded00", Settings(compile=wanted), torch.device("cpu"), has_maps=True)
        for wanted in (True, False)
    )
    assert extractor.compile_only_for((64, 96)) == is_possible
    rng = np.random.default_rng(0)
    for height in (64, 96):
        image = rng.integers(0, 256, (height, 96), dtype=np.uint8)
        for _ in range(12):
            extractor.extract(image)
        extractor.wait_until_fast()
        extractor.extract(image)
        assert (extractor.execution == "compiled") == (is_possible and height == 64)
    assert not plain.compile_only_for((64, 96))


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 3)])
def test_a_network_that_sees_grey_is_compiled_for_the_images_that_come(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(BackgroundCompiler, "_fill_cache", lambda _compiler, _job: None)
    monkeypatch.setattr(compilation, "_compile", lambda network, _job: network.dense)
    extractor = load_extractor("silk-vggnp-mu", device="cpu", compile=True)
    assert extractor.compile_only_for(shape)
    extractor.extract(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert extractor.execution == "compiled"


@torch.no_grad()
def test_a_few_images_are_not_worth_compiling(cache: Path) -> None:
    compiler = BackgroundCompiler("aliked-t16", _network(), torch.float32)
    for side in (32, 64):
        for _ in range(5):
            compiler.run(torch.zeros((1, 3, side, side)))
    compiler.wait()
    assert not cache.exists()


def test_the_compiling_process_and_its_compilers_end_with_its_parent() -> None:
    compiling = (
        "import subprocess, threading, time\n"
        "from feature_frontend.extractors.compiling_process import end_with_parent\n"
        "compiler = subprocess.Popen(['sleep', '120'])\n"
        "threading.Thread(target=end_with_parent, daemon=True).start()\n"
        "print(compiler.pid, flush=True); time.sleep(120)\n"
    )
    script = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {compiling!r}], stdin=subprocess.PIPE,\n"
        "    stdout=subprocess.PIPE, text=True, start_new_session=True)\n"
        "print(child.stdout.readline().strip(), child.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    package = Path(compilation.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    for pid in result.stdout.split():
        deadline_s = time.monotonic() + 20
        while _runs(pid):
            assert time.monotonic() < deadline_s, f"process {pid} is still running"
            time.sleep(0.02)


def _runs(pid: str) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:1]
    except OSError:
        return False
