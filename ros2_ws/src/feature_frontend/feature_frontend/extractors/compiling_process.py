"""The compiling process: ends with the process that started it, however that ends, and ends its compilers.

It starts watching for that before it imports torch, which takes seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """Waits until the process at the other end of stdin ends, then ends this process and its children.

    This process must lead its own process group. Uses SIGTERM, so that compilers remove their temporary files.
    """
    # Not through sys.stdin: a thread that waits in it makes the interpreter abort at exit.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    from feature_frontend.extractors.compilation import fill_cache

    fill_cache(sys.argv[1:])
