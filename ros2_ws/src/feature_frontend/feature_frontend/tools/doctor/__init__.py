"""`doctor`: checks the machine, the installation and the running ROS graph, and says what to do."""

from __future__ import annotations

from feature_frontend.tools.doctor.command import main

__all__ = ["main"]
