"""The hud SDK's own loop, ``Taskset.run``, on the same tasks and gateway. Prints a JSON line.

Run by the interpreter that has the SDK, as ``python -m benchmarks.rollouts.theirs '{"port": ...}'``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.rollouts.cost import costing
from benchmarks.rollouts.plan import Plan, figures

ENVIRONMENTS = Path(__file__).parent / "environments"
GROUP = 8


def main(plan: Plan) -> None:
    """Point the SDK at the gateway before it is imported, for it reads its settings once."""
    url = f"http://127.0.0.1:{plan.port}"
    os.environ |= {
        "HUD_API_KEY": "bench",
        "HUD_API_URL": url,
        "HUD_RL_URL": url,
        "HUD_GATEWAY_URL": url,
        "HUD_TELEMETRY_URL": url,
        "HUD_TELEMETRY_ENABLED": "false",
    }
    logging.disable(logging.ERROR)
    asyncio.run(_measured(plan))


async def _measured(plan: Plan) -> None:
    from hud.agents import create_agent

    completion = {"max_tokens": 8, "extra_body": {"return_token_ids": True}}
    agent = await asyncio.to_thread(create_agent, "bench", completion_kwargs=completion)
    # A process per rollout shares nothing, so there is nothing to warm up.
    if plan.placement != "subprocess":
        await _run(plan, agent, max(plan.concurrency, GROUP))
    async with costing() as cost:
        done = await _run(plan, agent, plan.rollouts)
    print(json.dumps(figures(plan, cost, done)))


async def _run(plan: Plan, agent: Any, num_rollouts: int) -> int:
    """How many rollouts were graded."""
    from hud import LocalRuntime, SubprocessRuntime, Taskset

    from benchmarks.rollouts.environments.theirs_single import add
    from benchmarks.rollouts.environments.theirs_tools import talk

    if plan.tools:
        source, rows = ENVIRONMENTS / "theirs_tools.py", [talk(wanted=wanted) for wanted in range(1, 1000)]
    else:
        source, rows = (
            ENVIRONMENTS / "theirs_single.py",
            [add(a=a, b=b) for a in range(100) for b in range(100)],
        )
    runtime = SubprocessRuntime if plan.placement == "subprocess" else LocalRuntime
    tasks = Taskset("bench", rows[: max(1, num_rollouts // GROUP)])
    job = await tasks.run(agent, runtime=runtime(source), group=GROUP, max_concurrent=plan.concurrency)
    failed = [run.trace.error for run in job.runs if run.trace.is_error]
    if failed:
        raise RuntimeError(f"{len(failed)} rollouts failed, the first with: {failed[0]}")
    return len(job.runs)


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
