"""Tasksets from modules, data files and directories; what is chosen of them, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hud_orchestrator.errors import ConfigError, KeyRefused
from hud_orchestrator.records import Task
from hud_orchestrator.tasksets.load import load, load_rows
from hud_orchestrator.tasksets.portable import portable
from hud_orchestrator.tasksets.rows import task_of

MODULE = """
from types import SimpleNamespace
from hud_orchestrator import Environment

env = Environment("sums")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0


@env.template()
async def check():
    yield "?"
    yield 1.0


easy = [add(a=a, b=1).with_(columns={"digits": 1, "carry": False}) for a in range(3)]
hard = (add(a=10, b=1).with_(columns={"digits": 2, "carry": True}, slug="ten", verifier=check()),)
best = easy[0]
timed = add(a=7, b=7).with_(
    agent_config={"timeout_seconds": 5, "model": "x"}, runtime_config={"resources": {"cpu": 2}}
)
_hidden = [add(a=99, b=99)]
numbers = [1, 2, 3]
"""

SDK_LIKE = """
class Config:
    def model_dump(self, *, mode, exclude_unset, exclude_none):
        return {"image": "busybox"}

class Task:
    columns = agent_config = runtime_config = verifier = None

    def __init__(self, **fields):
        self.__dict__ = fields

class Taskset:
    def __init__(self, *tasks):
        self.tasks = {task.slug: task for task in tasks}

grade = Task(env="judge", id="grade", args={}, slug="grade")
_one = Task(env="box", id="open", args={"n": 1}, slug="one", runtime_config=Config(), verifier=grade)
several = Taskset(_one, Task(env="box", id="open", args={"n": 2}, slug="two", columns={"size": "big"}))
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "sums.py"
    path.write_text(MODULE)
    return path


def slugs(tasks: tuple[Task, ...]) -> list[str]:
    return [task.slug for task in tasks]


async def refusal(source: str | Path, **asked: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        await load(source, **asked)
    return str(caught.value)


async def test_a_module_gives_every_row_once_by_the_names_of_its_variables(module: Path) -> None:
    found = await load(module)

    assert [task.args.get("a") for task in found] == [0, 1, 2, 10, 7]
    assert {task.env for task in found} == {"sums"}
    assert found[4].agent_timeout_s == 5
    assert found[4].runtime_config == {"resources": {"cpu": 2}}
    assert found[3].verifier == Task(env="sums", id="check", args={}, slug="check")


async def test_one_variable_of_a_module_can_be_named(module: Path) -> None:
    assert slugs(await load(f"{module}:hard")) == ["ten"]
    assert len(await load(f"{module}:best")) == 1
    assert "no list of tasks called 'medium'; it has best, easy, hard, timed" in await refusal(
        f"{module}:medium"
    )
    assert "numbers" in await refusal(f"{module}:numbers")


async def test_rows_of_the_sdk_are_known_by_their_attributes(tmp_path: Path) -> None:
    (tmp_path / "boxes.py").write_text(SDK_LIKE)
    one, two = await load(tmp_path / "boxes.py:several")

    assert one.runtime_config == {"image": "busybox"}
    assert one.verifier is not None
    assert (one.verifier.env, one.verifier.id) == ("judge", "grade")
    assert two.columns == {"size": "big"}


async def test_data_files_have_the_slugs_and_keys_of_the_contract(tmp_path: Path) -> None:
    rows = [
        {"env": "math", "id": "multiply", "args": {"a": 6, "b": 7}, "unknown": 1},
        {"env": "math", "id": "count", "args": None, "agent_config": {"timeout_seconds": 2.5}},
        {"env": "math", "id": "count", "slug": "other", "verifier": {"env": "judge", "id": "grade"}},
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "one.json").write_text(json.dumps(rows[0]))

    found = await load(tmp_path / "t.json")

    # The contract's own example of a default slug.
    assert slugs(found) == ["multiply-6b1ddef0", "count", "other"]
    assert found[1].agent_timeout_s == 2.5
    assert found == await load(tmp_path / "t.jsonl")
    assert found[:1] == await load(tmp_path / "one.json")
    pairs = await load_rows(tmp_path / "t.json")
    assert [task_of(portable(row, task.slug), "again") for task, row in pairs] == list(found)


async def test_a_directory_is_every_file_in_it_by_name(tmp_path: Path, module: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"env": "sums", "id": "check", "slug": "first"}\n')
    (tmp_path / "conftest.py").write_text("raise RuntimeError")
    (tmp_path / ".hidden.json").write_text("no")
    (tmp_path / "notes.txt").write_text("no")

    found = slugs(await load(tmp_path))

    assert found[0] == "first"
    assert found[1:] == slugs(await load(module))
    (tmp_path / "empty").mkdir()
    assert "has no .py, .json or .jsonl file" in await refusal(tmp_path / "empty")


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("[1]", "row 1: is 1, expected an object"),
        ('{"id": "a"}', "row 1: env is missing, expected a name"),
        ('{"env": "e", "id": ""}', "row 1: id is '', expected a name"),
        ('{"env": "e", "id": "a", "slug": 3}', "row 1: slug is 3, expected a name"),
        ('{"env": "e", "id": "a", "args": [1]}', "row 1: args is list, expected an object"),
        ('{"env": "e", "id": "a", "args": {"x": NaN}}', "a value that is not JSON"),
        ('{"env": "e", "id": "a", "agent_config": {"timeout_seconds": true}}', "timeout_seconds is True"),
        ('{"env": "e", "id": "a", "agent_config": {"timeout_seconds": 0}}', "timeout_seconds is 0"),
        ('{"env": "e", "id": "a", "runtime_config": {"gpu": 1}}', "runtime_config has no key 'gpu'; it has"),
        ('{"env": "e", "id": "a", "runtime_config": {"image": "i", "compose": "c"}}', "keep one of them"),
        ('{"env": "e", "id": "a", "verifier": {"env": "e"}}', "row 1: verifier: id is missing"),
        (
            '{"env": "e", "id": "a", "verifier": {"env": "e", "id": "b", "verifier": {}}}',
            "row 1: verifier: has a verifier of its own",
        ),
        ('[{"env": "e", "id": "a"}, {"env": "f", "id": "a"}]', "slug 'a' names two tasks, e/a and f/a"),
        ("[]", "t.json: has no tasks"),
        ("{", "t.json: cannot be read as JSON"),
    ],
)
async def test_a_wrong_row_says_which_and_what_is_wrong_with_it(tmp_path: Path, row: str, text: str) -> None:
    (tmp_path / "t.json").write_text(row)

    assert text in await refusal(tmp_path / "t.json")


