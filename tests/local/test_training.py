from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from hud_orchestrator.local.advantages import group_advantages
from hud_orchestrator.local.bodies import MAX_BODY
from tests.local.local_world import CONTEXT, PAIR, World, running, trajectory


async def test_the_accumulated_gradient_is_the_one_of_plain_torch(world: World, model_dir: Path) -> None:
    """One AdamW step from zero moments moves against the gradient's sign, so compare its norm and signs."""
    model = await world.fork("fork")
    await world.train(model, inputs=PAIR, num_substeps=2)
    stepped = (await world.step(model, learning_rate=1e-4)).json()
    module = LlamaForCausalLM.from_pretrained(model_dir)
    loss = torch.zeros(())
    for one, advantage in zip(PAIR, (0.5, -0.5), strict=True):
        (sample,) = one["samples"]
        prompt, output = sample["prompt_token_ids"], sample["output_token_ids"]
        logits = module(torch.tensor([prompt + output[:-1]])).logits[0, len(prompt) - 1 :]
        chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(output)[:, None])[:, 0]
        loss = loss - ((chosen + 3.0).exp() * advantage).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: one.grad for name, one in module.named_parameters() if one.grad is not None}
    (node,) = await world.checkpoints(model)
    norm = math.sqrt(sum(float(one.square().sum()) for one in gradients.values()))
    assert node["metrics"]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert node["metrics"]["loss:sum"] == pytest.approx(float(loss.detach()), rel=1e-4)
    stepped_weights = load_file(stepped["sampler_path"])
    for name, before in module.named_parameters():
        large = gradients[name].abs() > 1e-3
        moved = (stepped_weights[name] - before.detach())[large]
        torch.testing.assert_close(moved, -1e-4 * gradients[name][large].sign(), rtol=1e-2, atol=1e-8)


async def test_calls_add_up_whatever_the_microbatches(tmp_path: Path, model_dir: Path) -> None:
    norms = []
    inputs = [trajectory([1, 5 + i, 2], [7 + i] * (1 + i), reward=float(i)) for i in range(6)]
    for name, tokens, substeps, calls in (
        ("a", 8192, 1, [inputs]),
        ("b", 1, 1, [inputs]),
        ("c", 12, 2, [inputs[:2], inputs[2:4], inputs[4:]]),
        ("d", 8192, 10**15, [inputs]),
    ):
        async with running(tmp_path / name, model_dir, local={"tokens_per_microbatch": tokens}) as world:
            model = await world.fork("fork")
            for call in calls:
                reply = await world.train(model, inputs=call, group_size=2, num_substeps=substeps)
                assert reply.status_code == 200
            await world.step(model)
            norms.append((await world.checkpoints(model))[0]["metrics"]["grad_norm"])
    assert norms == pytest.approx([norms[0]] * 4, rel=1e-5)


@pytest.mark.parametrize("mode", ["full", "lora"])
async def test_a_rewarded_token_becomes_likelier(tmp_path: Path, model_dir: Path, mode: str) -> None:
    local = {"parameters": mode, "lora": {"rank": 4}}
    async with running(tmp_path, model_dir, local=local) as world:
        model = await world.fork("fork")
        replies = await world.chat("fork", n=64, max_tokens=1)
        letters = Counter(choice["message"]["content"] for choice in replies["choices"])
        letter, count = letters.most_common(2)[-1]
        assert count < 32
        for _ in range(40):
            reply = await world.chat("fork", n=64, max_tokens=2)
            inputs = [rewarded(choice, letter) for choice in reply["choices"]]
            # Learnt. Going on with such steps would find the few failures and overshoot.
            if sum(one["reward"] for one in inputs) > 50:
                break
            config = {"advantage_std": 1}
            assert (await world.train(model, inputs=inputs, loss_fn_config=config)).status_code == 200
            assert (await world.step(model, learning_rate=3e-3, max_grad_norm=1.0)).status_code == 200
        else:
            pytest.fail("forty steps did not make the rewarded letter likely")


