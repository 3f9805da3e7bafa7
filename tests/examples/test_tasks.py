"""The example tasks, driven as the daemon drives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hud_orchestrator.config.load import load
from hud_orchestrator.environments.inprocess import InProcess
from hud_orchestrator.records import Task
from hud_orchestrator.tasksets.files import load_path

ROOT = Path(__file__).parents[2]
EXAMPLES = ("arithmetic", "sorting", "extraction")


def source(example: str) -> Path:
    return ROOT / "examples" / example / "tasks.py"


def right_answer(task: Task) -> str:
    if task.env == "arithmetic":
        return str(task.args["a"] + task.args["b"])
    if task.env == "sorting":
        return "".join(sorted(task.args["digits"]))
    return json.dumps(dict(task.args))


async def reward(example: str, task: Task, answer: str | None) -> float:
    async with InProcess(source(example), teardown_s=1).episode(task) as episode:
        return float((await episode.grade(answer))["score"])


@pytest.mark.parametrize("example", EXAMPLES)
async def test_the_right_answer_is_worth_one_and_no_answer_nothing(example: str) -> None:
    for task in load_path(source(example), member="heldout")[:5]:
        assert await reward(example, task, right_answer(task)) == pytest.approx(1)
        assert await reward(example, task, "no idea") == 0
        assert await reward(example, task, None) == 0


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_held_out_task_is_trained_on(example: str) -> None:
    train = {task.slug for task in load_path(source(example), member="train")}
    heldout = {task.slug for task in load_path(source(example), member="heldout")}

    assert len(train) >= 200
    assert len(heldout) >= 40
    assert not train & heldout


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("{}", 0.25),
        ('{"name": "x", "age": 0, "city": "y"}', 0.5),
        ('{"name": "Ana", "age": 0, "city": "y"}', 0.5 + 1 / 6),
        ('{"name": "Ana"}', 0.25 + 1 / 6),
        ('["Ana"]', 0),
        ('```json\n{"name": "Ana"}\n```', 0),
    ],
)
async def test_an_extraction_is_graded_in_parts(answer: str, worth: float) -> None:
    task = Task(env="extraction", id="person", args={"name": "Ana", "age": 30, "city": "Paris"}, slug="s")

    assert await reward("extraction", task, answer) == pytest.approx(worth)


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_file_that_comes_along_is_right_and_raises_no_doubt(config: Path) -> None:
    assert load(config).warnings == ()
