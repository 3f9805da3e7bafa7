"""Run a command of somebody else's with limits, and be sure that it ends. Standard library only."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

LAUNCHER = Path(__file__).with_name("confine.py")

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/alternatives", "/etc/ld.so.cache",
    "/etc/localtime", "/etc/passwd", "/etc/group", "/dev/urandom", "/dev/zero",
    sys.prefix, sys.base_prefix,
)  # fmt: skip
"""What a command may read: programs and libraries, and little about this machine."""

GRACE_S = 5.0
"""For a launcher to end after its command's time; then it is ended itself."""

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a command may use. Memory and file size are of each of its processes."""

    wall_s: float = 10.0
    """Seconds until it and everything it started is ended."""
    cpu_s: int = 5
    """Seconds of processor time."""
    memory_mib: int = 512
    """Address space."""
    file_mib: int = 16
    """Longest file that is written, and most that is printed."""
    processes: int = 64
    """Processes and threads at once, where ``processes`` holds; the kernel counts none of the superuser's."""
    output_bytes: int = 65536
    """Of stdout, and of stderr, that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; 128 and the signal's number when a signal ended it, as a shell says it."""
    stdout: str
    stderr: str
    timed_out: bool
    """Whether ``wall_s`` ended it."""
    held: tuple[str, ...]
    """What the kernel granted: ``network`` (it has none; ``tcp``: it makes no connection), ``processes`` (it
    sees its own alone), ``files`` (it opens none but those it was given)."""


async def run_confined(
    command: Sequence[str],
    *,
    directory: Path,
    limits: Limits | None = None,
    stdin: bytes = b"",
    readable: Sequence[Path] = (),
    environ: Mapping[str, str] | None = None,
) -> Ended:
    """Run *command* in *directory*, the only place where it may write.

    Args:
        command: program and arguments.
        directory: its working directory, home and place for temporary files.
        limits: what it may use; left out, the defaults.
        stdin: what it reads.
        readable: what it may read beside *directory*, the system's programs and Python's.
        environ: variables for it beside ``PATH``, ``HOME``, ``TMPDIR`` and ``LANG``; it gets no others.

    Raises:
        OSError: it cannot be run at all.
    """
    limits = limits or Limits()
    with ExitStack() as stack:
        # Files and no pipes: nobody has to read while it runs, and the limit on files bounds them.
        given, stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        try:
            process = subprocess.Popen(  # noqa: ASYNC220, S603  (a fork; what it runs is what this is for)
                [sys.executable, "-I", "-S", "-B", str(LAUNCHER),
                 _spec(limits, directory, readable), str(writing), "--", *command],
                stdin=given, stdout=stdout, stderr=stderr, cwd=directory,
                env=_environ(directory, environ), pass_fds=(writing,), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(writing)
        try:
            late = not await _is_over(process.pid, limits.wall_s + GRACE_S)
        finally:
            _end(process)
        status = _status(reading)
        return Ended(
            code=status.get("code", 128 + signal.SIGKILL),
            stdout=_first_bytes(stdout, limits.output_bytes),
            stderr=_first_bytes(stderr, limits.output_bytes),
            timed_out=status.get("timed_out", late),
            held=tuple(status.get("held", ())),
        )


def _spec(limits: Limits, directory: Path, readable: Sequence[Path]) -> str:
    given = asdict(limits)
    return json.dumps(
        {
            "wall_s": given["wall_s"],
            "cpu_s": given["cpu_s"],
            "processes": given["processes"],
            "memory": given["memory_mib"] * MIB,
            "file_size": given["file_mib"] * MIB,
            "write": [os.path.realpath(directory), "/dev/null"],
            "read": [*SYSTEM, *(str(path.resolve()) for path in readable)],
        }
    )


def _environ(directory: Path, more: Mapping[str, str] | None) -> dict[str, str]:
    home = os.path.realpath(directory)
    path = os.pathsep.join((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"))
    return {"PATH": path, "HOME": home, "TMPDIR": home, "LANG": "C.UTF-8", **(more or {})}


async def _is_over(pid: int, wait_s: float) -> bool:
    """Wait for a child to end, or for as long."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    child = os.pidfd_open(pid)
    loop.add_reader(child, over.set)
    try:
        async with asyncio.timeout(wait_s):
            await over.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(child)
        os.close(child)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """See a launcher off. It ends all at a signal, in milliseconds: a cancelled call waits for that too."""
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _status(reading: int) -> dict[str, Any]:
    os.set_blocking(reading, False)
    with suppress(BlockingIOError):
        if line := os.read(reading, 65536):
            return dict(json.loads(line))
    return {}


def _first_bytes(file: IO[bytes], most: int) -> str:
    file.seek(0)
    return file.read(most).decode(errors="replace")
