"""The run directory: one run at a time, and everything in it explains itself.

config.yaml        the resolved run file, without secrets
store.db           ledger, rollouts, steps, evaluations (SQLite)
store.db-noted     what was graded and is no row of it yet; there while a run goes on, or when it was killed
metrics.jsonl      a line per step and per evaluation
summary.json       how the run stands, written at every end
run.log            every log line as JSON
environments.log   what environment processes print
service/           state and log of the embedded service
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from hud_orchestrator.errors import ConfigError, StateInUse, StateUnwritable

PROBE_BYTES = 4 * 2**20
"""Less free space than this would fail within the first steps, so it is said before they begin."""


class RunDirectory:
    """Paths of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.store = path / "store.db"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.log = path / "run.log"
        self.environments_log = path / "environments.log"
        self.service = path / "service"
        self.lock = path / "lock"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the directory, hold it, and check that it can be written.

        Raises:
            StateInUse: another process holds it.
            StateUnwritable: disk full, read-only, or no permission.
        """
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                handle = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise StateUnwritable(f"{self.path}: cannot be made or opened: {error.strerror}") from error
            try:
                self._lock(handle)
                # Set aside in between, the directory that is held is not this one any more.
                if _is_file(handle, self.lock):
                    self._probe()
                    yield
                    return
            finally:
                os.close(handle)

    def set_aside(self) -> Path | None:
        """Move an existing directory out of the way, and return where it is now.

        Raises:
            ConfigError: it is the working directory, or that is in it.
            StateInUse: a run is going on in it.
            StateUnwritable: it cannot be moved.
        """
        if not self.path.exists():
            return None
        if Path.cwd().is_relative_to(self.path.resolve()):
            raise ConfigError(
                f"{self.path}: cannot be set aside while you work in it; go elsewhere, "
                "or choose another run.state_dir"
            )
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = f"{self.path.name}.{stamp}"
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(2)))
        with self.held():
            kept = next(path for path in map(self.path.with_name, names) if not path.exists())
            try:
                self.path.rename(kept)
            except OSError as error:
                raise StateUnwritable(f"{self.path}: cannot be set aside: {error.strerror}") from error
        return kept

    def holder(self) -> str | None:
        """The process that holds the directory, ``None`` when nobody does."""
        try:
            with self.lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _named(self.lock)
        except OSError:  # it was never held
            pass
        return None

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateInUse(
                f"{self.path}: is in use by another run (process {_named(self.path / 'lock')}); wait for it, "
                "or choose another run.name"
            ) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise StateUnwritable(
                f"{self.path}: cannot be written: {error.strerror}; free some space"
            ) from error

    def _probe(self) -> None:
        probe = self.path / ".probe"
        try:
            probe.write_bytes(b"\0" * PROBE_BYTES)
        except OSError as error:
            raise StateUnwritable(
                f"{self.path}: cannot write {PROBE_BYTES // 2**20} MiB: {error.strerror}; "
                "free some space or mend permissions"
            ) from error
        finally:
            probe.unlink(missing_ok=True)


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _named(lock: Path) -> str:
    with lock.open("rb") as file:
        return file.read(32).decode(errors="replace").strip() or "unknown"


def write_atomically(path: Path, text: str) -> None:
    """Replace *path* by *text*, so that a reader sees the old or the new whole.

    Raises:
        StateUnwritable: the disk is full or read-only.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StateUnwritable(f"{path}: cannot be written: {error.strerror}; free some space") from error
