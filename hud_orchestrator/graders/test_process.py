"""Runs tests, each in a process of its own, and says how each ended. Standard library only.

Reads ``{"tests", "names", "token", "test_s"}`` from stdin. Writes a line for each test to stdout: the token,
and ``[name, passed, what it said]`` as JSON. What tests print goes to stderr.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import traceback
import unittest
from collections.abc import Callable
from typing import Any

ANSWER_BYTES = 4096
"""More than a failure says, and less than a pipe takes at once."""


def main() -> None:
    """Run every test that was named."""
    given = json.load(sys.stdin)
    results = os.dup(1)
    os.dup2(2, 1)
    # Last, so that a file of the tested code cannot stand in for a module of Python.
    sys.path.append(os.getcwd())  # noqa: PTH109
    for name in given["names"]:
        passed, said = _in_child(given["tests"], name, given["test_s"])
        os.write(results, f"{given['token']}{json.dumps([name, passed, said])}\n".encode())


def _in_child(tests: str, name: str, test_s: float) -> tuple[bool, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.setitimer(signal.ITIMER_REAL, test_s)
        failure = _failure(tests, name)
        os.write(writing, json.dumps(failure).encode())
        os._exit(0)
    os.close(writing)
    _, ending = os.waitpid(child, 0)
    # What the test left running may hold the other end, so no end of file is waited for.
    os.set_blocking(reading, False)
    try:
        failure = json.loads(os.read(reading, ANSWER_BYTES))
    except (BlockingIOError, ValueError):
        code = os.waitstatus_to_exitcode(ending)
        late = code == -signal.SIGALRM
        return False, f"it did not end in {test_s:g} s" if late else f"its process ended with {code}"
    finally:
        os.close(reading)
    return failure is None, failure or ""


def _failure(tests: str, name: str) -> str | None:
    """What went wrong with the test, ``None`` when nothing did."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(tests, "tests", "exec"), namespace)  # noqa: S102  (the author's own)
        _call(namespace, name)
    except BaseException as error:
        return traceback.format_exception_only(error)[-1].strip()[:500]
    return None


def _call(namespace: dict[str, Any], name: str) -> None:
    kind, _, method = name.rpartition(".")
    if not kind:
        _finish(namespace[method])
    elif issubclass(namespace[kind], unittest.TestCase):
        namespace[kind](method).debug()
    else:
        _finish(getattr(namespace[kind](), method))


def _finish(test: Callable[[], Any]) -> None:
    answer = test()
    if inspect.iscoroutine(answer):
        asyncio.run(answer)


if __name__ == "__main__":
    main()
