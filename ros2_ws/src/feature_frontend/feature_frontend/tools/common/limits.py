"""Process limits under which torch, OpenCV and the middleware crash or hang without a message."""

from __future__ import annotations

import sys

from feature_frontend.errors import FeatureFrontendError

__all__ = ["LEAST_FILES", "address_space_problem", "files_problem", "require"]

# A node alone has 23 open files, and some more for each process that it discovers.
LEAST_FILES = 64
_MIB = 1 << 20
# On two cores, processes with up to 1.3 GiB crash or wait for threads that never start. Each further core needs a
# thread's stack and the address space that the C library reserves for it.
_LEAST_ADDRESS_SPACE = 2048 * _MIB


def address_space_problem() -> str:
    """Why the limit on address space (`ulimit -v`) is too low; empty if it is not."""
    limit = _limit("RLIMIT_AS")
    if limit is None or limit >= _LEAST_ADDRESS_SPACE:
        return ""
    return (
        f"the address space is limited to {limit // _MIB} MiB (`ulimit -v`), in which torch and OpenCV crash or hang; "
        f"expected at least {_LEAST_ADDRESS_SPACE // _MIB} MiB. To limit the memory in use, take systemd-run -p "
        "MemoryMax=... or a container"
    )


def files_problem() -> str:
    """Why the limit on open files (`ulimit -n`) is too low; empty if it is not."""
    limit = _limit("RLIMIT_NOFILE")
    if limit is None or limit >= LEAST_FILES:
        return ""
    return f"{limit} files may be open at a time (`ulimit -n`); expected at least {LEAST_FILES}"


def require(problem: str) -> None:
    """Stops the program before it crashes or hangs.

    Raises:
        FeatureFrontendError: There is a problem.
    """
    if problem:
        raise FeatureFrontendError(problem)


def _limit(name: str) -> int | None:
    """A limit in force; None for unlimited."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft
