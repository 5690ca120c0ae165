"""The workshop beside `feature_frontend`: training, evaluation, rendering, the demo and exports. No robot needs it."""

from __future__ import annotations

__version__ = "0.1.0"
