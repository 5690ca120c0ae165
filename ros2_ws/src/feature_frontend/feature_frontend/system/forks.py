"""Processes that are forked from one that has computed, as `multiprocessing` does it on Linux by default."""

from __future__ import annotations

import os

import cv2
import torch

__all__ = ["compute_with_one_thread_after_fork"]

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