def rewarded(choice: dict[str, Any], letter: str) -> dict[str, Any]:
    logprobs = [one["logprob"] for one in choice["logprobs"]["content"]]
    reward = float(choice["message"]["content"].startswith(letter))
    return trajectory(choice["prompt_token_ids"], choice["token_ids"], reward=reward, logprobs=logprobs)


async def test_two_forks_do_not_see_each_other(world: World) -> None:
    trained, other = await world.fork("trained"), await world.fork("other")
    before = await world.chat("other", temperature=0)
    base = await world.chat(world.base, temperature=0)
    await world.learn(trained, learning_rate=0.1)
    assert (await world.chat("trained", temperature=0))["choices"] != before["choices"]
    assert (await world.chat("other", temperature=0))["choices"] == before["choices"] == base["choices"]
    assert await world.checkpoints(other) == []
    assert (await world.step(other)).status_code == 409


async def test_sampling_and_training_go_on_at_the_same_time(world: World) -> None:
    model = await world.fork("fork")
    inputs = [trajectory([1, 5, 2], [7 + i % 9] * 20, reward=float(i % 3)) for i in range(200)]
    training = asyncio.create_task(world.train(model, inputs=inputs))
    replies = await asyncio.gather(*[world.chat("fork", max_tokens=30) for _ in range(20)])
    assert len(replies) == 20
    assert (await training).json()["num_datums"] == 200


async def test_deterministic_runs_are_equal_bit_by_bit(tmp_path: Path, model_dir: Path) -> None:
    outcomes = []
    for name in ("one", "two"):
        async with running(tmp_path / name, model_dir, deterministic=True, seed=4) as world:
            model = await world.fork("fork")
            prompts = ["a", "bb", "ccc", "a"] if name == "one" else ["ccc", "a", "a", "bb"]
            replies = await asyncio.gather(*[world.chat("fork", prompt, seed=11) for prompt in prompts])
            tokens = sorted(
                (p, r["choices"][0]["logprobs"]["content"]) for p, r in zip(prompts, replies, strict=True)
            )
            inputs = [trajectory([1, 5, 2], [7 + i], reward=float(i), logprobs=[-2.0]) for i in range(4)]
            for _ in range(2):
                await world.train(model, inputs=inputs, loss_fn="ppo")
                stepped = await world.step(model)
            outcomes.append((str(tokens), stepped.json()["sampler_path"]))
    (tokens_one, weights_one), (tokens_two, weights_two) = outcomes
    assert tokens_one == tokens_two
    assert Path(weights_one).read_bytes() == Path(weights_two).read_bytes()  # noqa: ASYNC240


async def test_the_reply_and_the_node_tell_the_same_story(world: World) -> None:
    model = await world.fork("fork")
    reply = (await world.train(model, inputs=PAIR)).json()
    assert reply.keys() == {"metrics", "num_datums"}
    assert reply["num_datums"] == 2
    expected = {
        "loss:sum", "reward_mean", "reward_std", "tokens", "ratio_mean", "ratio_max", "clipped_share",
        "kl_k1", "kl_k3", "entropy", "groups_without_spread", "added", "seconds",
    }  # fmt: skip
    assert expected <= reply["metrics"].keys()
    assert all(math.isfinite(value) for value in reply["metrics"].values())
    stepped = (await world.step(model)).json()
    assert stepped.keys() == {"step", "checkpoint_id", "sampler_path", "state_path", "model"}
    (node,) = await world.checkpoints(model)
    assert (stepped["step"], stepped["model"]) == (1, "fork")
    assert (node["id"], node["name"], node["is_active"]) == (stepped["checkpoint_id"], "step-000001", True)
    assert (node["num_traces"], node["num_datums"], node["num_tokens"]) == (2, 2, 5)
    assert (node["mean_reward"], node["learning_rate"], node["loss_fn"]) == (0.5, 0.01, "importance_sampling")


