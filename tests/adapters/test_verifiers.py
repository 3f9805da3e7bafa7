"""Environments that are written for the ``verifiers`` library, played by replies that are written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

pytest.importorskip("verifiers.v1", reason="needs the extra verifiers")

from hud_orchestrator.adapters.verifiers import environment, taskset
from hud_orchestrator.environments.template import TaskRow
from tests.adapters.driving import played

CAPITALS = """
import verifiers.v1 as vf

class Config(vf.TasksetConfig):
    countries: int = 3

class Data(vf.TaskData):
    answer: str

class Capital(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward(weight=0.75)
    async def right(self, trace) -> float:
        return float(self.data.answer in trace.last_reply)

    @vf.reward(weight=0.25)
    async def brief(self, trace) -> float:
        return float(len(trace.last_reply) < 10)

    @vf.metric
    async def letters(self, trace) -> float:
        return len(trace.last_reply)

KNOWN = (("France", "Paris"), ("Italy", "Rome"), ("Peru", "Lima"), ("Norway", "Oslo"))

class Capitals(vf.Taskset[Capital, Config]):
    def load(self):
        for country, capital in KNOWN[: self.config.countries]:
            data = {"prompt": f"Capital of {country}?", "system_prompt": "Be brief.", "name": country}
            yield Capital(Data(**data, answer=capital), self.config.task)

__all__ = ["Capitals"]
"""
GUESSING = """
import itertools
import verifiers.v1 as vf

class Number(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    @vf.stop
    async def enough(self, trace: vf.Trace) -> bool:
        return trace.last_reply == "enough"

class Numbers(vf.Taskset[Number, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        for number in itertools.count(1):
            yield Number(vf.TaskData(prompt="Guess.", name=str(number)), self.config.task)

class GuessingConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()

class Guessing(vf.Env[GuessingConfig]):
    async def run(self, task, agents):
        if task.data.name == "13":
            raise RuntimeError("unlucky")
        async with agents.player.interaction(task) as talk:
            reply = await talk.turn()
            while not reply.terminated and reply.last_reply != task.data.name:
                reply = await talk.turn("higher" if reply.last_reply < task.data.name else "lower")
        talk.trace.record_reward("found", float(not reply.terminated) / talk.trace.num_turns, 1.0)

__all__ = ["Numbers", "Guessing"]
"""
OTHERS = """
import verifiers.v1 as vf

class Boxed(vf.Task[vf.TaskData, vf.State, vf.TaskConfig]):
    @vf.reward
    async def ran(self, trace, runtime) -> float:
        return 1.0

class Boxes(vf.Taskset[Boxed, vf.TasksetConfig]):
    def load(self):
        yield Boxed(vf.TaskData(prompt="x"), self.config.task)

__all__ = ["Boxes"]
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"vf_capitals": CAPITALS, "vf_guessing": GUESSING, "vf_boxes": OTHERS}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))


async def graded(row: TaskRow, *replies: str) -> tuple[list[str], dict[str, Any]]:
    with anyio.fail_after(30):
        return await played(environment.__file__, row, *replies)


async def test_a_task_is_asked_with_its_system_prompt_and_graded_by_its_rewards() -> None:
    _, train, heldout = taskset("vf-capitals", heldout=1)
    assert [row.columns for row in heldout] == [{"taskset": "vf-capitals", "name": "France"}]
    assert len({row.slug for row in (*train, *heldout)}) == 3  # whether the library numbers them or not

    heard, grade = await graded(train[0], "It is Rome of course")
    assert heard == ["Be brief."]  # the first of two messages
    assert grade["score"] == 0.75
    assert {s["name"]: (s["value"], s["weight"]) for s in grade["subscores"]} == {
        "right": (1, 0.75), "brief": (0, 0.25)
    }  # fmt: skip
    assert grade["info"]["metrics"] == {"letters": 20}


async def test_an_environment_of_several_turns_converses_until_it_has_enough() -> None:
    row = taskset("vf-guessing", size=9, heldout=0).train[4]

    heard, grade = await graded(row, "3", "8", "5")
    assert heard == ["Guess.", "higher", "lower"]
    assert grade["score"] == pytest.approx(1 / 3)

    _, grade = await graded(row, "3", "enough")
    assert (grade["score"], grade["info"]["stopped"]) == (0, "enough")
    _, grade = await graded(row, "3")
    assert (grade["score"], grade["info"]["stopped"]) == (0, "cut_short")


async def test_an_environment_that_raises_is_no_reward() -> None:
    row = taskset("vf-guessing", size=13, heldout=0).train[12]
    with pytest.raises(Exception, match="unlucky"):
        await graded(row, "3")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("vf-nowhere", {}, "does not load 'vf-nowhere'"),
        ("vf-capitals", {"config": {"towns": 3}}, "towns"),
        ("vf-capitals", {"heldout": 3}, "none is left"),
        ("vf-boxes", {"heldout": 0}, "needs a sandbox"),
    ],
)
def test_what_cannot_be_played_is_said(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        taskset(name, **options)
