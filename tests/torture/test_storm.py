"""Hundreds of attempts at an environment that misbehaves at random, and nothing of them is left."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.ladder import Limits
from hud_orchestrator.records import Ending, Group, Outcome, Ticket, TrainableGroup, Treatment
from hud_orchestrator.rules.grading import GradingRule
from hud_orchestrator.rules.grouping import GroupTable
from tests.torture.test_outcomes import CASES, HANGING
from tests.torture.world import TEARDOWN_S, Left, attempt_all, attempter, pool

NUMBER = int(os.environ.get("HUD_TEST_TORTURE", "500"))
"""Attempts in all."""

MEMBERS = 4

LIMITS = Limits(deadline_s=13, grading_reserve_s=3, start_s=9, infrastructure_retries=0)

KILL_S = 6

SLOW = tuple(f"{at}: {how}" for at in ("start", "grade") for how in HANGING)
"""These use up their time."""

TABLE: Mapping[Outcome, Treatment] = {
    Outcome.UNGRADED: Treatment.DROP_GROUP,
    Outcome.NOT_STARTED: Treatment.RETRY,
    Outcome.LOST: Treatment.DROP_MEMBER,
    Outcome.GRADER_FAILED: Treatment.ZERO_ADVANTAGE,
    Outcome.CUT_SHORT: Treatment.SCALE,
    Outcome.GATEWAY_REFUSED: Treatment.DROP_MEMBER,
}


def drawn(rng: random.Random) -> str:
    """A case: most are harmless, a few are slow, the others are any."""
    kind = rng.random()
    if kind < 0.6:
        return "grade is good"
    if kind < 0.63:
        return rng.choice(SLOW)
    return rng.choice([case for case in CASES if case not in SLOW])


def judged_by_hand(group: Group) -> Ending | list[tuple[int, float]]:
    """What the table says of a group, member by member."""
    treatments = [TABLE.get(one.outcome, Treatment.KEEP) for one in group.rollouts]
    for treatment, one in zip(treatments, group.rollouts, strict=True):
        if treatment in (Treatment.DROP_GROUP, Treatment.RETRY):
            return Ending.FAILED if one.reward is None else Ending.PARTIAL
    worth = {
        one.ticket.member: (one.reward or 0.0) * (0.5 if treatment is Treatment.SCALE else 1.0)
        for treatment, one in zip(treatments, group.rollouts, strict=True)
        if one.samples and treatment in (Treatment.KEEP, Treatment.SCALE)
    }
    if len(worth) < 2:
        return Ending.NO_TOKENS
    baseline = sum(worth.values()) / len(worth)
    return [
        (one.ticket.member, worth.get(one.ticket.member, baseline))
        for treatment, one in zip(treatments, group.rollouts, strict=True)
        if one.samples and treatment is not Treatment.DROP_MEMBER
    ]


def judged(group: Group) -> Ending | list[tuple[int, float]]:
    """What the rule says of it."""
    verdict = GradingRule(treatments=TABLE, scale_by=0.5, drop_no_spread=False).apply(group)
    if isinstance(verdict, TrainableGroup):
        return [(one.rollout.ticket.member, pytest.approx(one.reward)) for one in verdict.members]
    return verdict


async def test_a_storm_of_misdeeds_ends_as_it_should_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    rng = random.Random(20)
    cases = [drawn(rng) for _ in range(NUMBER)]
    tickets = [
        Ticket(group=n // MEMBERS, member=n % MEMBERS, task=CASES[case][0], members=MEMBERS)
        for n, case in enumerate(cases)
    ]
    async with pool(tmp_path / "log") as processes, attempter(processes, LIMITS) as attempts:
        await attempt_all(attempts, tickets[:1])  # what is made once is there from here on
    before = Left.now(temporary)

    with anyio.fail_after(60 + NUMBER):
        async with (
            pool(tmp_path / "log") as processes,
            attempter(processes, LIMITS, concurrency=10) as attempts,
        ):
            rollouts = await attempt_all(attempts, tickets)

    wrong = [
        f"{case}: {r.outcome}, {r.phase}, {r.detail}"
        for case, r in zip(cases, rollouts, strict=True)
        if (r.outcome, r.phase) != CASES[case][1]
    ]
    assert wrong == []
    assert [r.seconds for r in rollouts if r.seconds > LIMITS.deadline_s + TEARDOWN_S + KILL_S] == []
    table = GroupTable()
    groups = [whole for rollout in rollouts if (whole := table.add(rollout)) is not None]
    assert len(groups) == NUMBER // MEMBERS
    assert [judged_by_hand(group) for group in groups] == [judged(group) for group in groups]
    assert await _settled(before, temporary) == before


async def _settled(before: Left, temporary: Path) -> Left:
    """What is left once the loop has had a moment for the callbacks of what was closed."""
    left = Left.now(temporary)
    with anyio.move_on_after(5):
        while left != before:
            await anyio.sleep(0.05)
            left = Left.now(temporary)
    return left
