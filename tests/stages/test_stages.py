"""The stages on their own streams, with the real store."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.errors import RunFailed
from hud_orchestrator.feedback import Drain, Permits, PolicyCell
from hud_orchestrator.records import ABANDONED, Batch, Ending, Group, Outcome, Policy, Rollout, Ticket
from hud_orchestrator.rules.batching import BatchCutter
from hud_orchestrator.rules.breaker import FIRST_TRIES
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.grouping import GroupTable
from hud_orchestrator.rules.order import TaskOrder
from hud_orchestrator.stages.collect import Desk, collect
from hud_orchestrator.stages.source import source
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.trajectories import Trajectories
from tests.builders import TASK, group, rollout


@pytest.fixture
def trajectories(tmp_path: Path) -> Iterator[Trajectories]:
    database = Database(tmp_path / "store.db")
    yield Trajectories(database)
    database.close()


def desk(
    trajectories: Trajectories,
    permits: Permits,
    *,
    places: int = 1,
    replacements: int = 0,
    staleness: int = 0,
    last_step: int = 99,
) -> Desk:
    return Desk(
        grading=GradingRule(treatments={}, scale_by=1, drop_no_spread=True),
        cutter=BatchCutter(
            next_step=1, groups_per_step=places, replacements=replacements, staleness=staleness
        ),
        permits=permits,
        trajectories=trajectories,
        dispatch=Dispatch(concurrency=1),
        last_step=last_step,
    )


async def collected(
    rollouts: list[Rollout],
    the_desk: Desk,
    *,
    waiting: tuple[Group, ...] = (),
    begun: tuple[Group, ...] = (),
) -> list[Batch]:
    """What collect makes of *rollouts*."""
    into, out = anyio.create_memory_object_stream[Rollout](len(rollouts) + 1)
    batches_in, batches = anyio.create_memory_object_stream[Batch](99)
    for one in rollouts:
        into.send_nowait(one)
    into.close()
    with batches, anyio.fail_after(5):
        await collect(out, batches_in, groups=GroupTable(begun), desk=the_desk, waiting=waiting)
        return [batch async for batch in batches]


def members(number: int, *rewards: float, version: int = 0) -> list[Rollout]:
    return list(group(number, rewards=rewards, version=version).rollouts)


async def test_a_group_with_equal_rewards_gives_its_permit_back_untrained(trajectories: Trajectories) -> None:
    permits = Permits(staleness=0, groups_per_step=1)
    await permits.take(0)

    assert await collected(members(0, 1.0, 1.0), desk(trajectories, permits, replacements=1)) == []
    assert permits.returned == {"trained": 0, "dropped": 1}
    assert await trajectories.ended() == {0}


async def test_members_that_arrive_mixed_up_become_whole_groups(trajectories: Trajectories) -> None:
    permits = Permits(staleness=0, groups_per_step=2)
    mixed = [one for pair in zip(members(0, 0.0, 1.0), members(1, 1.0, 0.0), strict=True) for one in pair]

    (batch,) = await collected(mixed[::-1], desk(trajectories, permits, places=2))

    assert [g.number for g in batch.groups] == [0, 1]
    assert [[m.reward for m in g.members] for g in batch.groups] == [[0.0, 1.0], [1.0, 0.0]]
    assert [g.number for g in await trajectories.unended()] == [0, 1]


async def test_places_that_were_lost_before_a_restart_are_cut_without_another_group(
    trajectories: Trajectories,
) -> None:
    permits = Permits(staleness=1, groups_per_step=1, held={0, 1})
    for number, step in ((0, 1), (1, 2)):
        await trajectories.add(group(number, rewards=(1.0, 1.0)), ending=Ending.NO_SPREAD, step=step)
    await trajectories.add(group(2), ending=Ending.FAILED, step=2)
    there = desk(trajectories, permits)
    there.cutter = BatchCutter(
        next_step=1, groups_per_step=1, replacements=0, staleness=1,
        dropped=await trajectories.dropped(after=0),
    )  # fmt: skip

    assert there.cutter.wasted_before == permits.held
    batches = await collected(members(3, 0.0, 1.0, version=1), there)

    assert [(b.step, b.rewards, [g.number for g in b.groups]) for b in batches] == [
        (1, (1.0, 1.0), []), (2, (1.0, 1.0), []), (3, (0.0, 1.0), [3]),
    ]  # fmt: skip


async def test_groups_from_before_a_restart_fill_a_batch_without_a_new_rollout(
    trajectories: Trajectories,
) -> None:
    known = group(3)
    await trajectories.add(known, ending=None)

    (batch,) = await collected(
        [], desk(trajectories, Permits(staleness=0, groups_per_step=1, held={3})), waiting=(known,)
    )

    assert [g.number for g in batch.groups] == [3]


async def test_what_is_graded_is_kept_before_its_group_is_whole(trajectories: Trajectories) -> None:
    graded, failed = rollout(0, 0, members=3), rollout(0, 1, reward=None, outcome=Outcome.LOST, members=3)

    assert (
        await collected([graded, failed], desk(trajectories, Permits(staleness=0, groups_per_step=1))) == []
    )

    (kept,) = await trajectories.unended()
    assert kept.rollouts == (graded,)
    assert not kept.whole


async def test_a_group_that_a_restart_cut_off_is_finished_and_not_sampled_again(
    trajectories: Trajectories,
) -> None:
    first, last = members(3, 0.0, 1.0)
    await trajectories.keep([first])
    (begun,) = await trajectories.unended()
    permits = Permits(staleness=0, groups_per_step=1)
    tickets_in, tickets = anyio.create_memory_object_stream[Ticket](0)
    order = TaskOrder([TASK], seed=0, shuffle=True)
    with tickets, anyio.fail_after(5):
        async with anyio.create_task_group() as sources:
            sources.start_soon(partial(
                source, tickets_in, order=order, group_size=9, permits=permits, ended={0, 1, 2}, waiting=(),
                begun={3: begun},
            ))  # fmt: skip
            asked_for = [await tickets.receive()]
            permits.give_back([3], reason="trained")
            asked_for.append(await tickets.receive())
            sources.cancel_scope.cancel()

    assert asked_for == [last.ticket, Ticket(group=4, member=0, task=TASK, members=9)]
    (batch,) = await collected([last], desk(trajectories, permits), begun=(begun,))
    assert [[m.rollout for m in g.members] for g in batch.groups] == [[first, last]]
    assert await trajectories.unended() == [Group(number=3, rollouts=(first, last))]


async def test_nothing_is_cut_after_the_last_steps_batch(trajectories: Trajectories) -> None:
    permits = Permits(staleness=1, groups_per_step=1)
    rollouts = [one for number in range(4) for one in members(number, 0.0, 1.0)]

    batches = await collected(rollouts, desk(trajectories, permits, staleness=1, last_step=2))

    assert [batch.step for batch in batches] == [1, 2]


async def test_a_stale_group_is_swept_logged_and_its_permit_given_back(trajectories: Trajectories) -> None:
    permits = Permits(staleness=0, groups_per_step=1)
    await permits.take(0)
    the_desk = desk(trajectories, permits)
    the_desk.cutter = BatchCutter(next_step=5, groups_per_step=1, replacements=0, staleness=0)

    with capture_logs() as logs:
        (batch,) = await collected(
            [*members(0, 0.0, 1.0, version=3), *members(1, 0.0, 1.0, version=4)], the_desk
        )

    assert [g.number for g in batch.groups] == [1]
    assert [(line["event"], line["reason"]) for line in logs] == [("group.dropped", Ending.STALE)]
    assert permits.returned["dropped"] == 1


async def test_a_run_in_which_everything_fails_gives_up_and_says_why(trajectories: Trajectories) -> None:
    broken = [
        Rollout(
            ticket=Ticket(group=number, member=member, task=TASK, members=2), trace_id="t",
            outcome=Outcome.LOST, detail="the disk of the environment is gone",
        )
        for number in range(FIRST_TRIES)
        for member in range(2)
    ]  # fmt: skip

    permits = Permits(staleness=0, groups_per_step=FIRST_TRIES)
    for number in range(FIRST_TRIES):
        await permits.take(number)
    with pytest.raises(RunFailed, match="the disk of the environment is gone"):
        await collected(broken, desk(trajectories, permits))


async def test_the_source_begins_only_what_it_has_permits_for_and_skips_what_is_over() -> None:
    permits = Permits(staleness=0, groups_per_step=3)
    tickets_in, tickets = anyio.create_memory_object_stream[Ticket](99)
    order = TaskOrder([TASK], seed=0, shuffle=True)
    with anyio.move_on_after(0.05):
        await source(
            tickets_in, order=order, group_size=2, permits=permits, ended={0, 2}, waiting={3}, begun={}
        )

    with tickets:
        assert [ticket.group async for ticket in tickets] == [1, 1, 4, 4, 5, 5]
    assert permits.free == 0


async def test_the_source_ends_when_nobody_listens() -> None:
    tickets_in, tickets = anyio.create_memory_object_stream[Ticket](0)
    tickets.close()
    with anyio.fail_after(5):
        await source(
            tickets_in,
            order=TaskOrder([TASK], seed=0, shuffle=True),
            group_size=1,
            permits=Permits(staleness=0, groups_per_step=1),
            ended=(),
            waiting=(),
            begun={},
        )


async def test_permits_that_a_smaller_run_file_has_no_room_for_are_not_handed_out_again() -> None:
    permits = Permits(staleness=0, groups_per_step=2, held=range(5))
    permits.give_back(range(3), reason="dropped")
    assert permits.free == 0
    permits.give_back([3, 4], reason="trained")
    assert permits.free == 2


async def test_a_permit_cannot_be_given_back_twice() -> None:
    permits = Permits(staleness=0, groups_per_step=2, held={0, 1})
    permits.give_back([1], reason="dropped")

    with pytest.raises(ValueError, match=r"groups \[1\] hold no permit"):
        permits.give_back([0, 1], reason="trained")

    assert permits.held == {0}


async def test_an_outage_costs_no_step(trajectories: Trajectories) -> None:
    permits = Permits(staleness=0, groups_per_step=1)
    await permits.take(0)
    failed = [
        Rollout(
            ticket=Ticket(group=0, member=member, task=TASK, members=2), trace_id="t",
            outcome=Outcome.GATEWAY_FAILED, detail="away",
        )
        for member in range(2)
    ]  # fmt: skip

    (batch,) = await collected([*failed, *members(1, 0.0, 1.0)], desk(trajectories, permits))

    assert (batch.step, [g.number for g in batch.groups]) == (1, [1])
    assert permits.returned["dropped"] == 1


def test_a_policy_never_goes_back() -> None:
    cell = PolicyCell(Policy(version=3, checkpoint="c3"))
    cell.publish(Policy(version=4, checkpoint="c4"))

    with pytest.raises(ValueError, match="have 4, got 4"):
        cell.publish(Policy(version=4, checkpoint="c5"))


def test_what_a_run_has_gone_back_from_is_older_than_anything() -> None:
    cell = PolicyCell(Policy(version=3, checkpoint="c3"), history={"c1": 1, "c2": 2})
    cell.go_back(Policy(version=1, checkpoint="c1"), history={"c1": 1}, abandoned={"c2", "c3"})
    # A gateway that lags still serves the old head.
    assert [cell.version_of(name, asked_at=1) for name in ("c1", "c2", "c3")] == [1, ABANDONED, ABANDONED]

    cell.publish(Policy(version=2, checkpoint="d2"))
    assert cell.version_of("d2", asked_at=1) == 2


async def test_a_group_of_a_policy_that_the_run_went_back_from_is_swept_out_of_any_step(
    trajectories: Trajectories,
) -> None:
    permits = Permits(staleness=4, groups_per_step=1)
    await permits.take(0)
    sampled = [*members(0, 0.0, 1.0, version=ABANDONED), *members(1, 0.0, 1.0, version=0)]

    with capture_logs() as logs:
        (batch,) = await collected(sampled, desk(trajectories, permits, staleness=4))

    assert [g.number for g in batch.groups] == [1]
    assert [(line["event"], line["reason"]) for line in logs] == [("group.dropped", Ending.ROLLED_BACK)]
    assert permits.returned["dropped"] == 1


def test_the_weights_before_the_first_step_have_a_name_and_an_age() -> None:
    cell = PolicyCell(Policy(version=0, checkpoint=None))
    cell.publish(Policy(version=1, checkpoint=None))  # nothing was trained on
    cell.publish(Policy(version=2, checkpoint="c2"))

    assert cell.version_of("initial:model", asked_at=2) == 1
    assert cell.knows("initial:model")
    resumed = PolicyCell(Policy(version=5, checkpoint="c5"), history={"c2": 2, "c5": 5})
    assert resumed.version_of("initial:model", asked_at=5) == 1


def test_a_completion_is_as_old_as_the_checkpoint_that_served_it() -> None:
    cell = PolicyCell(Policy(version=3, checkpoint="c3"), history={"c1": 1})
    cell.publish(Policy(version=4, checkpoint="c4"))

    assert [cell.version_of(name, asked_at=2) for name in ("c1", "c3", "c4")] == [1, 3, 4]
    assert cell.version_of(None, asked_at=2) == 2
    assert cell.version_of("unheard-of", asked_at=2) == 2


async def test_a_drain_ends_what_may_be_cut_off_and_spares_what_winds_down() -> None:
    drain = Drain()
    with drain.interruptible() as outer, drain.spared(outer):
        with drain.interruptible() as inner:
            drain.request()
            await anyio.sleep_forever()
        assert inner.cancelled_caught
    assert not outer.cancelled_caught
    with drain.interruptible() as late:
        await anyio.sleep_forever()
    assert late.cancelled_caught


def test_a_rollout_without_turns_has_no_age() -> None:
    assert rollout(tokens=0).oldest_version is None
    assert rollout(version=7).oldest_version == 7
