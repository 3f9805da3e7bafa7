"""The directory of one evaluation, in place of a run's: the one that a killed evaluation left, or a new one.

Containers carry its name, so whoever has it next finds what its last owner left running, as a run does that
goes on. An evaluation holds a lock on its directory while it lives; one that ended badly leaves it behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hud_orchestrator.environments.leftovers import locked

PREFIX = "hud-orchestrate-eval-"


@contextmanager
def own_directory(placement: str) -> Iterator[Path]:
    """A directory that no other evaluation has, for the length of the block; removed if that ends well.

    Of those that were left, one of the same *placement* is taken: another would not look for what it names.
    """
    path, lock = _taken_over(placement) or _new(placement)
    try:
        yield path
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)


def _taken_over(placement: str) -> tuple[Path, int] | None:
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_prefix(placement)}*")):
        # Somebody else's, or gone meanwhile.
        with suppress(OSError):
            lock = locked(path)
            if lock is not None and _is_ours(path, lock):
                return path, lock
            if lock is not None:
                os.close(lock)
    return None


def _new(placement: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_prefix(placement)))
        lock = locked(path)
        if lock is not None:
            return path, lock
        # Another evaluation took it for one that was left.


def _is_ours(path: Path, lock: int) -> bool:
    """Whether the directory that is locked is still there under its name, and nobody else's."""
    try:
        there = path.lstat()
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(lock)) and there.st_uid == os.geteuid()


def _prefix(placement: str) -> str:
    return f"{PREFIX}{placement.partition('://')[0]}-"