async def test_tasks_are_chosen_by_columns(module: Path) -> None:
    assert len(await load(module, where={"digits": 1})) == 3
    assert slugs(await load(module, where={"digits": [2, 3], "carry": True})) == ["ten"]
    assert len(await load(module, where={"digits": [1, 2]}, limit=2)) == 2

    # To Python, False is 0.
    text = await refusal(module, where={"carry": 0})
    assert "none of its 5 tasks has carry 0; its columns are carry: false, true; digits: 1, 2" in text
    assert "its columns are none" in await refusal(f"{module}:timed", where={"carry": True})


async def test_tasks_are_chosen_by_slug_id_and_position_in_the_order_of_the_taskset(module: Path) -> None:
    assert slugs(await load(module, only=["ten", "0"])) == [(await load(module))[0].slug, "ten"]
    assert len(await load(module, only=["add"])) == 5
    text = await refusal(module, only=["tenn", "ten"])
    assert "no task 'tenn' by slug, id or position (0 to 4); did you mean 'ten'?" in text


async def test_a_name_that_is_no_file_needs_a_key_to_be_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HUD_API_KEY", raising=False)

    with pytest.raises(KeyRefused, match=r"there is no such file .*HUD_API_KEY is needed to ask"):
        await load("my tasks")
    assert "there is no such taskset file" in await refusal("./nowhere")
    assert "there is no such taskset file" in await refusal("nowhere.json")


def test_a_row_that_is_refined_keeps_what_it_had(module: Path) -> None:
    from hud_orchestrator import TaskRow

    row = TaskRow(env="e", id="a", args={"x": 1}, columns={"c": 1})

    assert row.with_(slug="mine").columns == {"c": 1}
    assert row.with_(args={"x": 2}).slug != row.slug
    assert row.with_(slug="mine").with_(args={"x": 2}).slug == "mine"
    with pytest.raises(TypeError, match="colums"):
        row.with_(colums={})
