"""The code-fixing example, with an agent that does what a script says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.agents.protocol import Transcript
from hud_orchestrator.environments.process import ProcessPool
from hud_orchestrator.graders import unit_tests
from hud_orchestrator.records import Task
from hud_orchestrator.tasksets.files import load_path
from tests.environments.test_tools import Script

SOURCE = Path(__file__).parents[2] / "examples" / "code_fixing" / "tasks.py"
CLAMP = Task(env="code-fixing", id="fix", args={"name": "clamp", "bug": 0}, slug="clamp")


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProcessPool]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with (tmp_path / "log").open("wb") as log:
        async with ProcessPool(SOURCE, log_file=log, recycle_after=9, teardown_s=1) as warm:
            yield warm


async def fixed(pool: ProcessPool, *commands: str) -> tuple[dict[str, Any], list[str]]:
    """The grade, and what the shell answered."""
    turns = [[("shell", json.dumps({"command": command}))] for command in commands]
    script, transcript = Script(*turns, "done"), Transcript()
    with anyio.fail_after(60):
        async with pool.episode(CLAMP) as episode:
            await ChatAgent(system_prompt=None, max_turns=9).act(episode, script, transcript)
            grade = dict(await episode.grade(transcript.answer))
    last = script.asked[-1] if script.asked else []
    return grade, [str(message["content"]) for message in last if message["role"] == "tool"]


async def test_a_mended_file_passes_every_test_and_an_untouched_one_passes_some(pool: ProcessPool) -> None:
    grade, said = await fixed(pool, "cat clamp.py", "sed -i 's/return min/return max/' clamp.py")
    assert "return min(low" in said[0]
    assert grade["score"] == 1
    assert grade["content"] == "4 of 4 tests pass"

    grade, _ = await fixed(pool)
    assert 0 < grade["score"] < 1
    assert len(grade["subscores"]) == 4


@pytest.mark.parametrize(
    "command",
    [
        "rm clamp.py",
        "ln -sf /etc/passwd clamp.py",
        "rm clamp.py; mkfifo clamp.py",
        "rm clamp.py; mkdir clamp.py",
        "echo 'import os; os._exit(0)' > clamp.py",
        "yes > clamp.py",
        "printf '\\377' > clamp.py",
    ],
)
async def test_what_an_agent_leaves_instead_of_a_file_is_worth_nothing_and_harms_nothing(
    pool: ProcessPool, command: str
) -> None:
    grade, _ = await fixed(pool, command)

    assert grade["score"] == 0


async def test_the_shell_is_kept_in_its_directory_and_in_its_time(pool: ProcessPool, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("swordfish")
    grade, said = await fixed(pool, f"cat {tmp_path}/secret", "sleep 60", "cat ../*/*; ls ..", "exit 3")
    if "files" not in grade["info"]["held"]:
        pytest.skip("this kernel has no Landlock")

    assert "swordfish" not in "".join(said)
    assert "stopped after 5 s" in said[1]
    assert "exit code 3" in said[3]


async def test_an_episode_leaves_no_files(pool: ProcessPool, tmp_path: Path) -> None:
    await fixed(pool, "mkdir -p a/b; touch a/b/left; chmod 000 a/b a clamp.py", "chmod 000 .")

    assert list((tmp_path / "temporary").iterdir()) == []


def test_held_out_tasks_are_about_other_functions() -> None:
    train, heldout = load_path(SOURCE, member="train"), load_path(SOURCE, member="heldout")

    assert (len(train), len(heldout)) == (27, 9)
    assert not {task.args["name"] for task in train} & {task.args["name"] for task in heldout}


async def test_every_bug_fails_a_test_and_every_function_passes_all() -> None:
    load_path(SOURCE)  # from then on, what lies beside it can be imported
    import bugs

    limiter = anyio.CapacityLimiter(2)

    async def check(name: str) -> None:
        exercise = bugs.EXERCISES[name]
        async with limiter:
            right = await unit_tests(bugs.tests_of(name), {f"{name}.py": exercise.source})
            assert right.reward == 1, name
            for old, new in exercise.bugs:
                assert old in exercise.source, (name, old)
                broken = {f"{name}.py": exercise.source.replace(old, new, 1)}
                assert (await unit_tests(bugs.tests_of(name), broken, test_s=0.5)).reward < 1, (name, new)

    with anyio.fail_after(120):
        async with anyio.create_task_group() as together:
            for name in bugs.EXERCISES:
                together.start_soon(check, name)
