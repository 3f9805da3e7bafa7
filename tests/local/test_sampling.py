from __future__ import annotations

import asyncio
import gc
import json
import math
import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from transformers import Cache, LlamaForCausalLM

from hud_orchestrator.local.draw import draw
from hud_orchestrator.local.kv_cache import RaggedCache
from hud_orchestrator.local.trained_model import TrainedModel
from tests.local.local_world import CONTEXT, World, as_trajectory, running


def full_forward(model_dir: Path, prompt: list[int], output: list[int]) -> torch.Tensor:
    """Log-probabilities of *output* by plain transformers: no cache, no batch."""
    module = LlamaForCausalLM.from_pretrained(model_dir)
    with torch.no_grad():
        logits = module(torch.tensor([prompt + output[:-1]])).logits[0, len(prompt) - 1 :]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(output)[:, None])[:, 0]


def logprobs(choice: dict[str, Any]) -> list[float]:
    return [one["logprob"] for one in choice["logprobs"]["content"]]


async def test_logprobs_of_ragged_batches_equal_a_plain_forward_pass(world: World, model_dir: Path) -> None:
    texts = ["a", "some words", "abcdefghij klm", "zz", "a longer one than all the others", "a"]
    with anyio.fail_after(30):
        early = asyncio.gather(*[world.chat(world.base, text, max_tokens=14) for text in texts])
        await asyncio.sleep(0)
        late = asyncio.gather(*[world.chat(world.base, text, max_tokens=9) for text in reversed(texts)])
        replies = [*await early, *await late]
    for reply in replies:
        (choice,) = reply["choices"]
        plain = full_forward(model_dir, choice["prompt_token_ids"], choice["token_ids"])
        torch.testing.assert_close(torch.tensor(logprobs(choice)), plain, atol=1e-4, rtol=0)


async def test_the_trainer_sees_the_ratios_of_fresh_samples_as_one(world: World) -> None:
    model = await world.fork("fork")
    replies = await asyncio.gather(*[world.chat("fork", "x" * length, n=3) for length in (1, 4, 11)])
    choices = [choice for reply in replies for choice in reply["choices"]]
    inputs = [as_trajectory(choice, reward=float(index)) for index, choice in enumerate(choices)]
    metrics = (await world.train(model, inputs=inputs)).json()["metrics"]
    assert metrics["ratio_mean"] == pytest.approx(1, abs=1e-4)
    assert metrics["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert metrics["kl_k3"] == pytest.approx(0, abs=1e-6)


async def test_a_seed_gives_the_same_tokens_whoever_shares_the_batch(world: World) -> None:
    alone = await world.chat(world.base, "seeded", seed=5, max_tokens=20)
    crowd = [world.chat(world.base, "others" * count, max_tokens=20) for count in range(1, 7)]
    among, *_ = await asyncio.gather(world.chat(world.base, "seeded", seed=5, max_tokens=20), *crowd)
    other = await world.chat(world.base, "seeded", seed=6, max_tokens=20)
    assert among["choices"][0]["token_ids"] == alone["choices"][0]["token_ids"]
    assert other["choices"][0]["token_ids"] != alone["choices"][0]["token_ids"]


async def test_choices_and_repetitions_without_a_seed_differ(world: World) -> None:
    reply = await world.chat(world.base, n=4, max_tokens=20)
    again = await world.chat(world.base, max_tokens=20)
    seen = [tuple(choice["token_ids"]) for choice in [*reply["choices"], *again["choices"]]]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert len(set(seen)) == 5


async def test_a_restarted_service_draws_the_same_for_the_same_requests(
    tmp_path: Path, model_dir: Path
) -> None:
    drawn = []
    for name in ("first", "second"):
        async with running(tmp_path / name, model_dir, seed=3) as world:
            drawn.append((await world.chat(world.base, max_tokens=20))["choices"][0]["token_ids"])
    assert drawn[0] == drawn[1]


async def test_temperature_zero_takes_the_most_likely_token(world: World, model_dir: Path) -> None:
    (choice,) = (await world.chat(world.base, temperature=0))["choices"]
    module = LlamaForCausalLM.from_pretrained(model_dir)
    ids = list(choice["prompt_token_ids"])
    for token in choice["token_ids"]:
        with torch.no_grad():
            assert int(module(torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids.append(token)
    plain = full_forward(model_dir, choice["prompt_token_ids"], choice["token_ids"])
    torch.testing.assert_close(torch.tensor(logprobs(choice)), plain, atol=1e-4, rtol=0)


def test_the_draw_follows_temperature_and_top_p() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    count = 20_000
    uniforms = torch.arange(count) / count
    for temperature, top_p, kept in ((1.0, 1.0, 4), (0.5, 1.0, 4), (1.0, 0.7, 2), (2.0, 0.5, 2)):
        wishes = (torch.full((count,), temperature), torch.full((count,), top_p))
        tokens, found, _ = draw(logits.expand(count, 4), uniforms, *wishes)
        expected = torch.softmax(logits / temperature, -1)
        expected[kept:] = 0
        expected /= expected.sum()
        shares = torch.bincount(tokens, minlength=4) / count
        torch.testing.assert_close(shares, expected, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.exp(), expected[tokens], atol=1e-5, rtol=0)


def test_a_uniform_just_below_one_never_draws_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, -math.inf]])
    tokens, *_ = draw(logits, torch.tensor([1.0]), torch.ones(1), torch.ones(1))
    assert int(tokens) < 3


