from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from hud_orchestrator.local.forwards import LIVE_FORWARDS
from hud_orchestrator.losses.registry import BUILT_IN
from tests.local.local_world import PAIR, World, as_trajectory, running, trajectory

SAMPLE = {"prompt_token_ids": [1, 5, 2], "output_token_ids": [7, 8, 0], "output_logprobs": [-1.0, -2.0, -3.0]}
LATER = {"prompt_token_ids": [1, 5, 2, 7, 4], "output_token_ids": [6], "output_logprobs": [-0.5]}
TURNS = {"samples": [SAMPLE, LATER], "reward": 1.0}
GROUPS = [
    TURNS,
    trajectory([1, 5, 2], [9, 0], reward=0.25, logprobs=[-1.5, -4.0]),
    trajectory([3], [4] * 9, reward=0.5),
    trajectory([1, 2, 3, 4, 5, 6], [10], reward=-1.0, logprobs=[-2.0]),
]


async def test_forward_gives_every_turn_token_by_token(world: World, model_dir: Path) -> None:
    model = await world.fork("fork")
    reply = (await world.forward(model, inputs=GROUPS, group_size=2, reward_scale=2.0)).json()
    assert reply.keys() == {"forward_id", "data"}
    first, later, *_ = reply["data"]
    assert first.keys() == {"reward", "traj_idx", "group_idx", "logprobs", "sampling_logprobs", "mask"}
    assert (first["mask"], first["sampling_logprobs"]) == ([0, 0, 1, 1, 1], [0, 0, -1.0, -2.0, -3.0])
    assert (later["mask"], later["sampling_logprobs"]) == ([0, 0, 0, 0, 1], [0, 0, 0, 0, -0.5])
    assert [one["traj_idx"] for one in reply["data"]] == [0, 0, 1, 2, 3]
    assert [one["group_idx"] for one in reply["data"]] == [0, 0, 0, 1, 1]
    assert [one["reward"] for one in reply["data"]] == [2.0, 2.0, 0.5, 1.0, -2.0]
    module = LlamaForCausalLM.from_pretrained(model_dir)
    samples = [sample for one in GROUPS for sample in one["samples"]]
    for found, sample in zip(reply["data"], samples, strict=True):
        tokens = torch.tensor([sample["prompt_token_ids"] + sample["output_token_ids"]])
        expected = module(tokens[:, :-1]).logits[0].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
        assert found["logprobs"] == pytest.approx(expected.tolist(), abs=1e-5)


async def test_forward_filters_nothing_and_knows_groups_only_if_told(world: World) -> None:
    model = await world.fork("fork")
    flat = [dict(one, reward=0.5) for one in PAIR]
    reply = (await world.forward(model, inputs=flat)).json()
    assert [(len(one["logprobs"]), one["group_idx"]) for one in reply["data"]] == [(5, None), (4, None)]


def client_side(name: str, data: list[dict[str, Any]]) -> list[list[float]]:
    """The weights that a client computes for a loss of the service, whole groups of two."""
    built_in, weights = BUILT_IN[name], []
    rewards = {one["traj_idx"]: one["reward"] for one in data}
    for one in data:
        index = one["traj_idx"]
        mean = (rewards[index] + rewards[index ^ 1]) / 2
        leaf = torch.tensor(one["logprobs"], requires_grad=True)
        sampling, mask = torch.tensor(one["sampling_logprobs"]), torch.tensor(one["mask"])
        advantages = torch.full_like(leaf, one["reward"] - mean)
        loss = built_in.compute(leaf, sampling, advantages, mask, built_in.configure({}))
        (slope,) = torch.autograd.grad(loss, leaf)
        weights.append((-slope).tolist())
    return weights


@pytest.mark.parametrize(
    ("name", "mode", "tokens"),
    [*((name, "full", 8192) for name in BUILT_IN), ("ppo", "lora", 8192), ("cispo", "full", 1)],
)
async def test_a_loss_has_the_same_gradient_on_either_side(
    tmp_path: Path, model_dir: Path, name: str, mode: str, tokens: int
) -> None:
    local = {"parameters": mode, "tokens_per_microbatch": tokens}
    async with running(tmp_path, model_dir, local=local) as world:
        model = await world.fork("fork")
        # A step first, so that the adapter's halves both have gradients.
        start = await world.learn(model)
        asked = {"inputs": GROUPS, "group_size": 2, "reward_scale": 0.5}
        built_in = await world.train(model, loss_fn=name, num_substeps=2, **asked)
        assert built_in.status_code == 200, built_in.text
        expected = await world.gradient(model)
        await world.set_head(model, start["checkpoint_id"])
        forward = (await world.forward(model, **asked)).json()
        weights = client_side(name, forward["data"])
        reply = await world.backward(model, forward_id=forward["forward_id"], weights=weights)
        assert reply.status_code == 200, reply.text
        assert reply.json()["num_datums"] == 5
        found = await world.gradient(model)
    norm = math.sqrt(sum(float(one.square().sum()) for one in expected.values()))
    distance = math.sqrt(sum(float((found[n] - one).square().sum()) for n, one in expected.items()))
    assert norm > 0
    assert distance <= 1e-5 * norm


