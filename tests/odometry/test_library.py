"""Without gtsam."""

from __future__ import annotations

import sys

import pytest

from feature_frontend.errors import SettingsError


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gtsam", None)
    monkeypatch.delitem(sys.modules, "feature_frontend_lab.odometry.library", raising=False)
    with pytest.raises(SettingsError, match=r"gtsam.*pip install gtsam"):
        import feature_frontend_lab.odometry.library  # noqa: F401
    # The next test imports it anew.
    sys.modules.pop("feature_frontend_lab.odometry.library", None)
