"""A process for every episode."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO

import anyio
import pytest

from hud_orchestrator.environments.link import Pace
from hud_orchestrator.environments.spawned import Spawned
from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.records import Task

SOURCE = """
import os, subprocess, sys
from hud_orchestrator import Environment

env, other = Environment("lab"), Environment("other")
print("x" * 2**20)

@env.tool()
async def shout() -> str:
    print("y" * 2**20, flush=True)
    return "done"

@env.template()
async def where():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
    yield f"{os.getpid()} {child.pid} {os.getcwd()} {os.environ.get('HUD_API_KEY')}"
    yield 1.0
"""
TASK = Task(env="lab", id="where", args={}, slug="where")

Make = Callable[..., Spawned]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    source = tmp_path / "lab.py"
    source.write_text(SOURCE)
    with (tmp_path / "log").open("wb") as log:

        def spawned(*command: str, ready_s: float = 20) -> Spawned:
            return Spawned(
                source, command=command or None, log_file=log, pace=Pace(ready_s=ready_s, teardown_s=1)
            )

        yield spawned


def until_gone(pid: str) -> None:
    """Return when it is killed; what has lost its parent may stay a zombie for a while."""
    stat = Path(f"/proc/{pid}/stat")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while stat.read_text().split()[2] != "Z":
            pass


async def test_every_episode_has_a_process_that_ends_with_it_and_all_it_started(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUD_API_KEY", "secret")
    place, seen = make(), set()
    with anyio.fail_after(60):
        for _ in range(2):
            async with place.episode(TASK) as episode:
                pid, child, home, key = episode.prompt[0]["content"].split()
                assert (home, key) == (str(tmp_path), "None")
                os.kill(int(child), 0)
                assert (await episode.call_tool("shout", {})).content[0]["text"] == "done"
                assert (await episode.grade(None))["score"] == 1.0
            until_gone(pid)
            until_gone(child)
            seen.add(pid)
    assert len(seen) == 2
    assert (tmp_path / "log").read_text().count("y") == 2 * 2**20


async def test_a_command_of_ones_own_is_told_the_source_and_the_name(make: Make) -> None:
    serve = "hud_orchestrator.environments.server"
    place = make(sys.executable, "-m", serve, "{source}", "--env={env}")
    with anyio.fail_after(60):
        async with place.episode(TASK) as episode:
            assert (await episode.grade(None))["score"] == 1.0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit(3)", "ended with code 3 before it listened"),
        ("print('HUD_SERVE_PORT=x')", "printed something else than HUD_SERVE_PORT=<port>"),
        ("print('HUD_SERVE_PORT=1', flush=True); input()", "the environment process ended with code 1"),
        (
            "import time; print('HUD_SERVE_PORT=1', flush=True); time.sleep(1e6)",
            "no environment answered in 2 s",
        ),
        ("import time; time.sleep(1e6)", "did not print HUD_SERVE_PORT=<port> in 2 s"),
    ],
)
async def test_a_process_that_does_not_serve_says_so_by_the_ready_timeout(
    make: Make, code: str, words: str
) -> None:
    with anyio.fail_after(30), pytest.raises(EnvironmentFailed, match=words):
        async with make(sys.executable, "-c", code, ready_s=2).episode(TASK):
            pass


async def test_a_command_that_does_not_exist_says_so(make: Make, tmp_path: Path) -> None:
    with anyio.fail_after(30), pytest.raises(EnvironmentFailed, match="ended with code 127"):
        async with make("no-such-program").episode(TASK):
            pass
    assert "no-such-program: No such file or directory" in (tmp_path / "log").read_text()


@pytest.fixture
def full() -> Iterator[IO[bytes]]:
    with Path("/dev/full").open("ab") as log:
        yield log


async def test_a_log_on_a_full_disk_loses_what_was_printed_and_no_episode(
    tmp_path: Path, full: IO[bytes]
) -> None:
    source = tmp_path / "lab.py"
    source.write_text(SOURCE.replace("async def where():", "async def where():\n    os.write(1, b'printed')"))
    server = "hud_orchestrator.environments.server"
    # Its own standard error is the same full disk, and not what is asked about here.
    serve = f"exec 2>/dev/null; echo hello; exec {sys.executable} -m {server} {{source}} --env {{env}}"
    place = Spawned(source, command=["sh", "-c", serve], log_file=full, pace=Pace(ready_s=60))
    with anyio.fail_after(60):
        async with place.episode(TASK) as episode:
            assert (await episode.grade(None))["score"] == 1.0
