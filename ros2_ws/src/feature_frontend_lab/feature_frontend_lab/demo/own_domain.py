"""Reserves a ROS domain that no other demo, test or benchmark of this project uses on this machine."""

from __future__ import annotations

import functools
import os
import socket

from feature_frontend.errors import FeatureFrontendError

__all__ = ["own_domain"]

# For domains above 101, FastDDS's ports (7400 + 250 each) may collide with Linux's ephemeral ports.
_DOMAINS = tuple(range(1, 101))
_kept: list[socket.socket] = []


@functools.lru_cache(maxsize=1)
def own_domain() -> int:
    """The domain, 1 to 100, reserved for this process and its children until it ends.

    Raises:
        FeatureFrontendError: All domains are in use.
    """
    first = os.getpid() % len(_DOMAINS)
    for domain in (*_DOMAINS[first:], *_DOMAINS[:first]):
        # An abstract socket name: one process at a time can hold it, and it is released however the process ends.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0feature_frontend_ros_domain_{domain}")
        except OSError:
            claim.close()
        else:
            _kept.append(claim)
            return domain
    raise FeatureFrontendError(
        f"all ROS domains from {_DOMAINS[0]} to {_DOMAINS[-1]} are in use by demos, tests or benchmarks; end some"
    )