async def weighed(world: World, model: str, *, weight: float = 1.0, **more: Any) -> dict[str, Any]:
    """The body of a backward: a fresh forward, and one weight for every chosen token."""
    forward = (await world.forward(model, inputs=PAIR)).json()
    weights = [[weight * chosen for chosen in one["mask"]] for one in forward["data"]]
    return {"forward_id": forward["forward_id"], "weights": weights} | more


async def test_the_clients_metrics_come_back_and_go_into_the_node(world: World) -> None:
    model = await world.fork("fork")
    given = {
        "masked_tokens": 3,
        "tokens": 99.0,
        "event": 1.0,
        "model": 2.0,
        "odd": math.nan,
        "odder": math.inf,
    }
    reply = (await world.backward(model, **await weighed(world, model, metrics=given))).json()
    assert reply.keys() == {"metrics", "num_datums"}
    metrics = reply["metrics"]
    assert (metrics["masked_tokens"], metrics["tokens"], metrics["event"]) == (3, 99, 1)
    assert (metrics["added"], metrics["reward_mean"]) == (2, 0.5)
    assert metrics.keys() >= {"loss:sum", "entropy", "reward_std"}
    assert not metrics.keys() & {"odd", "odder", "groups_without_spread"}
    assert (await world.step(model)).status_code == 200
    (node,) = await world.checkpoints(model)
    assert (node["loss_fn"], node["metrics"]["masked_tokens"]) == ("custom", 3)
    assert (node["num_traces"], node["num_datums"], node["num_tokens"]) == (2, 2, 5)


async def test_a_forward_serves_one_backward(world: World) -> None:
    model = await world.fork("fork")
    body = await weighed(world, model)
    assert (await world.backward(model, **body)).status_code == 200
    again = await world.backward(model, **body)
    assert again.status_code == 409
    assert "a backward has used it" in again.json()["detail"]
    unknown = await world.backward(model, **(body | {"forward_id": "nowhere"}))
    assert unknown.status_code == 404
    other = await world.fork("other")
    assert (await world.backward(other, **await weighed(world, model))).status_code == 404


async def test_a_forward_ends_with_the_policy_it_was_computed_on(world: World) -> None:
    model = await world.fork("fork")
    before_step = await weighed(world, model)
    start = await world.learn(model)
    refused = await world.backward(model, **before_step)
    assert (refused.status_code, "an optim-step has" in refused.json()["detail"]) == (409, True)
    before_head = await weighed(world, model)
    await world.set_head(model, start["checkpoint_id"])
    refused = await world.backward(model, **before_head)
    assert (refused.status_code, "the head was set" in refused.json()["detail"]) == (409, True)
    assert (await world.step(model)).status_code == 409


async def test_only_the_latest_forwards_are_kept(world: World) -> None:
    model = await world.fork("fork")
    bodies = [await weighed(world, model) for _ in range(LIVE_FORWARDS + 1)]
    await world.train(model, inputs=PAIR)
    replies = [await world.backward(model, **body) for body in bodies]
    assert [reply.status_code for reply in replies] == [409] + [200] * LIVE_FORWARDS
    assert "8 newer ones exist" in replies[0].json()["detail"]


