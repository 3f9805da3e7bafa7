"""Rollouts become groups."""

from __future__ import annotations

from hud_orchestrator.records import Group, Rollout


class GroupTable:
    """Collects members until a group is whole."""

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._members: dict[int, list[Rollout]] = {}

    def add(self, rollout: Rollout) -> Group | None:
        """Take one member; the whole group with its last one, in member order."""
        number = rollout.ticket.group
        members = self._members.setdefault(number, [])
        members.append(rollout)
        if len(members) < self._size:
            return None
        del self._members[number]
        return Group(number=number, rollouts=tuple(sorted(members, key=lambda r: r.ticket.member)))
