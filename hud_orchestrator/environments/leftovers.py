"""What an environment process may leave behind: processes that it started, and temporary files.

A process group does not hold what a tool started in a session of its own, and a killed process removes
nothing. So every environment process gets a directory for temporary files of its own: whoever has it in
his environment was started from there, however far down, and it is removed with all that is in it.

A daemon that is killed removes nothing either. It holds a lock on every such directory while it lives, so
the next one can tell which are nobody's any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROUNDS = 5
"""A process that starts another one while it is looked for is found in the next round."""

PREFIX = "hud-environment-"

DEATH_S = 1.0
"""Longest wait for a process that was killed."""

YOUNG_S = 60.0
"""A directory younger than this may be one whose daemon has not locked it yet."""


class OwnDirectory:
    """A directory for the temporary files of one environment process."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = locked(self.path)

    def clear(self) -> None:
        """Kill whoever still works with it, and remove it. Blocks until they are dead: some milliseconds."""
        _clear(self.path)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def sweep() -> None:
    """Clear what daemons that were killed have left. Blocks for some milliseconds for each."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Somebody else's, or gone meanwhile.
        with contextlib.suppress(OSError):
            if time.time() - directory.stat().st_mtime < YOUNG_S:
                continue
            lock = locked(directory)
            if lock is not None:
                _clear(directory)
                os.close(lock)


def locked(directory: Path) -> int | None:
    """The descriptor that holds the lock, ``None`` when somebody else does."""
    found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(found)
        return None
    return found


def _clear(directory: Path) -> None:
    for _ in range(ROUNDS):
        found = list(_users(directory))
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            _await_death(pid)
        if not found:
            break
    shutil.rmtree(directory, ignore_errors=True)


def _await_death(pid: int) -> None:
    """On a busy machine that takes more than the time until the next look."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(DEATH_S * 1000)
        finally:
            os.close(handle)


def _users(directory: Path) -> Iterator[int]:
    """Live processes with this ``TMPDIR``; none where there is no ``/proc``."""
    wanted = b"TMPDIR=" + os.fsencode(directory)
    for entry in Path("/proc").glob("[0-9]*/environ"):
        # Somebody else's, or gone meanwhile. A zombie has no environment any more.
        with contextlib.suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                yield int(entry.parent.name)
