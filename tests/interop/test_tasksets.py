"""The SDK's tasksets against our service and our files, and its files and rows against our loader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from hud import Taskset
from hud.eval.sync import diff, upload_taskset
from hud.utils.platform import PlatformClient

from tests.interop.environments.sums import add

LAUNCHER = Path(__file__).parents[2] / ".venv" / "bin" / "hud-orchestrate"


def rows() -> list[Any]:
    easy, hard = add(a=1, b=2), add(a=30, b=40)
    easy.columns = {"difficulty": "easy"}
    easy.agent_config, easy.validation = {"timeout_seconds": 5, "model": "x"}, [{"type": "none"}]
    hard.slug, hard.verifier = "hard", add(a=3, b=4)
    hard.runtime_config = {"resources": {"cpu": 2}}
    return [easy, hard]


def ours(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Our command line, in our environment: the SDK is not installed there."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [LAUNCHER, "tasksets", *arguments], cwd=directory, env=environ, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def uploaded(name: str, tasks: list[Any]) -> Any:
    return upload_taskset(PlatformClient.from_settings(), name, tasks)


async def test_what_the_sdk_uploads_it_finds_unchanged_by_name_and_by_id() -> None:
    local = Taskset("interop/one", rows())

    first = await anyio.to_thread.run_sync(uploaded, "interop/one", list(local))
    remote = await anyio.to_thread.run_sync(Taskset.from_api, "interop/one")
    by_id = await anyio.to_thread.run_sync(Taskset.from_api, first["taskset_id"])
    again = await anyio.to_thread.run_sync(uploaded, "interop/one", list(local))

    assert (first["tasks_created"], first["tasks_updated"]) == (2, 0)
    assert (again["tasks_created"], again["tasks_updated"]) == (0, 2)
    assert remote.taskset_id == first["taskset_id"]
    plan = diff(local, remote)
    assert (len(plan.unchanged), plan.to_apply, plan.remote_only) == (2, [], [])
    assert list(by_id.tasks) == list(local.tasks)
    with pytest.raises(ValueError, match="taskset not found"):
        await anyio.to_thread.run_sync(Taskset.from_api, "nobody's")


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_files_that_the_sdk_writes_are_read_as_the_same_rows(tmp_path: Path, suffix: str) -> None:
    written = Taskset("sums", rows()).to_file(tmp_path / f"sums.{suffix}")

    shown = ours("show", str(written), "--json", directory=tmp_path)
    assert shown.returncode == 0, shown.stderr
    (tmp_path / "ours.json").write_text(shown.stdout)

    assert [row["slug"] for row in json.loads(shown.stdout)] == [task.slug for task in rows()]
    # What we write, the SDK reads as the rows that it had.
    assert len(diff(Taskset.from_file(written), Taskset.from_file(tmp_path / "ours.json")).unchanged) == 2


def test_what_we_push_the_sdk_finds(tmp_path: Path) -> None:
    Taskset("sums", rows()).to_file(tmp_path / "sums.json")

    pushed = ours("push", "sums.json", "--name", "interop two", directory=tmp_path)

    assert pushed.returncode == 0, pushed.stderr
    remote = Taskset.from_api("interop two")
    assert len(diff(Taskset.from_file(tmp_path / "sums.json"), remote).unchanged) == 2


def test_the_sdks_command_line_syncs_a_taskset(tmp_path: Path) -> None:
    Taskset("sums", rows()).to_file(tmp_path / "sums.json")
    command = [sys.executable, "-m", "hud", "sync", "tasks", "interop three", "sums.json", "--yes", "--json"]

    first, second = [
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        for _ in range(2)
    ]

    assert first.returncode == 0, first.stdout + first.stderr
    assert json.loads(first.stdout)["tasks_created"] == 2
    assert json.loads(second.stdout)["status"] == "up_to_date"


def test_rows_and_tasksets_of_a_module_of_the_sdks_are_ours_too(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        "from hud import Taskset\nfrom tests.interop.environments.sums import add\n"
        "single = add(a=1, b=1)\nseveral = Taskset('several', [add(a=2, b=2), add(a=3, b=3)])\n"
    )
    loader = pytest.importorskip(
        "hud_orchestrator.tasksets.files", reason="needs this project's dependencies"
    )

    tasks = loader.load_path(tmp_path / "module.py")

    assert [task.args for task in tasks] == [{"a": 2, "b": 2}, {"a": 3, "b": 3}, {"a": 1, "b": 1}]
    assert {task.slug for task in tasks} == set(Taskset.from_file(tmp_path / "module.py").tasks)