async def test_generation_ends_with_the_context(world: World) -> None:
    reply = await world.chat(world.base, "a" * 50, max_tokens=1000, seed=1, temperature=0.01)
    (choice,) = reply["choices"]
    assert len(choice["prompt_token_ids"]) + len(choice["token_ids"]) <= CONTEXT
    assert choice["finish_reason"] in ("length", "stop")
    assert reply["usage"]["total_tokens"] == len(choice["prompt_token_ids"]) + len(choice["token_ids"])


async def test_the_end_token_is_an_action_but_not_text(world: World) -> None:
    replies = [await world.chat(world.base, f"q{index}", n=16, max_tokens=40) for index in range(3)]
    choices = [choice for reply in replies for choice in reply["choices"]]
    ended = [choice for choice in choices if choice["token_ids"][-1] == 0]
    assert ended
    for choice in ended:
        assert choice["finish_reason"] == "stop"
        assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])
        assert "<end>" not in choice["message"]["content"]


async def test_a_stop_string_cuts_the_text_but_not_the_tokens(world: World) -> None:
    (plain,) = (await world.chat(world.base, seed=9, max_tokens=30))["choices"]
    text = plain["message"]["content"]
    stop = text[3:5]
    (cut,) = (await world.chat(world.base, seed=9, max_tokens=30, stop=["never", stop]))["choices"]
    assert cut["message"]["content"] == text[: text.find(stop)]
    assert cut["finish_reason"] == "stop"
    assert cut["token_ids"] == plain["token_ids"][: len(cut["token_ids"])]
    assert len(cut["token_ids"]) > len(cut["message"]["content"])


async def test_top_logprobs_are_the_likeliest_tokens_that_can_be_drawn(world: World) -> None:
    (choice,) = (await world.chat(world.base, top_logprobs=3, temperature=0))["choices"]
    for one in choice["logprobs"]["content"]:
        first, *others = one["top_logprobs"]
        assert (first["token"], first["logprob"]) == (one["token"], one["logprob"])
        assert [other["logprob"] for other in others] == sorted(
            (other["logprob"] for other in others), reverse=True
        )
    # A nucleus of one token has no second one: its probability would be no finite logarithm.
    (narrow,) = (await world.chat(world.base, top_logprobs=3, top_p=0.001))["choices"]
    assert all(len(one["top_logprobs"]) == 1 for one in narrow["logprobs"]["content"])


async def test_a_completion_in_flight_stays_on_the_snapshot_it_began_with(world: World) -> None:
    model = await world.fork("fork")
    before = await world.chat("fork", seed=3, max_tokens=55)
    assert (
        await world.train(model, inputs=[dict(one, reward=i) for i, one in enumerate(PAIRS)])
    ).status_code == 200
    async with asyncio.TaskGroup() as group:
        flying = [group.create_task(world.chat("fork", seed=3, max_tokens=55)) for _ in range(24)]
        stepped = group.create_task(world.step(model))
    after = await world.chat("fork", seed=3, max_tokens=55)
    node = stepped.result().json()["checkpoint_id"]
    assert before["system_fingerprint"] == f"initial:{model}"
    assert after["system_fingerprint"] == node
    assert after["choices"][0]["token_ids"] != before["choices"][0]["token_ids"]
    for one in flying:
        expected = after if one.result()["system_fingerprint"] == node else before
        assert one.result()["choices"][0]["token_ids"] == expected["choices"][0]["token_ids"]