async def test_stepping_on_nothing_is_refused(world: World) -> None:
    model = await world.fork("fork")
    assert (await world.step(model)).status_code == 409
    flat = [dict(one, reward=0.1) for one in PAIR]
    reply = await world.train(model, inputs=flat)
    metrics = reply.json()["metrics"]
    assert (metrics["groups_without_spread"], metrics["added"], metrics["loss:sum"]) == (1, 0, 0)
    refused = await world.step(model)
    assert refused.status_code == 409
    assert "nothing has accumulated" in refused.json()["detail"]
    assert await world.checkpoints(model) == []


async def test_cross_entropy_needs_neither_rewards_nor_logprobs(world: World) -> None:
    model = await world.fork("fork")
    inputs = [trajectory([1, 5, 2], [7, 8, 0], reward=0.0, logprobs=[])] * 2
    reply = await world.train(model, inputs=inputs, loss_fn="cross_entropy")
    assert reply.status_code == 200
    assert "ratio_mean" not in reply.json()["metrics"]
    assert (await world.step(model)).status_code == 200


def sample(**more: Any) -> dict[str, Any]:
    return {"prompt_token_ids": [1], "output_token_ids": [5], "output_logprobs": [-1.0]} | more


def single(**more: Any) -> list[Any]:
    return [{"samples": [sample(**more)], "reward": 1.0}, PAIR[1]]


