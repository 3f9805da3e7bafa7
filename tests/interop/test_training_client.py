"""The SDK's ``TrainingClient``, method by method."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch
from hud import Run, TrainingClient
from hud.agents.types import AgentStep
from hud.train.types import DatumTensors, TrajectoryPayload, TrajectorySample
from hud.utils.exceptions import HudRequestError
from hud.utils.gateway import resolve_gateway_model

RollOut = Callable[..., Awaitable[list[Run]]]
PROBLEMS = [(12, 3), (47, 8), (31, 5)]


def payload(run: Run, reward: float) -> TrajectoryPayload:
    """A run as an inline trajectory, with a reward of our choice."""
    samples = [step.sample for step in run.trace.steps if isinstance(step, AgentStep) and step.sample]
    turns = [TrajectorySample.model_validate(one.model_dump()) for one in samples]
    return TrajectoryPayload(samples=turns, reward=reward, trace_id=run.trace_id)


def contrasted(runs: list[Run]) -> list[TrajectoryPayload]:
    """Inline trajectories with rewards 1, 0, 1, 0, ..., so that every pair has a gradient."""
    return [payload(run, float(index % 2 == 0)) for index, run in enumerate(runs)]


async def test_the_built_in_losses_are_listed_for_a_slug_and_for_an_id(slug: str) -> None:
    model_id = (await asyncio.to_thread(resolve_gateway_model, slug)).id

    by_slug = await TrainingClient(slug).available_losses()
    by_id = await TrainingClient(model_id.upper()).available_losses()

    assert {"importance_sampling", "ppo", "cispo", "dro", "cross_entropy"} <= set(by_slug)
    assert by_id == by_slug


@pytest.mark.parametrize("loss", ["importance_sampling", "ppo", "cispo", "dro", "cross_entropy"])
async def test_inline_payloads_are_accumulated_and_stepped_on(
    slug: str, roll_out: RollOut, loss: str
) -> None:
    client = TrainingClient(slug)
    inputs = contrasted(await roll_out(slug, PROBLEMS[:2], group=2))

    told = await client.forward_backward(inputs, loss_fn=loss, group_size=2, num_substeps=2, reward_scale=2.0)
    stepped = await client.optim_step(learning_rate=1e-4, weight_decay=0.01)
    head = await client.head()

    assert told.num_datums == 4
    assert stepped.step == 1
    assert stepped.model == slug
    assert stepped.sampler_path != stepped.state_path
    assert head is not None
    assert head.id == stepped.checkpoint_id
    assert (head.loss_fn, head.num_traces, head.mean_reward) == (loss, 4, 0.5)


async def test_two_passes_accumulate_and_one_step_consumes_them(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    inputs = contrasted(await roll_out(slug, PROBLEMS, group=2))

    await client.forward_backward(inputs[:2], group_size=2)
    await client.forward_backward(inputs[2:], group_size=2)
    await client.optim_step(learning_rate=1e-4)
    with pytest.raises(HudRequestError) as nothing_left:
        await client.optim_step(learning_rate=1e-4)
    head = await client.head()

    assert nothing_left.value.status_code == 409
    assert head is not None
    assert head.num_datums == 6


async def test_runs_and_payloads_and_trace_ids_keep_their_order(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    runs = await roll_out(slug, PROBLEMS, group=2)
    mixed = [
        runs[0],
        runs[1].trace_id,
        payload(runs[2], 7.0),
        runs[3],
        runs[4].trace_id,
        payload(runs[5], 9.0),
    ]

    told = await client.forward(mixed, group_size=2)

    assert [datum.traj_idx for datum in told.data] == [0, 1, 2, 3, 4, 5]
    assert [datum.group_idx for datum in told.data] == [0, 0, 1, 1, 2, 2]
    rewards = [runs[0].reward, runs[1].reward, 7.0, runs[3].reward, runs[4].reward, 9.0]
    assert [datum.reward for datum in told.data] == rewards


async def test_runs_train_as_they_are_and_by_their_trace_ids_alike(
    fork: Callable[..., str], roll_out: RollOut
) -> None:
    slug = fork()
    sampled = await roll_out(slug, PROBLEMS, group=8)
    client = TrainingClient(slug)

    by_runs = await client.forward_backward(sampled, group_size=8)
    by_ids = await client.forward_backward([run.trace_id for run in sampled], group_size=8)

    timing = {"seconds"}
    assert by_ids.num_datums == by_runs.num_datums == 24
    assert {key: value for key, value in by_ids.metrics.items() if key not in timing} == pytest.approx(
        {key: value for key, value in by_runs.metrics.items() if key not in timing}, rel=1e-4, abs=1e-5
    )


async def test_an_unknown_trace_id_is_refused_by_its_name(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    [run] = await roll_out(slug, PROBLEMS[:1], group=1)
    unknown = uuid.uuid4().hex

    with pytest.raises(HudRequestError, match=unknown) as refused:
        await client.forward_backward([run.trace_id, unknown])
    with pytest.raises(HudRequestError) as nothing:
        await client.optim_step(learning_rate=1e-4)

    assert refused.value.status_code in (404, 422)
    assert nothing.value.status_code == 409


async def test_the_tensors_of_forward_describe_what_was_sampled(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    runs = await roll_out(slug, PROBLEMS, group=1)

    told = await client.forward(runs, reward_scale=2.0)

    for run, datum in zip(runs, told.data, strict=True):
        [turn] = payload(run, 0.0).samples
        acted = [index for index, flag in enumerate(datum.mask) if flag]
        assert len(datum.logprobs) == len(datum.sampling_logprobs) == len(datum.mask)
        assert len(acted) == len(turn.output_token_ids)
        assert [datum.sampling_logprobs[at] for at in acted] == pytest.approx(turn.output_logprobs)
        # Nothing was trained in between, so the policy is still the one that sampled.
        assert [datum.logprobs[at] for at in acted] == pytest.approx(turn.output_logprobs, abs=1e-4)
        assert datum.group_idx is None


async def test_forward_and_backward_by_hand_make_a_step(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    runs = await roll_out(slug, PROBLEMS, group=1)

    told = await client.forward(runs)
    weights = [list(datum.mask) for datum in told.data]
    result = await client.backward(told.forward_id, weights, metrics={"trained": 2.0})
    stepped = await client.optim_step(learning_rate=1e-3)
    after = await client.forward(runs)

    assert result.num_datums == 3
    assert result.metrics["trained"] == 2.0
    assert stepped.step == 1
    # Positive weights imitate: what was sampled has become more likely.
    before_sum = sum(sum(map(float.__mul__, datum.logprobs, datum.mask)) for datum in told.data)
    after_sum = sum(sum(map(float.__mul__, datum.logprobs, datum.mask)) for datum in after.data)
    assert after_sum > before_sum


async def test_a_forward_serves_one_backward(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    told = await client.forward(await roll_out(slug, PROBLEMS[:1], group=1))
    weights = [list(datum.mask) for datum in told.data]
    await client.backward(told.forward_id, weights)

    with pytest.raises(HudRequestError) as refused:
        await client.backward(told.forward_id, weights)
    with pytest.raises(HudRequestError) as unknown:
        await client.backward("nothing", weights)

    assert 400 <= (refused.value.status_code or 0) < 500
    assert 400 <= (unknown.value.status_code or 0) < 500


def importance_sampling(
    data: list[DatumTensors], logprobs: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    """The built-in loss, written on the client's side, with the mean of two as the baseline."""
    rewards: dict[Any, list[float]] = {}
    for datum in data:
        rewards.setdefault(datum.group_idx, []).append(datum.reward)
    total = torch.zeros(())
    for datum, current in zip(data, logprobs, strict=True):
        group = rewards[datum.group_idx]
        ratio = (current - torch.tensor(datum.sampling_logprobs)).exp()
        total = total - (ratio * torch.tensor(datum.mask)).sum() * (datum.reward - sum(group) / len(group))
    return total, {"mine": 1.0}


