"""Start of the training."""

from __future__ import annotations

from scripts.gpu_check.parts.train import workers


def test_pairs_are_prepared_by_as_many_processes_as_shared_memory_has_room_for() -> None:
    assert workers(16, 64 << 30) == 14
    # A container's usual 64 MiB.
    assert workers(16, 64 << 20) == 0
    assert workers(16, 512 << 20) == 4
    assert workers(1, 64 << 30) == 0
