"""Tasks become tickets, one group at a time, as permits allow."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import replace

from anyio.streams.memory import MemoryObjectSendStream

from hud_orchestrator.feedback import Permits
from hud_orchestrator.records import Group, Ticket
from hud_orchestrator.rules.order import Order
from hud_orchestrator.streams import offer


async def source(
    tickets: MemoryObjectSendStream[Ticket],
    *,
    order: Order,
    group_size: int,
    permits: Permits,
    ended: Collection[int],
    waiting: Collection[int],
    begun: Mapping[int, Group],
) -> None:
    """Begin every group that has not ended, in order, until nobody listens.

    Groups in *waiting* were sampled before a restart: they hold a permit already and need no tickets.
    Groups in *begun* were cut off by it: they go on with the members that are missing, and come first, as
    what they have is growing old.
    """
    async with tickets:
        others = (n for n in itertools.count() if n not in ended and n not in waiting and n not in begun)
        for number in itertools.chain(begun, others):
            await permits.take(number)
            group = begun.get(number)
            for one in _tickets(number, order, group_size) if group is None else _missing(group):
                if not await offer(tickets, one):
                    return


def _tickets(number: int, order: Order, size: int) -> list[Ticket]:
    task = order.task(number)
    return [Ticket(group=number, member=member, task=task, members=size) for member in range(size)]


def _missing(group: Group) -> list[Ticket]:
    # Of the group as it was begun: the run file may ask for others by now.
    like, there = group.rollouts[0].ticket, {one.ticket.member for one in group.rollouts}
    return [replace(like, member=member) for member in range(like.members) if member not in there]