async def test_a_custom_loss_steps_like_the_same_built_in_loss(
    fork: Callable[..., str], roll_out: RollOut
) -> None:
    sampler, left, right = fork(), fork("built-in"), fork("custom")
    inputs = contrasted(await roll_out(sampler, PROBLEMS, group=2))
    built_in, custom = TrainingClient(left), TrainingClient(right)

    await built_in.forward_backward(inputs, group_size=2)
    told = await custom.forward_backward_custom(inputs, importance_sampling, group_size=2)
    await built_in.optim_step(learning_rate=1e-3)
    await custom.optim_step(learning_rate=1e-3)

    ours, theirs = await custom.forward(inputs), await built_in.forward(inputs)
    assert told.metrics["mine"] == 1.0
    for one, other in zip(ours.data, theirs.data, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-3)


async def test_a_step_from_an_earlier_head_makes_a_branch(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    inputs = contrasted(await roll_out(slug, PROBLEMS[:2], group=2))
    before = await client.head()
    first = await client.step(inputs, learning_rate=1e-4, group_size=2)
    second = await client.step(inputs, learning_rate=1e-4, group_size=2, loss_fn="ppo")

    await client.set_head(first.checkpoint_id)
    await client.set_head(first.checkpoint_id)
    rolled_back = await client.head()
    third = await client.step(inputs, learning_rate=1e-4, group_size=2)
    nodes = await client.checkpoints()

    assert before is None
    assert rolled_back is not None
    assert rolled_back.id == first.checkpoint_id
    made = [first.checkpoint_id, second.checkpoint_id, third.checkpoint_id]
    assert [node.id for node in nodes] == made
    assert [node.prev_model_checkpoint_id for node in nodes] == [None, made[0], made[0]]
    assert [node.is_active for node in nodes] == [False, False, True]


async def test_an_agent_samples_the_checkpoint_it_names(slug: str, roll_out: RollOut) -> None:
    client = TrainingClient(slug)
    inputs = contrasted(await roll_out(slug, PROBLEMS[:2], group=2))
    first = await client.step(inputs, learning_rate=1e-2, group_size=2)
    await client.step(inputs, learning_rate=1e-2, group_size=2)

    told = {}
    for name in (None, first.checkpoint_id, first.sampler_path):
        runs = await roll_out(slug, PROBLEMS[:1], group=1, checkpoint=name, body={"temperature": 0.0})
        told[name] = runs[0].trace.collect(lambda step: getattr(step, "sample", None))[0].output_logprobs

    assert told[first.checkpoint_id] == pytest.approx(told[first.sampler_path])
    assert told[first.checkpoint_id] != pytest.approx(told[None])


async def test_refusals_carry_their_status_and_their_reason(slug: str) -> None:
    with pytest.raises(HudRequestError, match="no model") as unknown:
        await TrainingClient(str(uuid.uuid4())).available_losses()
    with pytest.raises(HudRequestError) as base:
        await TrainingClient("tiny").optim_step(learning_rate=1e-4)
    with pytest.raises(HudRequestError) as checkpoint:
        await TrainingClient(slug).set_head("no-such-checkpoint")

    statuses = [error.value.status_code for error in (unknown, base, checkpoint)]
    assert statuses == [404, 422, 404]
