"""Chat completions as server-sent events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from hud_orchestrator.local.bases.bytes_tokenizer import bytes_tokenizer
from tests.local.local_world import World
from tests.local.scripted import save_scripted, says, serving
from tests.local.test_sampling import http_scope
from tests.local.test_tools import GOOD, HERMES, TOOLS


async def chunks(world: World, model: str, **more: Any) -> list[dict[str, Any]]:
    reply = await world.ask(model, stream=True, **more)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    *events, done, rest = reply.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def joined(events: list[dict[str, Any]], index: int = 0) -> tuple[list[str], list[Any], list[str]]:
    """Pieces of content, tool calls and finish reasons of one choice."""
    choices = [one for event in events for one in event["choices"] if one["index"] == index]
    assert choices[0]["delta"]["role"] == "assistant"
    contents = [one["delta"]["content"] for one in choices if one["delta"].get("content")]
    calls = [call for one in choices for call in one["delta"].get("tool_calls", [])]
    return contents, calls, [one["finish_reason"] for one in choices if one["finish_reason"]]


async def test_what_is_streamed_is_what_is_answered_at_once(world: World) -> None:
    model = await world.fork("fork")
    assert model
    options: dict[str, Any] = {"seed": 4, "max_tokens": 30, "n": 3}
    whole = await world.chat("fork", **options)
    events = await chunks(world, "fork", stream_options={"include_usage": True}, **options)
    for choice in whole["choices"]:
        contents, calls, reasons = joined(events, choice["index"])
        assert "".join(contents) == choice["message"]["content"]
        assert (calls, reasons) == ([], [choice["finish_reason"]])
        (last,) = [
            one
            for event in events
            for one in event["choices"]
            if one["index"] == choice["index"] and one["finish_reason"]
        ]
        assert last["token_ids"] == choice["token_ids"]
        assert last["prompt_token_ids"] == choice["prompt_token_ids"]
        assert last["logprobs"] == choice["logprobs"]
    assert events[-1]["usage"] == whole["usage"]
    assert events[-1]["choices"] == []
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert {event["system_fingerprint"] for event in events} == {whole["system_fingerprint"]}
    assert len({event["id"] for event in events}) == 1


async def test_a_stop_string_never_shows_not_even_in_part(world: World) -> None:
    (plain,) = (await world.chat(world.base, seed=9, max_tokens=30))["choices"]
    text = plain["message"]["content"]
    stop = text[3:6]
    contents, _, reasons = joined(
        await chunks(world, world.base, seed=9, max_tokens=30, stop=["never", stop])
    )
    assert "".join(contents) == text[: text.find(stop)]
    assert reasons == ["stop"]


async def test_a_character_is_never_split(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer(context=128)
    # No byte twice: each decides the next.
    text = "a\u00e9\u6f22\U0001f986z"
    model = save_scripted(tmp_path / "model", tokenizer, tokenizer.encode(f"<|assistant|>{text}<|end|>"))
    async with serving(tmp_path, model) as world:
        contents, _, reasons = joined(await chunks(world, world.base, temperature=0, max_tokens=50))
        assert "".join(contents) == text
        assert not any("\ufffd" in piece for piece in contents)
        assert reasons == ["stop"]
        # Cut inside a character, the rest is told as it is, as in a reply that does not stream.
        cut = {"temperature": 0, "max_tokens": 2}
        contents, _, _ = joined(await chunks(world, world.base, **cut))
        assert "".join(contents) == (await world.chat(world.base, **cut))["choices"][0]["message"]["content"]


async def test_calls_are_streamed_whole_after_the_text_before_them(tmp_path: Path) -> None:
    pieces = ["I ", "move.\n", *GOOD]
    async with serving(tmp_path, says(tmp_path / "model", pieces, template=HERMES)) as world:
        events = await chunks(world, world.base, tools=TOOLS, temperature=0, max_tokens=50)
    contents, (call,), reasons = joined(events)
    assert "".join(contents) == "I move."
    assert call["index"] == 0
    assert call["function"] == {"name": "move", "arguments": '{"row": 1}'}
    assert reasons == ["tool_calls"]


async def test_an_error_before_the_stream_has_a_status_of_its_own(world: World) -> None:
    reply = await world.ask("nobody", stream=True)
    assert reply.status_code == 404
    assert "nobody" in reply.json()["error"]["message"]


async def test_an_error_in_the_stream_is_an_event(world: World) -> None:
    assert world.service
    await world.chat(world.base)
    (engine,) = world.service.pool.loaded()
    asking = asyncio.create_task(world.ask(world.base, stream=True, n=64, max_tokens=60))
    while engine.sampler.load()[0] < 2 and not asking.done():  # noqa: ASYNC110
        await asyncio.sleep(0)
    engine.close()
    with anyio.fail_after(10):
        reply = await asking
    *_, last, _ = reply.text.split("\n\n")
    assert "stopping" in json.loads(last.removeprefix("data: "))["error"]["message"]


@pytest.mark.parametrize("leaves_at", ["http.response.start", "http.response.body"])
async def test_a_client_that_leaves_withdraws_what_is_streamed(world: World, leaves_at: str) -> None:
    assert world.service
    message = {"role": "user", "content": "hello"}
    body = json.dumps(
        {"model": world.base, "messages": [message], "n": 64, "max_tokens": 60, "stream": True}
    ).encode()
    left, asked = asyncio.Event(), iter([{"type": "http.request", "body": body}])

    async def receive() -> Any:
        for event in asked:
            return event
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        if event["type"] == leaves_at:
            left.set()

    scope = http_scope("/chat/completions")
    scope["headers"].append((b"trace-id", b"abc"))
    with anyio.fail_after(10):
        await world.app(scope, receive, send)
    assert (await world.http.get("/health")).json() == {"status": "ok", "sampling": 0, "waiting": 0}
    assert (await world.http.get("/v2/trace/abc")).status_code == 404
