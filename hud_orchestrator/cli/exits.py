"""Errors become text here, and nowhere else; of several in a group each line is shown once."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from hud_orchestrator.errors import ConfigError, ExitCode, OrchestratorError, exit_code_of, leaves


def exit_code(call: Callable[[], object]) -> int:
    """Run *call*; print what it raised on stderr, and return the code for the shell."""
    try:
        return _flushed(call)
    except BrokenPipeError:
        return _quiet()
    except BaseException as error:
        return _explained(error)


def _flushed(call: Callable[[], object]) -> int:
    """Run *call* and flush what it printed, while a closed pipe can still be noticed."""
    try:
        call()
    except SystemExit as end:
        sys.stdout.flush()
        return _code_of(end)
    sys.stdout.flush()
    return ExitCode.DONE


def _code_of(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or ExitCode.DONE
    print(end.code, file=sys.stderr)
    return ExitCode.RUN_FAILED


def _quiet() -> int:
    """Leave without a word: whoever read our output has gone.

    The interpreter flushes stdout once more when it ends, and would complain then.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.RUN_FAILED


def _explained(error: BaseException) -> int:
    from hud_orchestrator.settings import redacted

    ends = list(leaves(error))
    text = "".join(f"{line}\n" for line in dict.fromkeys(line for end in ends for line in _lines(end)))
    code = exit_code_of(error)
    if code is ExitCode.BUG:
        text = "".join(traceback.format_exception(error)) + text
    # The disk that the error is about may be the one that this goes to; the code tells of it all the same.
    with suppress(OSError):
        # The message of a foreign exception may hold a header, and so the key.
        print(redacted(text), end="", file=sys.stderr, flush=True)
    return code


def _lines(leaf: BaseException) -> list[str]:
    if isinstance(leaf, ConfigError):
        return str(leaf).splitlines()
    if isinstance(leaf, OrchestratorError):
        return [f"error: {line}" for line in str(leaf).splitlines() or [type(leaf).__name__]]
    if isinstance(leaf, KeyboardInterrupt):
        return ["error: interrupted"]
    return [f"error: this is a bug in hud_orchestrator, please report it: {type(leaf).__name__}: {leaf}"]
