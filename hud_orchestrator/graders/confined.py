"""Run a command of somebody else's with limits, and be sure that it ends. Standard library only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    """Longest file that is written."""
    processes: int = 64
    """Processes and threads at once, where ``processes`` holds; the kernel counts none of the superuser's."""
    output_bytes: int = 65536
    """Of stdout, and of stderr; what is more is thrown away."""


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
    reading, writing = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-B", str(LAUNCHER),
            _spec(limits, directory, readable), str(writing), "--", *command,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=directory, env=_environ(directory, environ), pass_fds=(writing,), start_new_session=True,
        )  # fmt: skip
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        return await _outcome(process, reading, stdin, limits)
    finally:
        os.close(reading)
        _end(process)


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


async def _outcome(process: asyncio.subprocess.Process, reading: int, stdin: bytes, limits: Limits) -> Ended:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    late = False
    try:
        async with asyncio.timeout(limits.wall_s + GRACE_S):
            _, stdout, stderr, _ = await asyncio.gather(
                _feed(process.stdin, stdin),
                _first_bytes(process.stdout, limits.output_bytes),
                _first_bytes(process.stderr, limits.output_bytes),
                process.wait(),
            )
    except TimeoutError:
        late, stdout, stderr = True, b"", b""
    status = {} if late else _status(reading)
    return Ended(
        code=status.get("code", 128 + signal.SIGKILL),
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        timed_out=status.get("timed_out", late),
        held=tuple(status.get("held", ())),
    )


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
        stream.close()


async def _first_bytes(stream: asyncio.StreamReader, most: int) -> bytes:
    kept = bytearray()
    while piece := await stream.read(65536):
        kept += piece[: max(most - len(kept), 0)]
    return bytes(kept)


def _status(reading: int) -> dict[str, Any]:
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        if line := os.read(reading, 65536):
            return dict(json.loads(line))
    return {}


def _end(process: asyncio.subprocess.Process) -> None:
    """Tell a launcher that still runs to end all; it does so also when this process goes away."""
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
