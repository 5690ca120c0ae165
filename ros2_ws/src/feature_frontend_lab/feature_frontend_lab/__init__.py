"""The lab for `feature_frontend`: training, evaluation, rendering, demo and exports. Not needed on a robot."""

from __future__ import annotations

__version__ = "0.1.0"
