"""A ROS domain that no other run of the tests or of the benchmarks on this machine uses."""

from __future__ import annotations

import functools
import os
import socket

__all__ = ["own_domain"]

# Of domains over 101, FastDDS's ports (7400 + 250 each) may be those that Linux gives to any program.
_DOMAINS = range(1, 102)
_kept: list[socket.socket] = []


@functools.lru_cache(maxsize=1)
def own_domain() -> int:
    """The domain of this process until it ends, 1 to 101.

    Raises:
        RuntimeError: All are in use.
    """
    first = os.getpid() % len(_DOMAINS)
    for domain in (*_DOMAINS[first:], *_DOMAINS[:first]):
        # A name without a file, which one process at a time can hold and which goes with it however it ends.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0feature_frontend_ros_domain_{domain}")
        except OSError:
            claim.close()
        else:
            _kept.append(claim)
            return domain
    message = f"all ROS domains from {_DOMAINS[0]} to {_DOMAINS[-1]} are in use by tests or benchmarks: end some"
    raise RuntimeError(message)
