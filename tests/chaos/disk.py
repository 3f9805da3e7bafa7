"""A directory whose disk can be full: a small file system, or a limit where none can be mounted."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SIZE_MIB = 96
BLOCK = 1 << 16


class Disk:
    """Holds *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / ".ballast"
        self._limited: set[int] = set()
        directory.mkdir(parents=True)
        self.mounted = _mount(directory)
        """Whether it is a file system of its own."""

    def close(self) -> None:
        """Remove the directory and what is in it."""
        self.free()
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.directory], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def fill(self, processes: Iterable[int]) -> None:
        """Let nothing more be written; without a file system of its own, by *processes*."""
        if not self.mounted:
            self._limited.update(processes)
            for pid in self._limited:
                _limit(pid, 0)
            return
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            for size in (BLOCK, 1):
                with suppress(OSError):
                    while file.write(b"\0" * size):
                        pass

    def free(self) -> None:
        """Let there be room again."""
        for pid in self._limited:
            _limit(pid, resource.RLIM_INFINITY)
        self._limited.clear()
        self._ballast.unlink(missing_ok=True)


def _mount(directory: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(directory)]
    try:
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _limit(pid: int, size: int) -> None:
    """Let no file of a process grow beyond *size* bytes; it gets EFBIG, as Python ignores the signal."""
    with suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
