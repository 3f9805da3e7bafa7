"""The forwards that a ``backward`` may still use, and why the others may not be used any more."""

from __future__ import annotations

import uuid
from collections import OrderedDict

from hud_orchestrator.local.client_loss import Forward
from hud_orchestrator.local.replies import Refused

LIVE_FORWARDS = 8
"""Forwards of one model that wait for their backward; a client has one or two. The ninth ends the first."""

REMEMBERED_ENDS = 1024
"""Ended ids that are told why they ended; older ones are unknown."""


class Forwards:
    """One model's forwards by id. Used by the event loop only; lost in a restart, as gradients are."""

    def __init__(self) -> None:
        self._live: OrderedDict[str, Forward] = OrderedDict()
        self._ended: OrderedDict[str, str] = OrderedDict()

    def add(self, forward: Forward) -> str:
        """Keep *forward*, and the id for it."""
        forward_id = str(uuid.uuid4())
        self._live[forward_id] = forward
        if len(self._live) > LIVE_FORWARDS:
            reason = f"{LIVE_FORWARDS} newer ones exist, and no more are kept"
            self.end(next(iter(self._live)), reason)
        return forward_id

    def get(self, forward_id: str) -> Forward:
        """The forward with this id.

        Raises:
            Refused: 409, it has ended, and how; 404, there was none, or not since the service started.
        """
        if forward_id in self._live:
            return self._live[forward_id]
        if forward_id in self._ended:
            reason = self._ended[forward_id]
            raise Refused(409, f"forward {forward_id} cannot be used: {reason}; call forward again")
        raise Refused(404, f"there is no forward {forward_id!r}; a restart of the service ends them all")

    def end(self, forward_id: str, reason: str) -> None:
        """Forget a live forward, but not why."""
        del self._live[forward_id]
        self._ended[forward_id] = reason
        while len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    def end_all(self, reason: str) -> None:
        """Forget every live forward."""
        for forward_id in list(self._live):
            self.end(forward_id, reason)
