"""`demo`: plays a sequence through the node as real ROS 2 processes, then reports and draws the recorded results."""

from feature_frontend_lab.demo.command import main

__all__ = ["main"]
