"""Runs a command with limits, as far as the kernel grants them to an ordinary user. Standard library only.

    environment process -> this launcher -> first process of a PID namespace -> the command

Run as ``python -I -S confine.py SPEC STATUS_FD -- COMMAND``; SPEC is JSON, see :func:`main`. Everything that
the command starts ends with it, whatever it does with sessions and process groups: the kernel ends a PID
namespace with its first process, and where there is none, orphans come to this launcher, which ends them.
The launcher ends when the process that started it does.

What the kernel refused is left out; the line that goes to STATUS_FD says what held.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x04000000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000

LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
"""The same numbers on every architecture."""
RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
TCP_BIND_AND_CONNECT = 3
ABSTRACT_SOCKETS_AND_SIGNALS = 3

OPEN_FILES = 256

NOT_STARTED = 126
"""Exit code of a command that could not be confined or started, as shells have it."""

libc = ctypes.CDLL(None, use_errno=True)


class RulesetAttributes(ctypes.Structure):
    """``struct landlock_ruleset_attr``."""

    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class PathBeneath(ctypes.Structure):
    """``struct landlock_path_beneath_attr``."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("directory", ctypes.c_int32))


def main() -> None:
    """Run the command and write to STATUS_FD how it ended.

    SPEC has ``cpu_s``, ``wall_s``, ``memory``, ``file_size`` (bytes), ``processes``, and two lists of paths,
    ``write`` and ``read``.
    """
    spec, status_fd, command = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[4:]
    os.set_inheritable(status_fd, False)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    landlock = max(libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, RULESET_VERSION), 0)
    held = [*_namespaces(), *(["files"] if landlock else [])]
    if landlock >= 4 and "network" not in held:
        held.append("tcp")
    ended: dict[str, Any] = {"held": held, "timed_out": False}
    child = os.fork()
    if child == 0:
        _first(spec, command, landlock, namespaced="processes" in held)

    def stop(number: int, _frame: object) -> None:
        ended["timed_out"] = number == signal.SIGALRM
        _end_all(child)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, spec["wall_s"])
    _, ending = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _end_all(None)
    os.write(status_fd, json.dumps({**ended, "code": _shell_code(ending)}).encode())


def _namespaces() -> list[str]:
    """Leave the network, and see no processes but one's own, where the kernel lets an ordinary user do so."""
    # Some kernels grant the namespace and then nothing in it; a process that is half in has no way back.
    if (probe := os.fork()) == 0:
        os._exit(0 if _entered() else 1)
    granted = os.waitpid(probe, 0)[1] == 0 and _entered()
    return ["network", "processes"] if granted else []


def _entered() -> bool:
    """Enter a user namespace that has no rights outside, and with it the others."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0:
        return False
    try:
        # Files keep their owners only if the user has a name inside, and a group gets one after this alone.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError:
        return False
    return True


def _first(spec: dict[str, Any], command: list[str], landlock: int, *, namespaced: bool) -> NoReturn:
    """Run the command; in a namespace as a child, for its first process has to reap and ignores signals."""
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if namespaced and (child := os.fork()):
            ending = None
            while ending is None:
                pid, code = os.wait()
                ending = code if pid == child else None
            os._exit(_shell_code(ending))
        os.setsid()
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if landlock:
            _only_files(landlock, spec["write"], spec["read"])
        _limit(spec, namespaced=namespaced)
        os.execvp(command[0], command)  # noqa: S606  (what it is for)
    except BaseException as error:
        os.write(2, f"{command[0]} was not started: {error}\n".encode())
    os._exit(NOT_STARTED)


def _limit(spec: dict[str, Any], *, namespaced: bool) -> None:
    limits = {
        resource.RLIMIT_CPU: spec["cpu_s"],
        resource.RLIMIT_AS: spec["memory"],
        resource.RLIMIT_FSIZE: spec["file_size"],
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if namespaced:  # outside of one, all processes of the user count
        limits[resource.RLIMIT_NPROC] = spec["processes"]
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _only_files(abi: int, write: list[str], read: list[str]) -> None:
    """Let no file be opened but those beneath these paths (Landlock)."""
    handled = REFER - 1
    handled |= (REFER if abi >= 2 else 0) | (TRUNCATE if abi >= 3 else 0) | (IOCTL_DEV if abi >= 5 else 0)
    attributes = RulesetAttributes(
        handled,
        TCP_BIND_AND_CONNECT if abi >= 4 else 0,
        ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0,
    )
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = _sure(libc.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), size, 0))
    for paths, allowed in ((write, handled), (read, EXECUTE | READ_FILE | READ_DIR)):
        for path in paths:
            _allow(rules, path, allowed)
    _sure(libc.syscall(LANDLOCK_RESTRICT_SELF, rules, 0))
    os.close(rules)


def _allow(rules: int, path: str, allowed: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # not every system has all of them
    if not os.path.isdir(path):  # noqa: PTH112  (what a file may be granted)
        allowed &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
    beneath = PathBeneath(allowed, place)
    _sure(libc.syscall(LANDLOCK_ADD_RULE, rules, RULE_PATH_BENEATH, ctypes.byref(beneath), 0))
    os.close(place)


def _sure(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def _end_all(child: int | None) -> None:
    """End what runs: *child*, or without one whatever came to this launcher when its parent ended."""
    if child is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            os.wait()  # its own children are next, if it had some


def _shell_code(ending: int) -> int:
    code = os.waitstatus_to_exitcode(ending)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
