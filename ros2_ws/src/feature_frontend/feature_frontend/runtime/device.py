"""Resolves device names, frees GPU memory, and makes forked children safe."""

from __future__ import annotations

import os
import re

import cv2
import torch

from feature_frontend.errors import SettingsError
from feature_frontend.system.text import quoted

__all__ = ["compute_with_one_thread_after_fork", "resolve_device", "return_device_memory"]


def return_device_memory() -> None:
    """Returns unused cached GPU memory to the system, for other processes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_device(name: str) -> torch.device:
    """Resolves the parameter `device` on this machine.

    Raises:
        SettingsError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # torch accepts "cpu:7", which does not exist, and its error for "cuda:-1" is misleading.
    match = re.fullmatch(r"cpu|cuda(:(?P<index>0|[1-9][0-9]{0,3}))?", name)
    count = torch.cuda.device_count()
    if match and (name == "cpu" or int(match["index"] or 0) < count):
        return torch.device(name)
    expected = ", ".join(["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))])
    why = ""
    if match:
        why = (
            "; this torch has no CUDA, install one that has" if torch.version.cuda is None else "; torch sees no other"
        )
    raise SettingsError(f"parameter device is {quoted(name)}; expected one of {expected}{why}")


_done: list[bool] = []


def compute_with_one_thread_after_fork() -> None:
    """Makes every child that is forked from now on compute with one thread.

    A fork copies only the thread that calls it. If the pools of OpenMP and OpenCV are in use, the child waits forever
    for worker threads that do not exist; with one thread it waits for none. A forked child cannot use a GPU at all;
    torch reports that.
    """
    if not _done and hasattr(os, "register_at_fork"):
        _done.append(True)
        os.register_at_fork(after_in_child=_compute_with_one_thread)


def _compute_with_one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
