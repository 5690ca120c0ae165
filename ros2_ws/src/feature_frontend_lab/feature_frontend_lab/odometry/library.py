"""GTSAM, or an error that says how to get it: only this room needs it."""

from __future__ import annotations

from feature_frontend.errors import SettingsError

__all__ = ["gtsam"]

try:
    import gtsam
except ImportError as _error:
    _msg = (
        f"visual-inertial odometry needs the Python package gtsam ({_error}): pip install gtsam, or the extra odometry "
        "of feature_frontend_lab"
    )
    raise SettingsError(_msg) from _error
