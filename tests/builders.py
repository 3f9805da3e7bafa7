"""Records for tests, with the few fields that matter as arguments."""

from __future__ import annotations

from dataclasses import replace

from hud_orchestrator.records import Group, Outcome, Rollout, Sample, Task, Ticket

TASK = Task(env="sums", id="add", args={"a": 1, "b": 2}, slug="add-1")


def rollout(
    group: int = 0,
    member: int = 0,
    *,
    reward: float | None = 1.0,
    outcome: Outcome = Outcome.FINISHED,
    version: int = 0,
    tokens: int = 2,
) -> Rollout:
    """A rollout with one turn of *tokens* tokens, or without a turn."""
    sample = Sample(
        prompt_token_ids=(1, 2), output_token_ids=(3,) * tokens, logprobs=(-0.5,) * tokens, version=version
    )
    return Rollout(
        ticket=Ticket(group=group, member=member, task=TASK),
        trace_id=f"trace-{group}-{member}",
        outcome=outcome,
        samples=(sample,) if tokens else (),
        reward=reward,
        grade=None if reward is None else {"score": reward},
    )


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
        rollout(group, member, reward=reward, outcome=outcome, tokens=0), remote=True, dispatched_at=version
    )


def group(number: int = 0, *, rewards: tuple[float, ...] = (0.0, 1.0), version: int = 0) -> Group:
    """A group whose members finished with *rewards*."""
    return Group(
        number=number,
        rollouts=tuple(rollout(number, i, reward=r, version=version) for i, r in enumerate(rewards)),
    )
