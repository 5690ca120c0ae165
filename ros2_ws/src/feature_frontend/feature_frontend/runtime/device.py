"""Where tensors live: the device that a name means, and a GPU's memory."""

from __future__ import annotations

import os
import re

import cv2
import torch

from feature_frontend.errors import SettingsError
from feature_frontend.system.text import quoted

__all__ = ["compute_with_one_thread_after_fork", "resolve_device", "return_device_memory"]


def return_device_memory() -> None:
    """Gives a GPU's memory that nothing uses any more back to other processes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def resolve_device(name: str) -> torch.device:
    """The device that the parameter `device` means on this machine.

    Raises:
        SettingsError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # torch itself takes "cpu:7", which there is not, and its words for "cuda:-1" are about something else.
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
    msg = f"parameter device is {quoted(name)}; expected one of {expected}{why}"
    raise SettingsError(msg)


_done: list[bool] = []


def compute_with_one_thread_after_fork() -> None:
    """Has every child that is forked from now on compute with one thread.

    Of a process's threads, fork copies only the one that calls it. OpenMP's and OpenCV's pools, once in use, wait in
    the child for workers that are not there, for ever; with one thread nobody is waited for. A GPU cannot be used in a
    forked child at all, which torch says.
    """
    if not _done and hasattr(os, "register_at_fork"):
        _done.append(True)
        os.register_at_fork(after_in_child=_compute_with_one_thread)


def _compute_with_one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
