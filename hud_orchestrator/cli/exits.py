"""Errors become text and exit codes here, and nowhere else.

Of several errors in a group each line is shown once. The code is the one of the gravest, in this order:
what only a developer or a person can mend, then what another try may mend, then what a person asked for.

    70 bug > 3 outcome unknown > 74 state unwritable > 75 state in use > 77 key refused > 2 usage
       > 1 run failed > 69 unreachable > 131 aborted > 130 interrupted
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator

from hud_orchestrator.errors import ConfigError, ExitCode, OrchestratorError

GRAVEST_FIRST = (
    ExitCode.BUG,
    ExitCode.OUTCOME_UNKNOWN,
    ExitCode.STATE_UNWRITABLE,
    ExitCode.STATE_IN_USE,
    ExitCode.KEY_REFUSED,
    ExitCode.USAGE,
    ExitCode.RUN_FAILED,
    ExitCode.UNREACHABLE,
    ExitCode.ABORTED,
    ExitCode.INTERRUPTED,
)


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

    leaves = list(_leaves(error))
    codes = [_code(leaf) for leaf in leaves]
    text = "".join(f"{line}\n" for line in dict.fromkeys(line for leaf in leaves for line in _lines(leaf)))
    if ExitCode.BUG in codes:
        text = "".join(traceback.format_exception(error)) + text
    # The message of a foreign exception may hold a header, and so the key.
    print(redacted(text), end="", file=sys.stderr)
    return min(codes, key=GRAVEST_FIRST.index)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _code(leaf: BaseException) -> ExitCode:
    if isinstance(leaf, OrchestratorError):
        return leaf.exit_code
    return ExitCode.INTERRUPTED if isinstance(leaf, KeyboardInterrupt) else ExitCode.BUG


def _lines(leaf: BaseException) -> list[str]:
    if isinstance(leaf, ConfigError):
        return str(leaf).splitlines()
    if isinstance(leaf, OrchestratorError):
        return [f"error: {line}" for line in str(leaf).splitlines() or [type(leaf).__name__]]
    if isinstance(leaf, KeyboardInterrupt):
        return ["error: interrupted"]
    return [f"error: this is a bug in hud_orchestrator, please report it: {type(leaf).__name__}: {leaf}"]
