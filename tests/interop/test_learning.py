"""The SDK's own loop: its agent, its environment, its training client; the reward goes up."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from statistics import fmean

import pytest
import torch
from hud import Job, Run, TrainingClient
from hud.train.types import DatumTensors

RollOut = Callable[..., Awaitable[list[Run]]]

STEPS, PROBLEMS, GROUP = 30, 4, 6
ROUND = 3
"""Steps after which the same problems come again, so that the first round and the last compare."""

TOLERANCE = 0.2
"""How far the probability ratio may be from 1 before a token is masked out."""


def groups_with_spread(runs: list[Run]) -> list[Run]:
    """Groups whose members differ in reward; the others have no gradient."""
    groups = [runs[at : at + GROUP] for at in range(0, len(runs), GROUP)]
    return [run for group in groups if len({run.reward for run in group}) > 1 for run in group]


async def test_the_reward_rises_over_thirty_steps(
    slug: str, roll_out: RollOut, capsys: pytest.CaptureFixture[str]
) -> None:
    client, rewards = TrainingClient(slug), []
    sums = random.Random(0).sample([(a, b) for a in range(10, 100) for b in range(10)], ROUND * PROBLEMS)
    job = await Job.start("learning", group=GROUP)
    heads = []

    for step in range(STEPS):
        at = step % ROUND * PROBLEMS
        runs = await roll_out(slug, sums[at : at + PROBLEMS], group=GROUP, job=job)
        rewards.append(fmean(run.reward for run in runs))
        print(f"step {step + 1:2}: mean reward {rewards[-1]:.3f}")
        trainable = groups_with_spread(runs)
        if trainable:
            stepped = await client.step(trainable, learning_rate=1e-3, group_size=GROUP)
            heads.append(stepped.checkpoint_id)
            head = await client.head()
            assert head is not None
            assert head.id == stepped.checkpoint_id

    first, last = fmean(rewards[:ROUND]), fmean(rewards[-ROUND:])
    with capsys.disabled():
        print(f"\nthe same {len(sums)} sums: mean reward {first:.3f} at first, {last:.3f} at last")
    assert [node.id for node in await client.checkpoints()] == heads
    assert last > first + 0.2


def double_sided(
    data: list[DatumTensors], logprobs: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Importance sampling on tokens whose ratio is near 1, on either side; the rest are masked out."""
    rewards: dict[int | None, dict[int, float]] = defaultdict(dict)
    for datum in data:
        rewards[datum.group_idx][datum.traj_idx] = datum.reward
    losses, trained, masked = [], 0.0, 0.0
    for datum, current in zip(data, logprobs, strict=True):
        action = torch.tensor(datum.mask)
        ratio = (current - torch.tensor(datum.sampling_logprobs)).exp()
        kept = action * ((ratio - 1).abs() < TOLERANCE).float()
        advantage = datum.reward - fmean(rewards[datum.group_idx].values())
        losses.append(-(ratio.detach() * kept * advantage * current).sum())
        trained += float(kept.sum())
        masked += float(action.sum() - kept.sum())
    return torch.stack(losses).sum(), {"trained_tokens": trained, "masked_tokens": masked}


async def test_a_double_sided_loss_masks_what_has_moved_too_far(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    runs: list[Run] = []
    for _ in range(5):
        runs = groups_with_spread(await roll_out(slug, [(a, 7) for a in range(12, 20)], group=GROUP))
        if runs:
            break
    assert runs

    on_policy = await client.forward_backward_custom(runs, double_sided, group_size=GROUP)
    await client.optim_step(learning_rate=3e-3)
    off_policy = await client.forward_backward_custom(runs, double_sided, group_size=GROUP)
    stepped = await client.optim_step(learning_rate=1e-4)

    assert stepped.step == 2
    assert on_policy.metrics["masked_tokens"] == 0.0
    assert on_policy.metrics["trained_tokens"] > 0
    assert off_policy.metrics["masked_tokens"] > 0
