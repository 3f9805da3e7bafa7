"""Who may begin when: slots, environments with slots of their own, pauses and their ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.errors import RunFailed, ServiceUnreachable
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Outcome, Rollout
from hud_orchestrator.rules.breaker import BreakerRule
from tests.builders import group, rollout

QUICK = BreakerRule(
    share=0.5, window=8, least=4, probes=2, pause_s=0.05, longest_pause_s=0.1, give_up_after_s=30
)
FAILED = rollout(outcome=Outcome.LOST, reward=None, tokens=0)
AWAY = rollout(outcome=Outcome.GATEWAY_FAILED, reward=None, tokens=0)


async def attempt(dispatch: Dispatch, became: Rollout, name: str = "sums") -> None:
    async with dispatch.place(name) as passage:
        passage.rollout = became


async def test_a_fragile_environment_keeps_its_bound_and_holds_up_no_other() -> None:
    dispatch = Dispatch(concurrency=4, environments={"fragile": 1})
    now, most, order = Counter[str](), Counter[str](), list[str]()

    async def one(name: str, seconds: float) -> None:
        async with dispatch.place(name):
            now[name] += 1
            most[name] = max(most[name], now[name])
            most["all"] = max(most["all"], now.total())
            await anyio.sleep(seconds)
            now[name] -= 1
            order.append(name)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as crowd:
            for _ in range(8):
                crowd.start_soon(one, "fragile", 0.05)
            for _ in range(12):
                crowd.start_soon(one, "sturdy", 0.01)

    assert (most["fragile"], most["all"]) == (1, 4)
    assert order[:6].count("sturdy") >= 5, "those that came later did not wait for the fragile ones"


async def test_a_broken_environment_pauses_its_own_attempts_and_says_why(tmp_path: Path) -> None:
    board = Scoreboard(total_steps=1)
    dispatch = Dispatch(concurrency=8, rule=QUICK, board=board)
    with anyio.fail_after(10), capture_logs() as logs:
        for _ in range(4):
            await attempt(dispatch, FAILED)
        assert board.paused is not None
        assert "environment 'sums': 4 of 4 attempts failed" in board.paused
        assert dispatch.paused("sums")

        await attempt(dispatch, rollout(), name="chess")
        began = anyio.current_time()
        await attempt(dispatch, rollout())
        assert anyio.current_time() > began
        await attempt(dispatch, rollout())

    assert [line["event"] for line in logs] == ["dispatch.paused", "dispatch.resumed"]
    assert logs[0]["cause"] == "environment 'sums'"
    assert board.paused is None


async def test_after_a_pause_only_the_probes_begin_until_they_are_over() -> None:
    dispatch = Dispatch(concurrency=8, rule=QUICK)
    for _ in range(4):
        await attempt(dispatch, AWAY)
    begun, go_on = [], anyio.Event()

    async def one(index: int) -> None:
        async with dispatch.place("sums") as passage:
            begun.append(index)
            await go_on.wait()
            passage.rollout = rollout()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as crowd:
            for index in range(8):
                crowd.start_soon(one, index)
            await anyio.sleep(0.3)
            assert len(begun) == QUICK.probes
            go_on.set()
    assert sorted(begun) == list(range(8))


async def test_a_probe_that_is_cancelled_leaves_its_place_to_another() -> None:
    dispatch = Dispatch(concurrency=8, rule=QUICK)
    for _ in range(4):
        await attempt(dispatch, AWAY)
    with anyio.fail_after(10):
        for _ in range(5):
            with anyio.move_on_after(0.12):
                async with dispatch.place("sums"):
                    await anyio.sleep_forever()
        for _ in range(4):
            await attempt(dispatch, rollout())
    assert not dispatch.paused("sums")


@pytest.mark.parametrize(("became", "error"), [(FAILED, RunFailed), (AWAY, ServiceUnreachable)])
async def test_what_never_works_is_given_up_after_a_few_pauses(
    became: Rollout, error: type[Exception]
) -> None:
    dispatch = Dispatch(concurrency=8, rule=QUICK)
    for _ in range(5):
        await attempt(dispatch, became)
    with anyio.fail_after(10), pytest.raises(error, match="4 of 4 attempts failed"):
        await attempt(dispatch, became)


async def test_a_batch_of_failed_groups_pauses_too_although_attempts_succeed() -> None:
    dispatch = Dispatch(concurrency=8, rule=QUICK)
    broken = group(rewards=(1.0,))
    half = type(broken)(number=0, rollouts=(*broken.rollouts, FAILED))

    dispatch.batch_was_fruitful()
    dispatch.batch_was_fruitless(7, half)
    assert dispatch.paused("sums")
    with anyio.fail_after(10):
        await attempt(dispatch, rollout())
        await attempt(dispatch, rollout())
    assert not dispatch.paused("sums")


async def test_batches_of_failed_groups_end_a_run_that_never_had_another() -> None:
    dispatch = Dispatch(concurrency=8, rule=QUICK)
    broken = type(group())(number=0, rollouts=(FAILED, rollout(member=1)))
    dispatch.batch_was_fruitless(1, broken)
    dispatch.batch_was_fruitless(1, broken)
    with pytest.raises(RunFailed, match="every group failed in 3 tries at step 1"):
        dispatch.batch_was_fruitless(1, broken)
