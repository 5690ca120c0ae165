"""The parts: modules with `TITLE`, one line, and `steps(context)`, which gives the steps in their order."""

from __future__ import annotations

__all__ = ["PARTS"]

# In the order in which they run. Module paths: each part is imported in its own process only.
PARTS: dict[str, str] = {
    "machine": "scripts.gpu_check.parts.machine",
    "right": "scripts.gpu_check.parts.right",
    "fast": "scripts.gpu_check.parts.fast",
    "node": "scripts.gpu_check.parts.node",
    "train": "scripts.gpu_check.parts.train",
}