WRONG = {
    "no inputs": ({"inputs": []}, "inputs"),
    "an unknown key": ({"inputs": PAIR, "surprise": 1}, "surprise"),
    "an indivisible batch": ({"inputs": PAIR * 2 + PAIR[:1], "group_size": 2}, "5 inputs"),
    "missing logprobs": ({"inputs": single(output_logprobs=[])}, "inputs[0].samples[0]"),
    "too few logprobs": (
        {"inputs": single(output_logprobs=[-1.0], output_token_ids=[5, 6])},
        "2 output_token_ids",
    ),
    "an infinite logprob": ({"inputs": single(output_logprobs=[-1e999])}, "not finite"),
    "no prompt": ({"inputs": single(prompt_token_ids=None)}, "no prompt"),
    "an image": ({"inputs": single(prompt_chunks=[{"type": "image"}])}, "encoded_text"),
    "an odd chunk": (
        {"inputs": single(prompt_chunks=[{"type": "encoded_text", "tokens": "x"}])},
        "list of integers",
    ),
    "no output": ({"inputs": single(output_token_ids=[], output_logprobs=[])}, "empty"),
    "a token too high": ({"inputs": single(output_token_ids=[41])}, "token id 41"),
    "a negative token": ({"inputs": single(prompt_token_ids=[-1])}, "token id -1"),
    "too long a turn": ({"inputs": single(prompt_token_ids=[1] * CONTEXT)}, "context of 64"),
    "an infinite reward": ({"inputs": [dict(PAIR[0], reward=1e999), PAIR[1]]}, "inputs[0].reward"),
    "an unknown loss": ({"inputs": PAIR, "loss_fn": "grpo"}, "importance_sampling, ppo"),
    "an unknown loss key": (
        {"inputs": PAIR, "loss_fn": "ppo", "loss_fn_config": {"epsilon": 0.2}},
        "clip_low",
    ),
    "a NaN reward": ({"inputs": [dict(PAIR[0], reward=math.nan), PAIR[1]]}, "inputs[0].reward"),
    "a reward beyond squares": ({"inputs": [dict(PAIR[0], reward=1e200), PAIR[1]]}, "beyond 1e+30"),
    "a scale that is no number": ({"inputs": PAIR, "reward_scale": math.nan}, "reward_scale nan"),
    "a reward as text": ({"inputs": [dict(PAIR[0], reward="1"), PAIR[1]]}, "reward"),
    "a token as a float": ({"inputs": single(output_token_ids=[5.0])}, "output_token_ids"),
    "a number for an input": ({"inputs": [7, *PAIR]}, "inputs.0"),
    "no substeps": ({"inputs": PAIR, "num_substeps": 0}, "num_substeps"),
    "a list for a body": ([], "object"),
    "an odd advantage_std": ({"inputs": PAIR, "loss_fn_config": {"advantage_std": 2}}, "0 or 1"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_a_wrong_batch_is_refused_as_a_whole(world: World, mistake: str) -> None:
    body, complaint = WRONG[mistake]
    model = await world.fork("fork")
    # httpx refuses infinities, other clients do not.
    reply = await world.http.post(f"/v1/models/{model}/train/forward-backward", content=json.dumps(body))
    assert reply.status_code == 422, reply.text
    assert complaint in reply.json()["detail"]
    assert (await world.step(model)).status_code == 409


NO_REQUESTS = {
    "not JSON": b"inputs",
    "not UTF-8": b'{"inputs": ["\xff"]}',
    "cut off": json.dumps({"inputs": PAIR}).encode()[:-1],
    "nothing": b"",
    "deep nesting": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "too many bytes": b" " * (MAX_BODY + 1),
}


async def test_refused_calls_leave_not_a_bit_of_a_trace(world: World) -> None:
    clean, tried = await world.fork("clean"), await world.fork("tried")
    for model in (clean, tried):
        assert (await world.train(model, inputs=PAIR)).status_code == 200
    bodies = [*NO_REQUESTS.values(), *(json.dumps(body).encode() for body, _ in WRONG.values())]
    for call in ("forward-backward", "forward", "backward", "optim-step"):
        for body in bodies:
            reply = await world.http.post(f"/v1/models/{tried}/train/{call}", content=body)
            assert reply.status_code in (413, 422)
            assert reply.json().keys() == {"detail"}
            assert "\n" not in reply.json()["detail"]
    one, other = [(await world.step(model)).json() for model in (clean, tried)]
    for file in ("sampler_path", "state_path"):
        assert Path(one[file]).read_bytes() == Path(other[file]).read_bytes()  # noqa: ASYNC240


async def test_a_step_is_the_one_of_torchs_adamw(world: World) -> None:
    """Two steps with moments, decay and clipping; forks at the same weights tell the gradients."""
    chosen = {"learning_rate": 3e-3, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6, "weight_decay": 0.1}
    model = await world.fork("fork")
    initial = world.service.catalog.forks[model].load(None).tensors if world.service else {}
    parameters = {name: torch.nn.Parameter(one.clone()) for name, one in initial.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=3e-3, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1)
    for step in (1, 2):
        probe = await world.fork(f"probe-{step}", "fork")
        await world.train(probe, inputs=PAIR)
        gradient = await world.gradient(probe)
        await world.train(model, inputs=PAIR)
        stepped = (await world.step(model, max_grad_norm=0.5, **chosen)).json()
        node = (await world.checkpoints(model))[-1]
        for name, parameter in parameters.items():
            parameter.grad = gradient[f"first.{name}"]
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
        assert node["metrics"]["grad_norm"] == pytest.approx(float(norm), rel=1e-6)
        assert float(norm) > 1
        optimizer.step()
        found = load_file(stepped["sampler_path"])
        for name, parameter in parameters.items():
            torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-6, atol=1e-7)


async def test_reward_scale_multiplies_the_gradient(world: World) -> None:
    gradients = []
    for name, scale in (("one", 1.0), ("four", 4.0)):
        model = await world.fork(name)
        reply = await world.train(model, inputs=PAIR, reward_scale=scale)
        assert reply.json()["metrics"]["reward_mean"] == 0.5
        gradients.append(await world.gradient(model))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], 4 * gradient)


async def test_prompt_chunks_count_and_trajectories_have_several_turns(world: World) -> None:
    model = await world.fork("fork")
    chunks = [{"type": "encoded_text", "tokens": [1, 5]}, {"type": "encoded_text", "tokens": [2]}]
    turns = [sample(prompt_token_ids=None, prompt_chunks=chunks), sample()]
    reply = await world.train(model, inputs=[{"samples": turns, "reward": 1.0}, PAIR[1]])
    assert reply.json()["num_datums"] == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"weight_decay": -1},
        {"surprise": 1},
        {"max_grad_norm": 0},
        {"beta1": 1},
        {"eps": -1},
        {"learning_rate": 1e300},
    ],
)
async def test_a_wrong_step_is_refused(world: World, wrong: dict[str, Any]) -> None:
    model = await world.fork("fork")
    await world.train(model, inputs=PAIR)
    assert (await world.step(model, **wrong)).status_code == 422
    assert (await world.step(model)).status_code == 200


