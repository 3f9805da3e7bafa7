"""An agent with tools, over several turns: calls are delivered, and each prompt extends the turn before."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hud import LocalRuntime, Run, TrainingClient
from hud.agents.types import AgentStep, ToolStep

from tests.interop.conftest import ENVIRONMENTS
from tests.interop.environments.words import chat

TURNS = 3
SAY = {"type": "function", "function": {"name": "say"}}


async def talk(agent: Any) -> Run:
    job = await chat(wanted=TURNS).run(agent, runtime=LocalRuntime(ENVIRONMENTS / "words.py"))
    [run] = job.runs
    assert not run.trace.is_error, run.trace.error
    return run


@pytest.mark.parametrize("system_prompt", [None, "Go."])
async def test_calls_are_delivered_and_each_turn_extends_the_one_before(
    slug: str, agent_of: Callable[..., Any], system_prompt: str | None
) -> None:
    config = {"max_steps": TURNS, "system_prompt": system_prompt, "max_tokens": 3}
    agent = await asyncio.to_thread(agent_of, slug, body={"tool_choice": SAY}, **config)

    run = await talk(agent)
    turns = [step for step in run.trace.steps if isinstance(step, AgentStep)]
    results = [step for step in run.trace.steps if isinstance(step, ToolStep)]

    assert run.reward == 1.0
    assert run.trace.stop_reason == "max_steps"
    assert [[call.name for call in turn.tool_calls] for turn in turns] == [["say"]] * TURNS
    assert len({call.id for turn in turns for call in turn.tool_calls}) == TURNS
    assert all(isinstance(call.arguments, dict) for turn in turns for call in turn.tool_calls)
    assert [step.result.isError for step in results if step.result] == [False] * TURNS
    samples = [turn.sample for turn in turns if turn.sample]
    assert len(samples) == TURNS
    for before, after in itertools.pairwise(samples):
        so_far = before.prompt_token_ids + before.output_token_ids
        assert after.prompt_token_ids[: len(so_far)] == so_far
        assert len(after.prompt_token_ids) > len(so_far)
    assert all(len(sample.output_logprobs) == len(sample.output_token_ids) for sample in samples)


async def test_a_rollout_of_several_turns_trains(slug: str, agent_of: Callable[..., Any]) -> None:
    agent = await asyncio.to_thread(agent_of, slug, body={"tool_choice": SAY}, max_steps=TURNS, max_tokens=3)
    client, run = TrainingClient(slug), await talk(agent)

    inline = await client.forward([run])
    by_id = await client.forward([run.trace_id])
    told = await client.forward_backward([run], loss_fn="cross_entropy")
    stepped = await client.optim_step(learning_rate=1e-4)

    assert {datum.traj_idx for datum in inline.data} == {0}
    assert [datum.mask for datum in by_id.data] == [datum.mask for datum in inline.data]
    assert [datum.sampling_logprobs for datum in by_id.data] == [
        pytest.approx(datum.sampling_logprobs) for datum in inline.data
    ]
    assert told.num_datums == len(inline.data)
    assert stepped.step == 1


async def test_an_agent_may_leave_its_tools_alone(slug: str, agent_of: Callable[..., Any]) -> None:
    agent = await asyncio.to_thread(agent_of, slug, body={"tool_choice": "none"}, max_steps=TURNS)

    run = await talk(agent)

    [turn] = [step for step in run.trace.steps if isinstance(step, AgentStep)]
    assert not turn.tool_calls
    assert run.reward == 0.0