async def test_old_snapshots_and_caches_do_not_wait_for_a_collection_of_garbage(world: World) -> None:
    assert world.service
    model = await world.fork("fork")
    gc.collect()
    gc.disable()
    try:
        snapshots = []
        for _ in range(3):
            await world.chat("fork", n=5, max_tokens=20)
            await world.chat("fork", n=5, max_tokens=20, checkpoint=f"initial:{model}")
            snapshots.append(_a_parameter(await world.service.trained(model)))
            # Trained by the thread that samples, so by then the cache of the last batch is not in use.
            await world.train(model, inputs=[dict(one, reward=i) for i, one in enumerate(PAIRS)])
            await world.step(model)
        assert [snapshot() for snapshot in snapshots] == [None] * 3
        assert not [one for one in gc.get_objects() if type(one) in (RaggedCache, Cache)]
    finally:
        gc.enable()


def _a_parameter(trained: TrainedModel) -> weakref.ref[torch.Tensor]:
    return weakref.ref(next(iter(trained.weights.tensors.values())))


PAIRS = [
    {
        "samples": [
            {"prompt_token_ids": [1, 5, 2], "output_token_ids": [token] * 3, "output_logprobs": [-3.0] * 3}
        ]
    }
    for token in (7, 9)
]


async def test_a_client_that_goes_away_frees_its_place(world: World) -> None:
    assert world.service
    await world.chat(world.base)
    waiting = asyncio.create_task(world.chat(world.base, n=100, max_tokens=60))
    while not any(engine.sampler.busy for engine in world.service.pool.loaded()):  # noqa: ASYNC110
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with anyio.fail_after(10):
        await world.chat(world.base)
    assert (await world.http.get("/health")).json() == {"status": "ok", "sampling": 0, "waiting": 0}


async def test_a_disconnect_ends_the_sampling(world: World) -> None:
    assert world.service
    message = {"role": "user", "content": "hello"}
    body = json.dumps({"model": world.base, "messages": [message], "n": 64, "max_tokens": 60}).encode()
    incoming = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])
    outgoing: list[Any] = []

    async def receive() -> Any:
        return next(incoming)

    async def send(event: Any) -> None:
        outgoing.append(event)

    scope = http_scope("/chat/completions")
    with anyio.fail_after(10):
        await world.app(scope, receive, send)
    assert outgoing[0]["status"] == 499
    assert (await world.http.get("/health")).json() == {"status": "ok", "sampling": 0, "waiting": 0}


def http_scope(path: str) -> dict[str, Any]:
    """What a server tells an application about a request."""
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer secret")],
    }


async def test_a_full_queue_answers_503_with_retry_after(tmp_path: Path, model_dir: Path) -> None:
    async with running(tmp_path, model_dir, local={"max_queue": 8}) as world:
        reply = await world.ask(world.base, n=9)
        assert reply.status_code == 503
        assert int(reply.headers["Retry-After"]) > 0
        assert "queue is full" in reply.json()["error"]["message"]
        assert (await world.chat(world.base, n=8))["choices"]


@pytest.mark.parametrize(
    ("more", "status", "complaint"),
    [
        ({"model": "nobody"}, 404, "no model 'nobody'"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"n": 0}, 400, "n:"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "image_url"),
        ({"messages": [{"role": "user", "content": "a" * 80}]}, 400, "context"),
        ({"top_logprobs": 2, "logprobs": False}, 400, "top_logprobs needs logprobs"),
        ({"top_logprobs": 21}, 400, "top_logprobs"),
    ],
)
async def test_a_wrong_request_is_answered_in_openais_shape(
    world: World, more: dict[str, Any], status: int, complaint: str
) -> None:
    reply = await world.ask(more.pop("model", world.base), **more)
    assert reply.status_code == status
    assert complaint in reply.json()["error"]["message"]
    assert reply.headers["x-should-retry"] == "false"


async def test_unknown_keys_parts_and_nulls_are_taken(world: World) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    odd = {"messages": [{"role": "user", "content": parts}], "metadata": {}, "top_p": None, "stop": None}
    first = await world.chat(world.base, seed=1)
    second = await world.chat(world.base, seed=1, **odd)
    assert first["choices"][0]["token_ids"] == second["choices"][0]["token_ids"]
