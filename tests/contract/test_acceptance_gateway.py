"""What a local server has to do to satisfy the SDK, the lines about the gateway and about reporting.

The docstring of each test quotes the line's subject. Everything goes over HTTP to ``serve``.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import anyio
import httpx
import pytest

from tests.contract.conftest import Contract, as_sample

# Gateway


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
def test_a_choice_carries_ids_and_aligned_logprobs(contract: Contract, path: str) -> None:
    """POST `/chat/completions` (and `/v1/...`): never stream, ids on the choice, `logprobs.content` 1:1."""
    body = {"model": "tiny", "stream": False, "messages": [{"role": "user", "content": "12+3="}],
            "logprobs": True, "max_tokens": 6, "temperature": 0.7, "return_token_ids": True}  # fmt: skip

    reply = contract.post(path, body)
    plain = contract.post(path, {"model": "tiny", "messages": body["messages"], "max_tokens": 6})

    assert reply.headers["content-type"] == "application/json"
    [choice] = reply.json()["choices"]
    assert choice["prompt_token_ids"]
    assert choice["token_ids"]
    assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])
    assert all(token["logprob"] <= 0 for token in choice["logprobs"]["content"])
    assert "token_ids" not in plain.json()["choices"][0]


def test_a_checkpoint_is_sampled_by_name_while_another_is_head(contract: Contract) -> None:
    """Slug or `checkpoint` routing."""
    fork = contract.fork()
    made = [contract.step(fork)["checkpoint_id"] for _ in range(2)]
    exact = {"temperature": 0.0, "max_tokens": 6}

    head = contract.chat(fork["model_name"], **exact)
    first, second = (contract.chat(fork["model_name"], checkpoint=one, **exact) for one in made)
    body = {"model": fork["model_name"], "messages": [{"role": "user", "content": "1"}], "checkpoint": "none"}
    unknown = contract.post("/chat/completions", body)

    assert second["logprobs"] == head["logprobs"]
    assert first["logprobs"] != head["logprobs"]
    assert unknown.status_code == 404


def test_of_a_repeated_turn_the_reply_delivered_last_is_recorded(contract: Contract) -> None:
    """Record `Trace-Id` -> samples; on duplicates keep the reply actually delivered last."""
    fork = contract.fork()
    slug, trace = fork["model_name"], uuid.uuid4().hex
    replies = [contract.chat(slug, trace=trace, temperature=3.0, max_tokens=20) for _ in range(2)]
    contract.post(f"/v2/trace/{trace}/exit", {"status": "completed", "reward": 1.0})

    told = contract.train(fork, "forward", {"inputs": [trace], "reward_scale": 1.0})

    [first, last] = map(as_sample, replies)
    [datum] = told.json()["data"]
    sampled = [q for q, flag in zip(datum["sampling_logprobs"], datum["mask"], strict=True) if flag]
    assert first["output_logprobs"] != last["output_logprobs"]
    assert sampled == pytest.approx(last["output_logprobs"])


async def test_a_full_service_says_when_to_come_back(contract: Contract) -> None:
    """Busy: 503 + `Retry-After` (1..120)."""
    key = {"Authorization": f"Bearer {contract.addresses['HUD_API_KEY']}"}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "1"}], "n": 128, "max_tokens": 100}
    busy: list[httpx.Response] = []

    limits = httpx.Limits(max_connections=None)
    url = contract.addresses["HUD_GATEWAY_URL"]
    async with httpx.AsyncClient(base_url=url, headers=key, limits=limits, timeout=60) as http:
        with anyio.fail_after(60):
            calls = [asyncio.create_task(http.post("/chat/completions", json=body)) for _ in range(48)]
            for call in asyncio.as_completed(calls):
                reply = await call
                if reply.status_code != 200:
                    busy.append(reply)
                    break
            # Nobody waits for the rest, so the service drops it.
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    assert busy[0].status_code == 503
    assert 1 <= int(busy[0].headers["Retry-After"]) <= 120
    assert busy[0].json()["error"]["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "no-such-model"},
        {"messages": []},
        {"messages": [{"role": "user", "content": "1" * 5000}]},
        {"max_tokens": "many"},
    ],
)
def test_a_request_that_can_never_work_is_not_repeated(contract: Contract, wrong: dict[str, Any]) -> None:
    """Fatal: 4xx other than 408/409/429, or any status with `x-should-retry: false`."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "1"}], **wrong}

    reply = contract.post("/chat/completions", body)

    assert 400 <= reply.status_code < 500
    assert reply.status_code not in (408, 409, 429) or reply.headers["x-should-retry"] == "false"
    assert reply.json()["error"]["message"]


