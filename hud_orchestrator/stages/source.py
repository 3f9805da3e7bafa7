"""Tasks become tickets, one group at a time, as permits allow."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from anyio.streams.memory import MemoryObjectSendStream

from hud_orchestrator.feedback import Permits
from hud_orchestrator.records import Ticket
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
) -> None:
    """Begin every group that has not ended, in order, until nobody listens.

    Groups in *waiting* were sampled before a restart: they hold a permit already and need no tickets.
    """
    async with tickets:
        for number in itertools.count():
            if number in ended or number in waiting:
                continue
            await permits.take()
            task = order.task(number)
            for member in range(group_size):
                one = Ticket(group=number, member=member, task=task, members=group_size)
                if not await offer(tickets, one):
                    return
