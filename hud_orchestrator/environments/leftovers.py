"""What an environment process may leave behind: processes that it started, and temporary files.

A process group does not hold what a tool started in a session of its own, and a killed process removes
nothing. So every environment process gets a directory for temporary files of its own: whoever has it in
his environment was started from there, however far down, and it is removed with all that is in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROUNDS = 5
"""A process that starts another one while it is looked for is found in the next round."""


def make_directory() -> Path:
    """A new directory for the temporary files of one environment process."""
    return Path(tempfile.mkdtemp(prefix="hud-environment-"))


def clear(directory: Path) -> None:
    """Kill whoever still works with *directory*, and remove it. Blocks for some milliseconds."""
    for _ in range(ROUNDS):
        found = list(_users(directory))
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            break
    shutil.rmtree(directory, ignore_errors=True)


def _users(directory: Path) -> Iterator[int]:
    """Live processes with this ``TMPDIR``; none where there is no ``/proc``."""
    wanted = b"TMPDIR=" + os.fsencode(directory)
    for entry in Path("/proc").glob("[0-9]*/environ"):
        # Somebody else's, or gone meanwhile. A zombie has no environment any more.
        with contextlib.suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                yield int(entry.parent.name)