def test_a_promotion_is_seen_by_the_next_request(contract: Contract) -> None:
    """Promotion must be visible to the next request for the slug as soon as optim-step has replied."""
    fork = contract.fork()
    exact = {"temperature": 0.0, "max_tokens": 6}
    seen = [contract.chat(fork["model_name"], **exact)["logprobs"]]

    for _ in range(3):
        contract.step(fork)
        seen.append(contract.chat(fork["model_name"], **exact)["logprobs"])

    assert all(before != after for before, after in itertools.pairwise(seen))


# Reporting


def test_reports_are_answered_with_an_object(contract: Contract) -> None:
    """Answer POST `/v2/trace/job/*/enter`, ... `/v3/api/sdk-events/cli` with 200 `{}`-like JSON."""
    job, trace = uuid.uuid4().hex, uuid.uuid4().hex
    sample = {"prompt_token_ids": [1, 2], "output_token_ids": [3], "output_logprobs": [-0.5]}
    span = {
        "name": "step.agent", "trace_id": trace, "span_id": "0" * 16, "parent_span_id": None,
        "kind": "INTERNAL", "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:01Z",
        "status_code": "OK", "status_message": None, "events": [],
        "attributes": {
            "hud.schema": "hud.step.v1", "hud.task_run_id": trace,
            "hud.payload": {"step_id": 2, "source": "agent", "content": "15", "sample": sample},
        },
    }  # fmt: skip
    bodies: dict[str, dict[str, Any]] = {
        f"/v2/trace/job/{job}/enter": {"name": "sums", "group": 8},
        f"/v2/trace/{trace}/enter": {"job_id": job, "group_id": "g", "task_slug": "s", "model": "tiny"},
        f"/v2/trace/{trace}/exit": {
            "status": "completed", "reward": 1.0, "stop_reason": "done",
            "evaluation_result": {"done": True, "info": {}, "isError": False, "score": 1.0},
        },
        f"/v3/api/trace/{trace}/telemetry-upload": {"telemetry": [span]},
        "/v3/api/sdk-events/cli": {"event": "models"},
    }  # fmt: skip

    for path, body in bodies.items():
        reply = contract.post(path, body)
        assert reply.status_code == 200, f"{path}: {reply.text}"
        assert isinstance(reply.json(), dict)


@pytest.mark.parametrize("key", [{}, {"Authorization": "Bearer wrong"}])
def test_everything_but_events_needs_the_key(contract: Contract, key: dict[str, str]) -> None:
    """Auth: Bearer on everything except sdk-events; 401 `{"detail"}` on mismatch."""
    url, anything = contract.addresses["HUD_API_URL"], uuid.uuid4().hex
    posts = [f"/v1/models/{anything}/train/optim-step", "/v2/models/fork", "/chat/completions",
             f"/v2/trace/{anything}/enter", f"/v3/api/trace/{anything}/telemetry-upload"]  # fmt: skip

    with httpx.Client(base_url=url, headers=key) as http:
        refused = [http.get("/v2/models"), *(http.post(path, json={}) for path in posts)]
        event = http.post("/v3/api/sdk-events/cli", json={})

    assert {reply.status_code for reply in refused} == {401}
    assert all(reply.json()["detail"] for reply in refused)
    assert event.status_code == 200
