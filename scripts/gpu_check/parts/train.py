"""Part `train`: uses the remaining time for the training in train.sh; its checkpoint is returned."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import cv2

from benchmarks.images import REPOSITORY
from feature_frontend_lab.rendering import Camera, RenderedFrame, Scene, default_scene, default_trajectory, render
from feature_frontend_lab.rendering.camera import FloatArray
from feature_frontend_lab.rendering.tum_sequence import write_tum_sequence
from scripts.gpu_check.shared_memory import shared_memory_bytes
from scripts.gpu_check.step import Context, LeftOutError, Outcome, Step

__all__ = ["TITLE", "steps", "workers"]

TITLE = "Training"
_SCRIPT = REPOSITORY / "scripts" / "gpu_check" / "train.sh"
_CHECKPOINT = "checkpoint.pt"
# Time needed besides the training itself: start-up, and validation and export at the end.
_START_S, _END_S = 15.0, 15.0
_STOP_S = 6.0  # to save a checkpoint after Ctrl-C
_LEAST_S = 10.0
_POLL_S = 1.0
_MAX_CHECKPOINT_BYTES = 15 << 20
# Prepared pairs use /dev/shm, which may be 64 MiB in a container: two batches per worker and a margin.
_SHARED_BYTES_OF_WORKER = 128 << 20
_MOST_FILES = 65_536  # open files: one per queued tensor


def steps(context: Context) -> Sequence[Step]:
    """One step with its own end; the limit applies if it does not end."""
    return (Step("train", _train, needs_s=_START_S if context.is_rehearsal else 60, limit_s=context.left_s + 10),)


def _train(context: Context) -> Outcome:
    photographs = context.shared / "images" / "free"
    if not photographs.is_dir():
        msg = f"no photographs in {photographs}"
        raise LeftOutError(msg)
    if not any((context.shared / "weights").glob("aliked-*.pth")):
        msg = f"no teacher: no weights of ALIKED in {context.shared / 'weights'}"
        raise LeftOutError(msg)
    begun_s = time.monotonic()
    rendered = context.scratch / "rendered"
    sequences = _render(rendered, context.is_rehearsal)
    rendering_s = time.monotonic() - begun_s
    output = context.scratch / "run"
    minutes = max(context.left_s - _START_S - _END_S, _LEAST_S) / 60
    environment = {
        **os.environ,
        "DEVICE": context.device,
        "MINUTES": f"{minutes:.2f}",
        "PHOTOGRAPHS": str(photographs),
        "FEATURE_FRONTEND_WEIGHTS": str(context.shared / "weights"),
        "RENDERED": ":".join(map(str, sequences)),
        "OUTPUT": str(output),
        "WORKERS": str(workers(len(os.sched_getaffinity(0)), shared_memory_bytes())),
        "PYTHON": sys.executable,
    }
    log = context.scratch / "train.log"
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = _MOST_FILES if most == resource.RLIM_INFINITY else min(most, _MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            ["bash", str(_SCRIPT)], cwd=REPOSITORY, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        status = _follow(process, output / _CHECKPOINT, context)
    return _outcome(
        status, output, log, context, f"{rendering_s:.0f} s of rendering, {minutes:.1f} minutes of training"
    )


def workers(cores: int, shared_bytes: int) -> int:
    """Number of processes that prepare pairs: too little shared memory would kill them; 0 needs none."""
    return max(min(cores - 2, shared_bytes // _SHARED_BYTES_OF_WORKER), 0)


def _render(folder: Path, is_rehearsal: bool) -> list[Path]:
    """Renders flights through halls with various textures as RGB-D sequences: exact depth and poses for training."""
    height, frames_each, seeds = (120, 3, (1,)) if is_rehearsal else (480, 60, (1, 2))
    camera = Camera.with_field_of_view(70, height=height, width=height * 4 // 3)
    poses = default_trajectory(frames_each)
    jobs = [(seed, pose) for seed in seeds for pose in poses]
    work = partial(_rendered, camera)
    if is_rehearsal:
        frames = list(map(work, jobs))
    else:
        cores = len(os.sched_getaffinity(0))
        with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
            # One chunk per core: creating a scene takes longer than rendering a dozen images.
            frames = list(pool.map(work, jobs, chunksize=math.ceil(len(jobs) / cores)))
    folders = [folder / str(seed) for seed in seeds]
    for number, each in enumerate(folders):
        part = frames[number * frames_each : (number + 1) * frames_each]
        write_tum_sequence(each, zip(part, poses, strict=True), camera)
    return folders


@lru_cache(maxsize=1)
def _scene(seed: int) -> Scene:
    return default_scene(seed)


def _rendered(camera: Camera, job: tuple[int, FloatArray]) -> RenderedFrame:
    cv2.setNumThreads(1)
    seed, pose = job
    return render(_scene(seed), camera, pose)


def _follow(process: subprocess.Popen[bytes], checkpoint: Path, context: Context) -> int:
    """Waits for the end and copies each new checkpoint to where it survives a kill; returns the exit status."""
    copied_ns, is_asked = 0, False
    while process.poll() is None:
        if context.left_s < _STOP_S and not is_asked:
            process.send_signal(signal.SIGINT)
            is_asked = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
        copied_ns = _keep(checkpoint, context.keep, copied_ns)
    _keep(checkpoint, context.keep, copied_ns)
    return process.returncode


def _keep(checkpoint: Path, folder: Path, copied_ns: int) -> int:
    """Copies a checkpoint newer than `copied_ns`; returns the modification time of the copied one, ns."""
    if not checkpoint.is_file():
        return copied_ns
    state = checkpoint.stat()
    if state.st_mtime_ns == copied_ns or state.st_size > _MAX_CHECKPOINT_BYTES:
        return copied_ns
    partial_copy = folder / f".{_CHECKPOINT}.partial"
    shutil.copyfile(checkpoint, partial_copy)
    os.replace(partial_copy, folder / _CHECKPOINT)
    return state.st_mtime_ns


def _outcome(status: int, output: Path, log: Path, context: Context, how: str) -> Outcome:
    """The result from the run's log, and its files except the checkpoint, which is returned separately."""
    rows = [json.loads(line) for line in _lines(output / "log.jsonl")]
    training = [row for row in rows if row["kind"] == "training"]
    validations = [row for row in rows if row["kind"] == "validation"]
    files = [log, *sorted(path for path in output.glob("*") if path.is_file() and path.name != _CHECKPOINT)]
    is_kept = (context.keep / _CHECKPOINT).is_file()
    steps_done = max((int(row["step"]) for row in rows), default=0)
    text = f"{how}: {steps_done} steps, exit status {status}, checkpoint {'kept' if is_kept else 'MISSING'}"
    if training:
        text += f"; loss {training[0]['loss']:.3f} to {training[-1]['loss']:.3f}"
    if len(validations) > 1:
        text += f"; held-out pairs, overall {validations[0]['overall']:.3f} to {validations[-1]['overall']:.3f}"
    return Outcome(passed=status == 0 and is_kept, text=text, data={"log": rows}, files=files)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