async def test_a_restart_ends_forwards(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        body = await weighed(world, model)
    async with running(tmp_path, model_dir) as world:
        assert (await world.backward(model, **body)).status_code == 404


WRONG: dict[str, tuple[Any, str]] = {
    "too few lists": ([[0.0] * 5], "1 lists for the 2 datums"),
    "a short list": ([[0.0] * 5, [0.0] * 3], "weights[1] has 3 numbers, its datum has 4 logprobs"),
    "a NaN": ([[0.0] * 5, [0.0] * 3 + [math.nan]], "weights[1][3] is not a finite number: nan"),
    "an infinity": ([[0.0] * 4 + [-math.inf], [0.0] * 4], "weights[0][4] is not a finite number: -inf"),
    "an observation": ([[0.5] + [0.0] * 4, [0.0] * 4], "weights[0][0] is 0.5 where mask is 0"),
    "a string": ([["0"] * 5, [0.0] * 4], "weights.0.0"),
    "no list": (3.0, "weights"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_wrong_weights_are_refused_and_the_forward_stays(world: World, mistake: str) -> None:
    wrong, complaint = WRONG[mistake]
    model = await world.fork("fork")
    body = await weighed(world, model)
    refused = await world.backward(model, **(body | {"weights": wrong}))
    assert refused.status_code == 422, refused.text
    assert complaint in refused.json()["detail"]
    assert (await world.step(model)).status_code == 409
    assert (await world.backward(model, **body)).status_code == 200


async def test_weights_that_explode_are_refused_and_the_forward_stays(world: World) -> None:
    model = await world.fork("fork")
    body = await weighed(world, model)
    huge = [[1e300 * weight for weight in row] for row in body["weights"]]
    assert (await world.backward(model, **(body | {"weights": huge}))).status_code == 409
    assert (await world.backward(model, **body)).status_code == 200


async def test_weights_of_zero_are_accepted_and_add_nothing(world: World) -> None:
    model = await world.fork("fork")
    reply = await world.backward(model, **await weighed(world, model, weight=-0.0))
    assert (reply.status_code, reply.json()["metrics"]["added"]) == (200, 0)
    refused = await world.step(model)
    assert (refused.status_code, "nothing has accumulated" in refused.json()["detail"]) == (409, True)


async def traced(world: World, model: str, trace: str, reward: float) -> dict[str, Any]:
    """A rollout of one turn under a trace id, and the same inline."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    asked = body | {"logprobs": True, "return_token_ids": True}
    reply = await world.http.post("/chat/completions", json=asked, headers={"Trace-Id": trace})
    await world.http.post(f"/v2/trace/{trace}/exit", json={"status": "completed", "reward": reward})
    return as_trajectory(reply.json()["choices"][0], reward)


async def test_inputs_by_trace_id_and_inline_mix_in_their_order(world: World) -> None:
    model, same = await world.fork("fork"), await world.fork("same")
    one, other = [await traced(world, "fork", digit * 32, float(digit)) for digit in "12"]
    mixed = [PAIR[0], "2" * 32, PAIR[1], "1" * 32]
    inline = [PAIR[0], other, PAIR[1], one]
    replies = [await world.forward(model, inputs=inputs, group_size=2) for inputs in (mixed, inline)]
    assert replies[0].json()["data"] == replies[1].json()["data"]
    assert (await world.train(model, inputs=mixed, group_size=2)).status_code == 200
    assert (await world.train(same, inputs=inline, group_size=2)).status_code == 200
    found, expected = await world.gradient(model), await world.gradient(same)
    assert all(found[name].equal(one) for name, one in expected.items())


async def test_unknown_trace_ids_are_all_named_and_refuse_the_whole_request(world: World) -> None:
    model = await world.fork("fork")
    await traced(world, "fork", "1" * 32, 1.0)
    inputs = ["abc", *PAIR, "1" * 32, "def"]
    for refused in (await world.train(model, inputs=inputs), await world.forward(model, inputs=inputs)):
        assert refused.status_code == 404
        assert "abc" in refused.json()["detail"]
        assert "def" in refused.json()["detail"]
        assert "1" * 32 not in refused.json()["detail"]
    assert (await world.step(model)).status_code == 409


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"inputs": []}, "inputs"),
        ({"loss_fn": "ppo"}, "loss_fn"),
        ({"group_size": 3}, "2 inputs cannot be cut"),
        ({"inputs": [trajectory([1], [2], reward=1.0, logprobs=[])]}, "1 output_token_ids and 0"),
    ],
)
async def test_a_wrong_forward_is_refused(world: World, change: dict[str, Any], complaint: str) -> None:
    model = await world.fork("fork")
    refused = await world.forward(model, **({"inputs": PAIR} | change))
    assert refused.status_code == 422
    assert complaint in refused.json()["detail"]


async def test_a_repeated_key_gives_the_first_outcome_of_both_calls(world: World) -> None:
    model = await world.fork("fork")
    key = {"Idempotency-Key": "k"}
    forwards = [await world.forward(model, inputs=PAIR, headers=key) for _ in range(2)]
    assert forwards[0].content == forwards[1].content
    assert (await world.forward(model, inputs=PAIR[::-1], headers=key)).status_code == 409
    body = await weighed(world, model)
    first, again = await asyncio.gather(*[world.backward(model, headers=key, **body) for _ in range(2)])
    assert (first.status_code, first.content) == (200, again.content)
    changed = await world.backward(model, headers=key, **(body | {"metrics": {"x": 1}}))
    assert (changed.status_code, "another body" in changed.json()["detail"]) == (409, True)
    await world.step(model)
    assert (await world.checkpoints(model))[0]["num_traces"] == 2


async def test_a_backward_finishes_although_its_client_is_gone(world: World) -> None:
    model = await world.fork("fork")
    body = await weighed(world, model)
    left = asyncio.create_task(world.backward(model, **body))
    while not (world.service and world.service.once._running):  # noqa: ASYNC110
        await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    assert (await world.backward(model, **body)).status_code == 409
    assert (await world.step(model)).status_code == 200
