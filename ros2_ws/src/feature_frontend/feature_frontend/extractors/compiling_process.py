"""The process that compiles: ends with the one that started it, however that ends, and takes its compilers along.

Imports torch only once it watches for that: which takes seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["end_with_parent"]


def end_with_parent() -> None:
    """Waits for the end of the process that holds the other end of stdin, then ends this one and what it has started.

    It must lead a group of processes of its own. By SIGTERM: a compiler removes its temporary files.
    """
    # Not through sys.stdin: a thread that waits inside it makes the interpreter abort at its own end.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    from feature_frontend.extractors.compilation import fill_cache

    fill_cache(sys.argv[1:])