async def test_numbers_that_explode_are_refused_and_not_kept(world: World) -> None:
    model = await world.fork("fork")
    reply = await world.train(model, inputs=single(output_logprobs=[-200.0]))
    assert reply.status_code == 409
    assert "the loss is" in reply.json()["detail"]
    assert (await world.step(model)).status_code == 409
    await world.train(model, inputs=PAIR)
    assert (await world.step(model, learning_rate=1e30, weight_decay=1e30)).status_code == 409
    assert "nothing has accumulated" in (await world.step(model)).json()["detail"]
    assert await world.checkpoints(model) == []
    assert (await world.chat("fork"))["system_fingerprint"] == f"initial:{model}"


async def test_max_grad_norm_bounds_the_gradient_that_adam_sees(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir) as world:
        model = await world.fork("fork")
        stepped = await world.learn(model, max_grad_norm=0.5, beta1=0.0)
        moments = load_file(stepped["state_path"])
        clipped = math.sqrt(
            sum(float(m.square().sum()) for n, m in moments.items() if n.startswith("first."))
        )
        assert clipped == pytest.approx(0.5, rel=1e-3)


async def test_a_repeated_key_is_answered_without_doing_it_again(world: World) -> None:
    model = await world.fork("fork")
    once, twice = {"Idempotency-Key": "k1"}, {"Idempotency-Key": "k2"}
    replies = await asyncio.gather(*[world.train(model, inputs=PAIR, headers=once) for _ in range(3)])
    assert len({reply.text for reply in replies}) == 1
    other = await world.train(model, inputs=PAIR[::-1], headers=once)
    assert other.status_code == 409
    assert "another body" in other.json()["detail"]
    first = await world.step(model, headers=twice)
    again = await world.step(model, headers=twice)
    assert first.json() == again.json()
    assert (await world.step(model, headers=twice, learning_rate=0.5)).status_code == 409
    (node,) = await world.checkpoints(model)
    assert node["num_traces"] == 2


async def test_a_refused_call_may_be_repeated_with_its_key(world: World) -> None:
    model = await world.fork("fork")
    key = {"Idempotency-Key": "k"}
    assert (await world.step(model, headers=key)).status_code == 409
    await world.train(model, inputs=PAIR)
    assert (await world.step(model, headers=key)).status_code == 200


async def test_a_step_finishes_although_its_client_is_gone(world: World) -> None:
    model = await world.fork("fork")
    await world.train(model, inputs=PAIR)
    left = asyncio.create_task(world.step(model))
    await asyncio.sleep(0)
    while not left.done() and not (world.service and world.service.once._running):  # noqa: ASYNC110
        await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    # Serialised after it, and so refused: the gradient is used up.
    assert (await world.step(model)).status_code == 409
    assert len(await world.checkpoints(model)) == 1


def test_advantages_are_centred_on_contiguous_groups() -> None:
    found = group_advantages([1.0, 0.0, 0.1, 0.1], group_size=2, scale=2.0, divide_by_std=False)
    assert found.values == [1.0, -1.0, 0.0, 0.0]
    assert found.groups_without_spread == 1
    whole = group_advantages([1.0, 0.0, 0.0, 1.0], group_size=None, scale=1.0, divide_by_std=True)
    assert whole.values == pytest.approx([1.0, -1.0, -1.0, 1.0], abs=1e-5)


def test_equal_rewards_have_exactly_no_advantage() -> None:
    assert group_advantages([0.1] * 3, group_size=None, scale=1.0, divide_by_std=True).values == [0.0] * 3
