"""The parts: modules with a one-line `TITLE` and `steps(context)`, which returns the steps in order."""

from __future__ import annotations

__all__ = ["PARTS"]

# In the order of execution. Module paths: each part is imported in its own process only.
PARTS: dict[str, str] = {
    "machine": "scripts.gpu_check.parts.machine",
    "right": "scripts.gpu_check.parts.right",
    "fast": "scripts.gpu_check.parts.fast",
    "node": "scripts.gpu_check.parts.node",
    "train": "scripts.gpu_check.parts.train",
}
