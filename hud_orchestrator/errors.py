"""Every exception raised on purpose, and what each asks of the caller.

OrchestratorError              one line for a person; ``exit_code`` for the shell
+-- ConfigError                the run file or command line is wrong: mend it
|   +-- NotFound               no model or checkpoint of that name: the nearest ones are in the message
+-- StateError                 the run directory cannot be used
|   +-- StateInUse             another run holds it: wait, or choose another
|   +-- StateUnwritable        disk full, or no permission: mend it
+-- ServiceError               the training service, its catalog or its gateway
|   +-- ServiceUnreachable     provably nothing was sent: repeating is safe
|   +-- KeyRefused             401 or 403: another key is needed
|   +-- RequestRejected        refused as a whole, nothing changed: do not repeat
|   |   +-- FencedOff          somebody else has the model on lease: stop
|   +-- ServiceBusy            503, 429, 5xx or no answer on a read: later may work
|   +-- OutcomeUnknown         sent, and no trustworthy answer: settle, never repeat
|   +-- HeadMoved              somebody else trains this slug: stop
+-- EnvironmentFailed          an environment said no, or raised: an outcome, not a reward
|   +-- EnvironmentLost        it crashed, broke its protocol or went away
|   |   +-- EnvironmentClosed  it closed its connection, or ended
|   +-- GraderRaised           a grader said that there is no grade
|   +-- ToolsLost              its tools went away; it may still be there to grade
+-- JudgeFailed                a judge gave no verdict: a grader failure, not a reward
+-- RunFailed                  training cannot go on: read the message
+-- RunPaused                  a guard has paused the run: look, then run it again
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum


class ExitCode(IntEnum):
    """What ``hud-orchestrate`` tells the shell; the table in the README."""

    DONE = 0
    RUN_FAILED = 1
    USAGE = 2
    OUTCOME_UNKNOWN = 3
    UNREACHABLE = 69
    BUG = 70
    STATE_UNWRITABLE = 74
    STATE_IN_USE = 75
    HEAD_MOVED = 76
    KEY_REFUSED = 77
    PAUSED = 79
    INTERRUPTED = 130
    ABORTED = 131


class OrchestratorError(Exception):
    """An error with one clear line for a person."""

    exit_code = ExitCode.RUN_FAILED


class ConfigError(OrchestratorError):
    """The run file, the command line or what they name is wrong. One line per mistake."""

    exit_code = ExitCode.USAGE


class NotFound(ConfigError):
    """The catalog has no model or checkpoint of the name that was given."""


class StateError(OrchestratorError):
    """The run directory cannot be used."""


class StateInUse(StateError):
    """Another process holds the run directory."""

    exit_code = ExitCode.STATE_IN_USE


class StateUnwritable(StateError):
    """The run directory cannot be written: disk full, or no permission."""

    exit_code = ExitCode.STATE_UNWRITABLE


class ServiceError(OrchestratorError):
    """The training service, its catalog or its gateway."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts
        """About a training call: ``url``, ``call`` (its id), ``bytes`` of the body, and ``status`` if
        there was an answer. About a busy service: ``status``, and ``retry_after_s`` if it said so."""


class ServiceUnreachable(ServiceError):
    """No connection was made, so provably nothing was sent."""


class KeyRefused(ServiceError):
    """The service refused the API key."""

    exit_code = ExitCode.KEY_REFUSED


class RequestRejected(ServiceError):
    """The service refused the request as a whole and changed nothing."""

    exit_code = ExitCode.RUN_FAILED

    def __init__(self, message: str, *, status: int, **facts: object) -> None:
        super().__init__(message, status=status, **facts)
        self.status = status


class FencedOff(RequestRejected):
    """Refused, because somebody else has the model on lease."""

    exit_code = ExitCode.HEAD_MOVED


class ServiceBusy(ServiceError):
    """A read got no usable answer for now."""


class OutcomeUnknown(ServiceError):
    """A training call was sent and no trustworthy answer came back."""

    exit_code = ExitCode.OUTCOME_UNKNOWN


class HeadMoved(ServiceError):
    """The head is not where this run left it: somebody else trains the slug."""

    exit_code = ExitCode.HEAD_MOVED


class EnvironmentFailed(OrchestratorError):
    """An environment failed to start, answer or grade."""


class EnvironmentLost(EnvironmentFailed):
    """An environment crashed, broke its protocol or went away."""


class EnvironmentClosed(EnvironmentLost):
    """It closed its connection, or ended, where an answer was expected."""


class GraderRaised(EnvironmentFailed):
    """A grader said that there is no grade, wherever in the template it was asked."""


class ToolsLost(EnvironmentFailed):
    """An environment's tools went away."""


class JudgeFailed(OrchestratorError):
    """A language model that grades gave no verdict."""


class RunFailed(OrchestratorError):
    """Training cannot go on."""


class RunPaused(OrchestratorError):
    """A guard of the run file has ended the run, and nothing is wrong with the next start."""

    exit_code = ExitCode.PAUSED


GRAVEST_FIRST = (
    ExitCode.BUG,
    ExitCode.OUTCOME_UNKNOWN,
    ExitCode.HEAD_MOVED,
    ExitCode.STATE_UNWRITABLE,
    ExitCode.STATE_IN_USE,
    ExitCode.KEY_REFUSED,
    ExitCode.USAGE,
    ExitCode.RUN_FAILED,
    ExitCode.PAUSED,
    ExitCode.UNREACHABLE,
    ExitCode.ABORTED,
    ExitCode.INTERRUPTED,
)
"""Of several errors the first in this order gives the code: what only a developer or a person can mend,
then what another try may mend, then what a person asked for."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside a group, however deep; the exception itself when it is none."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def exit_code_of(error: BaseException) -> ExitCode:
    """The code for the shell of whatever ended a command."""
    codes = [_code(leaf) for leaf in leaves(error)]
    return min(codes, key=GRAVEST_FIRST.index, default=ExitCode.INTERRUPTED)


def _code(leaf: BaseException) -> ExitCode:
    if isinstance(leaf, OrchestratorError):
        return leaf.exit_code
    return ExitCode.INTERRUPTED if isinstance(leaf, KeyboardInterrupt) else ExitCode.BUG
