"""Tools of an environment, called as an agent calls them, in a process and in the daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.agents.notes import Notes
from hud_orchestrator.agents.own import OwnAgent
from hud_orchestrator.agents.protocol import Message, ToolCall, Transcript, Turn
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.records import Outcome, Task
from hud_orchestrator.steps import TEXT_LIMIT
from hud_orchestrator.toolbox import ToolResult, ToolSpec

SOURCE = '''
from typing import Literal
from hud_orchestrator import Environment

env = Environment("shop")

@env.tool()
async def put(what: str, count: int = 1) -> dict:
    """Put something into the basket."""
    env.state.basket[what] = env.state.basket.get(what, 0) + count
    return env.state.basket

@env.tool("look around!")
def look(where: Literal["left", "right"]) -> str:
    return f"nothing on the {where}"

@env.tool()
async def burn() -> str:
    raise RuntimeError("no matches")

@env.template()
async def shop(wanted: str):
    env.state.basket = {}
    answer = yield f"buy {wanted}"
    yield {"score": float(env.state.basket.get(wanted, 0) == 2), "said": answer}
'''
TASK = Task(env="shop", id="shop", args={"wanted": "tea"}, slug="tea")


@pytest.fixture(params=["process", "in-process"])
async def placement(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Placement]:
    source = tmp_path / "shop.py"
    source.write_text(SOURCE)
    async with AsyncExitStack() as stack:
        if request.param == "in-process":
            yield InProcess(source, teardown_s=1)
            return
        log = stack.enter_context((tmp_path / "log").open("wb"))
        yield await stack.enter_async_context(
            ProcessPool(source, log_file=log, recycle_after=10, teardown_s=1)
        )


class Script:
    """A policy that says what it was told to, and keeps what it was asked."""

    def __init__(self, *turns: str | list[tuple[str, str]]) -> None:
        self._turns = iter(turns)
        self.asked: list[list[Message]] = []
        self.offered: Sequence[ToolSpec] = ()

    async def sample(self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = ()) -> Turn:
        self.asked.append(list(messages))
        self.offered = tools
        turn = next(self._turns)
        said = turn if isinstance(turn, str) else ""
        calls = [] if isinstance(turn, str) else turn
        return Turn(
            text=said,
            tool_calls=tuple(
                ToolCall(id=str(n), name=name, arguments=a) for n, (name, a) in enumerate(calls)
            ),
            message={"role": "assistant", "content": said},
        )


async def play(placement: Placement, script: Script, **more: Any) -> tuple[dict[str, Any], Transcript]:
    transcript = Transcript()
    agent = ChatAgent(**{"system_prompt": None, "max_turns": 5, **more})
    async with placement.episode(TASK) as episode:
        await agent.act(episode, script, transcript)
        return dict(await episode.grade(transcript.answer)), transcript


async def test_tools_share_the_state_of_their_episode_and_the_grader_sees_it(placement: Placement) -> None:
    for _ in range(2):  # a second episode begins with a basket of its own
        script = Script([("put", '{"what": "tea"}'), ("put", '{"what": "tea"}')], "done")
        grade, transcript = await play(placement, script)

        assert grade == {"score": 1.0, "said": "done"}
        assert transcript.ended is Outcome.FINISHED
    *_, first, second = script.asked[1]
    assert first == {"role": "tool", "tool_call_id": "0", "content": '{"tea": 1}'}
    assert second["content"] == '{"tea": 2}'


async def test_a_tool_is_offered_under_a_name_that_a_gateway_takes_with_what_it_takes(
    placement: Placement,
) -> None:
    script = Script("nothing")
    await play(placement, script)

    by_name = {tool.name: tool for tool in script.offered}
    renamed = next(name for name in by_name if name.startswith("look_around"))
    assert set(by_name) == {"put", "burn", renamed}
    assert by_name["put"].description == "Put something into the basket."
    assert by_name["put"].parameters == {
        "type": "object",
        "properties": {"what": {"type": "string"}, "count": {"type": "integer", "default": 1}},
        "required": ["what"],
    }
    assert by_name[renamed].parameters["properties"]["where"]["enum"] == ["left", "right"]

    again = Script([(renamed, '{"where": "left"}')], "bye")
    await play(placement, again)
    assert again.asked[1][-1]["content"] == "nothing on the left"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("put", '{"what": ', "are not JSON"),
        ("put", "[1]", "must be a JSON object"),
        ("put", '{"colour": "red"}', "TypeError"),
        ("steal", "{}", "there is no tool 'steal'"),
        ("burn", "{}", "RuntimeError: no matches"),
    ],
)
async def test_what_goes_wrong_with_a_call_is_for_the_model_to_read(
    placement: Placement, name: str, arguments: str, words: str
) -> None:
    script = Script([(name, arguments)], "oh")
    grade, _ = await play(placement, script)

    assert words in script.asked[1][-1]["content"]
    assert grade["said"] == "oh"


async def test_an_agent_that_uses_up_its_turns_on_tools_is_graded_on_what_it_did(
    placement: Placement,
) -> None:
    twice = [("put", '{"what": "tea", "count": 1}')]
    grade, transcript = await play(placement, Script(twice, twice), max_turns=2)

    assert transcript.ended is Outcome.MAX_TURNS
    assert grade == {"score": 1.0, "said": None}


async def test_what_happened_is_noted_in_order_and_every_message_once(placement: Placement) -> None:
    script = Script([("put", '{"what": "tea"}'), ("steal", "{}")], [("put", "[1]")], "done")
    _, transcript = await play(placement, script, system_prompt="be brief")

    steps = transcript.notes.steps
    # The turns themselves are noted by the policy, which this script stands in for.
    assert [step.source for step in steps] == ["user", "tool", "tool", "tool"]
    assert [message["content"] for message in steps[0].messages] == ["be brief", "buy tea"]
    called = {step.call["name"]: step.result for step in steps[1:3] if step.call and step.result}
    assert called["put"] == {"content": [{"type": "text", "text": '{"tea": 1}'}], "isError": False}
    assert called["steal"]["isError"] is True
    assert steps[3].call == {"id": "0", "name": "put", "arguments": "[1]"}
    assert all(0 <= step.began <= step.ended for step in steps)


async def test_what_an_agent_of_ones_own_tells_the_model_is_noted_once_however_it_says_it(
    placement: Placement,
) -> None:
    class Own:
        async def act(self, episode: Any, policy: Any) -> str:
            said = [*episode.prompt]
            for _ in range(3):
                turn = await policy.sample(said)
                result = await episode.call_tool("put", {"what": "tea"})
                told = {"role": "tool", "tool_call_id": "0", "content": str(result.content)}
                # A window that slides: the conversation is not what it was with something after it.
                said = [
                    *said[-1:],
                    {"role": "assistant", "content": turn.text},
                    told,
                    {"role": "user", "content": "go"},
                ]
            return "done"

    transcript = Transcript()
    async with placement.episode(TASK) as episode:
        await OwnAgent(Own).act(episode, Script("a", "b", "c"), transcript)

    steps = transcript.notes.steps
    assert [step.source for step in steps] == ["user", "tool", "user", "tool", "tool"]
    assert [message["content"] for step in steps for message in step.messages] == ["buy tea", "go"]
    assert steps[1].call == {"id": "1", "name": "put", "arguments": '{"what": "tea"}'}


async def test_images_and_long_texts_are_cut_where_they_are_noted_and_say_so() -> None:
    notes = Notes()
    image = {"type": "image", "data": "A" * 50_000, "mimeType": "image/png"}
    result = ToolResult(content=[image, {"type": "text", "text": "b" * (TEXT_LIMIT + 5)}])
    for _ in range(200):
        notes.called({"id": "1", "name": "look", "arguments": "{}"}, result, since=notes.began)

    first, last = notes.steps[0].result, notes.steps[-1].result
    assert first
    assert last
    assert first["content"][0]["text"] == "[image, 50000 characters]"
    assert first["content"][1]["text"].endswith("b [... 5 more characters]")
    assert len(first["content"][1]["text"]) < TEXT_LIMIT + 50
    # All texts of an episode together are bounded too.
    assert len(last["content"][1]["text"]) < 300
