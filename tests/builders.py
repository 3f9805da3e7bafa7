"""Records for tests, with the few fields that matter as arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hud_orchestrator.records import Group, Outcome, Phase, Rollout, Sample, Task, Ticket
from hud_orchestrator.steps import EpisodeStep, Source
from hud_orchestrator.store.ledger import CallKind, Ledger
from hud_orchestrator.store.store import Store

TASK = Task(env="sums", id="add", args={"a": 1, "b": 2}, slug="add-1")


def rollout(
    group: int = 0,
    member: int = 0,
    *,
    reward: float | None = 1.0,
    outcome: Outcome = Outcome.FINISHED,
    version: int = 0,
    tokens: int = 2,
    members: int = 2,
) -> Rollout:
    """A rollout with one turn of *tokens* tokens, or without a turn."""
    sample = Sample(
        prompt_token_ids=(1, 2), output_token_ids=(3,) * tokens, logprobs=(-0.5,) * tokens, version=version
    )
    return Rollout(
        ticket=Ticket(group=group, member=member, task=TASK, members=members),
        trace_id=f"trace-{group}-{member}",
        outcome=outcome,
        samples=(sample,) if tokens else (),
        reward=reward,
        grade=None if reward is None else {"score": reward},
        seconds=1.5,
        phases={Phase.START: 0.1, Phase.ACT: 1.25, Phase.GRADE: 0.125},
        began_at=1_700_000_000.125,
        steps=_steps(sample=0 if tokens else None),
    )


def _steps(*, sample: int | None) -> tuple[EpisodeStep, ...]:
    """A question, a turn with a call of a tool, its result, and the grade."""
    call = {"id": "c1", "name": "look", "arguments": '{"where": "left"}'}
    return (
        EpisodeStep(
            source=Source.USER, began=0.1, ended=0.1, messages=[{"role": "user", "content": "1 + 2 ="}]
        ),
        EpisodeStep(
            source=Source.AGENT, began=0.1, ended=1.0, content="let me look", reasoning="hm",
            tool_calls=[call], finish_reason="tool_calls", model="m",
            usage={"prompt_tokens": 2, "completion_tokens": 2}, sample=sample,
        ),
        EpisodeStep(
            source=Source.TOOL, began=1.0, ended=1.25, call=call,
            result={"content": [{"type": "text", "text": "3 is there"}], "isError": False},
        ),
        EpisodeStep(source=Source.TASK, began=1.25, ended=1.375),
    )  # fmt: skip


def remote(
    group: int = 0,
    member: int = 0,
    *,
    reward: float | None = 1.0,
    outcome: Outcome = Outcome.FINISHED,
    version: int = 0,
) -> Rollout:
    """A rollout that was sampled elsewhere, submitted at policy *version*."""
    return replace(
        rollout(group, member, reward=reward, outcome=outcome, tokens=0), remote=True, untold_version=version
    )


def group(number: int = 0, *, rewards: tuple[float, ...] = (0.0, 1.0), version: int = 0) -> Group:
    """A group whose members finished with *rewards*."""
    return Group(
        number=number,
        rollouts=tuple(
            rollout(number, i, reward=r, version=version, members=len(rewards)) for i, r in enumerate(rewards)
        ),
    )


async def called(ledger: Ledger, plan: int, *kinds: CallKind) -> None:
    """Make the calls of a step, all of which are confirmed: a gradient and the step on it, or *kinds*."""
    for kind in kinds or ("forward_backward", "optim_step"):
        async with ledger.one_shot(kind, plan=plan):
            pass


async def planned(store: Store, number: int, *, groups: Sequence[int] = ()) -> int:
    """Plan a step on the head of the line, by the checkpoints that its steps have made."""
    made = [one for one in await store.history.made() if one is not None]
    return await store.ledger.plan(
        number,
        groups=groups,
        digest="d",
        head_before=made[-1] if made else None,
        learning_rate=1e-3,
        metrics={"reward_mean": 0.5},
    )


async def taken(
    store: Store,
    number: int,
    *,
    checkpoint: str,
    groups: Sequence[int] = (),
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Take a step: plan it, call for it, and apply it."""
    plan = await planned(store, number, groups=groups)
    await called(store.ledger, plan)
    await store.ledger.applied(
        plan, checkpoint=checkpoint, metrics=metrics or {"reward_mean": 0.5}, trained=groups
    )
