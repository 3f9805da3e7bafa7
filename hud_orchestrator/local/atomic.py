"""Files and directories that are whole or absent, whenever the process or the machine dies.

Write under a temporary name, fsync, rename, fsync the parent. A rename is the moment at which the
new state exists; what has a temporary name is a leftover of a crash and may be deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".new-"
"""Begins the name of everything that is not finished."""


def write_file(path: Path, content: bytes) -> None:
    """Replace *path* by *content*, durably."""
    temporary = path.with_name(PREFIX + path.name)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a directory to fill, which becomes *path* at the end, or vanishes on an exception."""
    temporary = path.with_name(PREFIX + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for entry in temporary.rglob("*"):
            _sync(entry)
        _sync(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    try:
        _sync(path.parent)
    except OSError:
        discard(path)
        raise


def discard(path: Path) -> None:
    """Delete a directory; a kill in the middle leaves nothing that looks like a whole one."""
    temporary = path.with_name(PREFIX + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    path.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(parent: Path) -> list[str]:
    """Delete what a crash left unfinished in *parent*; the names of it."""
    leftovers = sorted(parent.glob(PREFIX + "*"))
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    return [leftover.name for leftover in leftovers]


def _sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
