"""Conversations whose later turns are given as token ids."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.local.local_world import World
from tests.local.scripted import PLAIN, says, serving, shown
from tests.local.test_tools import HERMES, PASS, TOOLS

USER = {"role": "user", "content": "hello"}


def following(choice: dict[str, Any], *, counted: int) -> dict[str, Any]:
    """What an agent sends along to continue."""
    ids = [*choice["prompt_token_ids"], *choice["token_ids"]]
    return {"prompt_token_ids": ids, "continuation_from": counted}


async def turn(world: World, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    reply = await world.chat(world.base, messages=messages, **more)
    choice: dict[str, Any] = reply["choices"][0]
    return choice


@pytest.mark.parametrize("system", [0, 1, 2])
async def test_every_turn_extends_the_one_before_token_for_token(tmp_path: Path, system: int) -> None:
    # What is sampled as one piece would be tokenised letter by letter if it came back as text.
    model = says(tmp_path / "model", ["one", "two"])
    messages: list[dict[str, Any]] = [{"role": "system", "content": "be"}] * system + [USER]
    async with serving(tmp_path, model) as world:
        choice = await turn(world, messages, temperature=0)
        for number in range(4):
            messages += [choice["message"], {"role": "user", "content": f"more {number}"}]
            more = following(choice, counted=len(messages) - 1 - system)
            after = await turn(world, messages, temperature=0, **more)
            extension = after["prompt_token_ids"][len(more["prompt_token_ids"]) :]
            assert after["prompt_token_ids"][: len(more["prompt_token_ids"])] == more["prompt_token_ids"]
            assert shown(world, extension) == f"<user>more {number}<end><model>"
            choice = after


async def test_random_tokens_are_continued_as_they_were_sampled(world: World) -> None:
    random_ = random.Random(0)
    for _ in range(5):
        first = await turn(world, [USER], seed=random_.getrandbits(32))
        messages = [USER, first["message"], {"role": "user", "content": "x"}]
        more = following(first, counted=2)
        second = await turn(world, messages, **more)
        assert second["prompt_token_ids"] == [*more["prompt_token_ids"], *await tail(world, "x")]


async def tail(world: World, text: str) -> list[int]:
    """The tokens of one more user message: this model's template ends no turn."""
    alone = await turn(world, [{"role": "user", "content": text}])
    ids: list[int] = alone["prompt_token_ids"]
    return ids


async def test_a_turn_that_was_cut_is_ended_in_the_next_prompt(tmp_path: Path) -> None:
    async with serving(tmp_path, says(tmp_path / "model", ["one", "two"])) as world:
        cut = await turn(world, [USER], temperature=0, max_tokens=1)
        assert cut["finish_reason"] == "length"
        more = following(cut, counted=2)
        after = await turn(world, [USER, cut["message"], {"role": "user", "content": "go"}], **more)
        extension = after["prompt_token_ids"][len(more["prompt_token_ids"]) :]
        assert shown(world, extension) == "<end><user>go<end><model>"


async def test_results_of_tools_continue_a_turn_with_calls(tmp_path: Path) -> None:
    pieces = ["<tool_call>", '{"name": "pass"}', "</tool_call>"]
    # Whoever renders the call again does not write what was sampled.
    async with serving(tmp_path, says(tmp_path / "model", pieces, template=HERMES)) as world:
        first = await turn(world, [USER], temperature=0, tools=TOOLS)
        (call,) = first["message"]["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": "ok"}
        more = following(first, counted=2)
        said = {key: value for key, value in first["message"].items() if value is not None}
        second = await turn(world, [USER, said, result], temperature=0, tools=TOOLS, **more)
        extension = second["prompt_token_ids"][len(more["prompt_token_ids"]) :]
        assert shown(world, extension) == "<tool>ok<end><model>"
        forced = await turn(world, [USER, said, result], tools=[PASS], tool_choice="required", **more)
        extension = forced["prompt_token_ids"][len(more["prompt_token_ids"]) :]
        assert shown(world, extension) == ('<tool>ok<end><model><tool_call>\n{"name": "pass", "arguments":')


@pytest.mark.parametrize("template", ["{% for m in messages[-1:] %}<user>{{ m.content }}{% endfor %}<model>"])
async def test_a_template_that_hides_replies_renders_the_conversation_again(
    tmp_path: Path, template: str
) -> None:
    async with serving(tmp_path, says(tmp_path / "model", ["one"], template=template)) as world:
        first = await turn(world, [USER])
        messages = [USER, first["message"], {"role": "user", "content": "x"}]
        second = await turn(world, messages, **following(first, counted=2))
        assert shown(world, second["prompt_token_ids"]) == "<user>x<model>"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"prompt_token_ids": [1, 5]}, "come together"),
        ({"continuation_from": 2}, "come together"),
        ({"prompt_token_ids": [], "continuation_from": 2}, "prompt_token_ids"),
        ({"prompt_token_ids": [1, 9999], "continuation_from": 2}, "9999 is outside the vocabulary"),
        ({"prompt_token_ids": [1, -1], "continuation_from": 2}, "-1 is outside the vocabulary"),
        ({"prompt_token_ids": [1, 5], "continuation_from": 1}, "continuation_from: 1"),
        ({"prompt_token_ids": [1, 5], "continuation_from": 3}, "continuation_from: 3"),
        ({"prompt_token_ids": [1, 5], "continuation_from": 0}, "continuation_from"),
        ({"prompt_token_ids": [1, 5] * 40, "continuation_from": 2}, "context"),
    ],
)
async def test_a_continuation_that_does_not_fit_is_refused(
    world: World, more: dict[str, Any], complaint: str
) -> None:
    messages = [USER, {"role": "assistant", "content": "a"}, USER]
    reply = await world.ask(world.base, messages=messages, **more)
    assert reply.status_code == 400
    assert complaint in reply.json()["error"]["message"]


def test_the_template_of_these_tests_ends_turns() -> None:
    assert PLAIN.count("<end>") == 1
