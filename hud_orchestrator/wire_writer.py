"""The lease by which one trainer has a model for itself: an addition of the embedded service to the contract.

    POST   /v1/models/{id}/lease    take it; what has accumulated is discarded
    PUT    ...                      hold it for longer
    DELETE ...                      give it back
    GET    ...                      who has it

Whoever has it sends the token that was given with every training call and with every new head.
"""

from __future__ import annotations

from pydantic import Field

from hud_orchestrator.wire import Reply, Request

FENCING_TOKEN = "Fencing-Token"  # noqa: S105
"""The header: of a request the sender's token, of a refusal with 409 the newest one, which is the reason."""


class WriterLeaseRequest(Request):
    """Asks for a model."""

    owner: str = Field(min_length=1, max_length=200)
    """Who asks. Another owner waits; the same one takes over from itself at once."""
    claim: int = Field(ge=1, lt=2**53)
    """Grows with every lease that the owner asks for. A repeated request has the number that it had: it
    changes nothing when it has arrived before, and nothing when a newer one has."""
    holder: str = Field(min_length=1, max_length=500)
    """The owner as a person would call it; refusals of others quote it."""
    ttl_s: float = Field(ge=1, le=3600)
    """Seconds after which the lease runs out, unless it is held for longer."""


class WriterLease(Reply):
    """Who has a model."""

    held: bool
    """Whether somebody has it now, so that calls without the token are refused."""
    token: int = Field(ge=0)
    """The newest one that was given or used up; 0: there was none."""
    unleased: int = Field(default=0, ge=0)
    """How many tokens those without a lease have used up: the first of them since a lease takes one."""
    holder: str | None
    """Who has it on lease, or had it last."""
    expires_in_s: float = Field(ge=0)
    """Seconds until it runs out; 0 when nobody has it."""
