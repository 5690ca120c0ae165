"""`process`: runs the front-end on every image of bags, videos and folders, into a rosbag2; without DDS or a clock."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from feature_frontend.tools.common.guard import INTERRUPTED
from feature_frontend.tools.process import command

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool as a program; see `command.main`."""
    code = command.main(argv)
    if code == INTERRUPTED:
        # If a KeyboardInterrupt has passed through exec(), as in bag libraries, CPython ends the process by the signal
        # instead of with this status, even if it was handled.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
