"""Directories that are built once and then only read, however many processes ask for them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/hud_orchestrator``, or ``~/.cache/hud_orchestrator``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "hud_orchestrator"


def built_once(directory: Path, build: Callable[[Path], None]) -> Path:
    """Return *directory*, built by *build* if it is not there yet.

    It exists only whole: it is built under another name, made durable, then renamed. A second
    process waits for the first; one that is killed leaves a remnant that the next one clears.
    """
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory.with_name(f".{directory.name}.lock")):
            # The process that we waited for may have built it.
            if not directory.is_dir():
                _build(directory, build)
    return directory


def _build(directory: Path, build: Callable[[Path], None]) -> None:
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        build(unfinished)
        for path in [*unfinished.rglob("*"), unfinished]:
            _flush(path)
        unfinished.rename(directory)
        _flush(directory.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel lets go of the lock when its holder dies, so there is no stale lock to clear.
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
