"""Let a process end when the one that started it does. Standard library only.

Run as ``python tether.py COMMAND...``: becomes the command, which the kernel kills with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Be killed when the parent ends; no effect where there is no such thing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  (the command that the run file names)
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", file=sys.stderr)  # noqa: T201  (there is nobody to raise to)
        sys.exit(127)
