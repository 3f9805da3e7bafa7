"""Train on rewards with a loss that is built into the service.

hud-orchestrate serve --env-file local.env &         # or HUD's service: set HUD_API_KEY
set -a; . ./local.env; set +a
hud-orchestrate models fork tiny --name adder
python examples/rl_training/simple_train.py adder --steps 30
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from uuid import uuid4

from hud_orchestrator import Rollouts, TrainingClient

TASKS = Path(__file__).parent.parent / "arithmetic" / "tasks.py"
GROUP_SIZE = 16


async def train(model: str, steps: int) -> None:
    client = TrainingClient(model)
    run = uuid4().hex[:8]  # names this run's calls, each of which is sent once
    async with Rollouts(f"{TASKS}:train", model=model, max_tokens=6, concurrency=64) as rollouts:
        for step in range(1, steps + 1):
            batch = await rollouts.groups(rollouts.pick(16), group_size=GROUP_SIZE)
            if not batch:
                continue  # every group agreed on its reward, so there is nothing to learn
            learning_rate = 3e-4 * min(1, step / 5)
            call = f"{run}-step-{step}"
            result = await client.step(batch, group_size=GROUP_SIZE, learning_rate=learning_rate, call=call)
            mean = sum(rollout.reward for rollout in batch) / len(batch)
            print(f"step {result.step}: reward {mean:.3f}, checkpoint {result.checkpoint_id}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="the slug of a fork")
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    asyncio.run(train(given.model, given.steps))
