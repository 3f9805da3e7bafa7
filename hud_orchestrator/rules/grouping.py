"""Rollouts become groups."""

from __future__ import annotations

from collections.abc import Iterable

from hud_orchestrator.records import Group, Rollout


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
