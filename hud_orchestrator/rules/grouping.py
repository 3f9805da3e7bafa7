"""Rollouts become groups."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from hud_orchestrator.records import Group, Rollout, Ticket


def group_id(job_id: str, ticket: Ticket, *, version: int) -> str:
    """What the service knows a ticket's group by, when it begins at *version* of the policy."""
    # Every evaluation attempts the same tasks under the same numbers.
    name = f"eval:{version}:{ticket.group}" if ticket.purpose == "eval" else f"train:{ticket.group}"
    return uuid.uuid5(uuid.UUID(job_id), name).hex


class GroupTable:
    """Collects members until a group is whole."""

    def __init__(self, begun: Iterable[Group] = ()) -> None:
        """Start with the groups that a restart has cut off."""
        self._members = {group.number: list(group.rollouts) for group in begun}

    def add(self, rollout: Rollout) -> Group | None:
        """Take one member; the whole group with its last one, in member order."""
        number = rollout.ticket.group
        members = self._members.setdefault(number, [])
        members.append(rollout)
        if len(members) < rollout.ticket.members:
            return None
        del self._members[number]
        return Group(number=number, rollouts=tuple(sorted(members, key=lambda r: r.ticket.member)))
