"""Train with a loss of your own, computed here in torch: double-sided importance sampling.

Tokens whose probability has moved too far since they were sampled, in either direction, are masked out
altogether, so neither a stale sample nor a mismatch between sampler and trainer can push the policy.

    hud-orchestrate models fork tiny --name adder-custom
    python examples/rl_training/custom_loss.py adder-custom --steps 30
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from uuid import uuid4

import torch

from hud_orchestrator import Rollouts, TrainingClient

TASKS = Path(__file__).parent.parent / "arithmetic" / "tasks.py"
GROUP_SIZE = 16


def double_sided(data, logprobs, *, low=0.8, high=1.25):
    """-sum(ratio * advantage) over the tokens whose ratio is inside (low, high)."""
    rewards = defaultdict(dict)  # by group and trajectory: a trajectory of several turns counts once
    for datum in data:
        rewards[datum.group_idx][datum.traj_idx] = datum.reward
    loss, kept, tokens = torch.zeros(()), 0.0, 0.0
    for datum, logprob in zip(data, logprobs, strict=True):
        ratio = (logprob - torch.tensor(datum.sampling_logprobs)).exp()
        mask = torch.tensor(datum.mask)
        inside = mask * ((ratio > low) & (ratio < high))
        advantage = datum.reward - fmean(rewards[datum.group_idx].values())
        loss = loss - (inside * ratio * advantage).sum()
        kept, tokens = kept + inside.sum().item(), tokens + mask.sum().item()
    return loss, {"masked_tokens": tokens - kept, "tokens": tokens}


async def train(model: str, steps: int) -> None:
    client = TrainingClient(model)
    run = uuid4().hex[:8]  # names this run's calls, each of which is sent once
    async with Rollouts(f"{TASKS}:train", model=model, max_tokens=6, concurrency=64) as rollouts:
        for step in range(1, steps + 1):
            batch = await rollouts.groups(rollouts.pick(16), group_size=GROUP_SIZE)
            if not batch:
                continue  # every group agreed on its reward, so there is nothing to learn
            call = f"{run}-step-{step}"
            added = await client.forward_backward_custom(
                batch, double_sided, group_size=GROUP_SIZE, call=f"{call}.loss"
            )
            result = await client.optim_step(learning_rate=3e-4 * min(1, step / 5), call=f"{call}.optim")
            mean = fmean(rollout.reward for rollout in batch)
            masked = added.metrics["masked_tokens"]
            print(f"step {result.step}: reward {mean:.3f}, masked tokens {masked:.0f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the slug of a fork")
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    asyncio.run(train(given.model, given.steps))
