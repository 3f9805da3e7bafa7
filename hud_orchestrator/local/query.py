"""Read the part of a URL behind the question mark."""

from __future__ import annotations

from starlette.requests import Request

from hud_orchestrator.local.replies import Refused

_LARGEST = 2**63 - 1


def whole_number(request: Request, name: str, default: int) -> int:
    """The parameter *name*, or *default* when it is not there.

    Raises:
        Refused: 422, it is not a whole number from 0 on.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    # Twenty digits at most: Python refuses to read numbers of some thousands.
    if not (given.isascii() and given.isdecimal() and len(given) < 20 and int(given) <= _LARGEST):
        raise Refused(422, f"{name} must be a whole number from 0 to {_LARGEST}, got {given[:80]!r}")
    return int(given)
