"""Commands and tests of somebody else's, with limits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from hud_orchestrator.graders import Ended, Limits, run_confined, unit_tests

TESTS = """
import unittest
from solution import add

def test_small():
    assert add(1, 2) == 3

async def test_negative():
    assert add(-1, 1) == 0

class Big(unittest.TestCase):
    def setUp(self):
        self.big = 10 ** 9

    def test_big(self):
        self.assertEqual(add(self.big, 1), self.big + 1)

class Plain:
    def test_plain(self):
        assert add(4, 4) == 8
"""


async def shell(directory: Path, script: str, **limits: float) -> Ended:
    with anyio.fail_after(30):
        return await run_confined(
            ["bash", "-c", script],
            directory=directory,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )


async def python(directory: Path, script: str, **limits: float) -> Ended:
    with anyio.fail_after(30):
        return await run_confined(
            [sys.executable, "-I", "-c", script],
            directory=directory,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )


def is_running(marker: str) -> bool:
    """Whether a process that is no zombie has *marker* in its command line."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "cmdline").read_bytes():
                return True
        except OSError:
            continue  # it has ended
    return False


async def gone(marker: str) -> None:
    with anyio.fail_after(10):
        while is_running(marker):  # noqa: ASYNC110  (another process has no event)
            await anyio.sleep(0.01)


async def test_a_command_works_in_its_directory_and_says_how_it_ended(tmp_path: Path) -> None:
    ended = await shell(tmp_path, "cat; echo note > note; ls; echo bad >&2; exit 3")

    assert (ended.code, ended.stdout, ended.stderr, ended.timed_out) == (3, "note\n", "bad\n", False)


async def test_a_command_does_not_get_the_variables_of_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "secret-of-the-judge")
    ended = await shell(tmp_path, "env; cat /proc/$PPID/environ /proc/1/environ 2>/dev/null")

    assert "PATH=" in ended.stdout
    assert "secret-of-the-judge" not in ended.stdout


async def test_files_outside_can_neither_be_read_nor_written(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("swordfish")
    (inside / "way_out").symlink_to(tmp_path / "secret")
    ended = await shell(inside, "cat ../secret way_out; echo x > ../secret; rm ../secret; ls ..")
    if "files" not in ended.held:
        pytest.skip("this kernel has no Landlock")

    assert ended.stdout == ""
    assert ended.stderr.count("Permission denied") >= 4
    assert (tmp_path / "secret").read_text() == "swordfish"


async def test_there_is_no_network_not_even_this_machines(tmp_path: Path) -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ended = await python(
            tmp_path, f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('connected')"
        )
    if not {"network", "tcp"} & set(ended.held):
        pytest.skip("this kernel lets an ordinary user leave no network")

    assert ended.stdout == ""
    assert ended.code == 1


async def test_time_is_limited_on_the_clock_and_on_the_processor(tmp_path: Path) -> None:
    slept = await shell(tmp_path, "sleep 60", wall_s=0.3)
    assert slept.timed_out

    span = await python(tmp_path, "while True: pass", cpu_s=1, wall_s=20)
    assert (span.code, span.timed_out) == (137, False)


async def test_memory_and_files_are_limited(tmp_path: Path) -> None:
    ended = await python(tmp_path, "bytearray(2**30)", memory_mib=256)
    assert "MemoryError" in ended.stderr

    ended = await python(tmp_path, "open('big', 'wb').write(bytes(2**21))", file_mib=1)
    assert "File too large" in ended.stderr
    assert (tmp_path / "big").stat().st_size <= 2**20

    ended = await python(tmp_path, "print('y' * 10**6)", output_bytes=100)
    assert (ended.code, len(ended.stdout)) == (0, 100)


async def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    marker = f"3{os.getpid()}.5"
    ended = await shell(tmp_path, f"setsid sleep {marker} & (sleep {marker} &) ; echo left")

    assert (ended.stdout, ended.timed_out) == ("left\n", False)
    await gone(marker)


async def test_a_cancelled_command_leaves_nothing_running(tmp_path: Path) -> None:
    marker = f"4{os.getpid()}.5"
    with anyio.move_on_after(0.5):
        await shell(tmp_path, f"setsid sleep {marker} & sleep {marker}", wall_s=60)
    await gone(marker)


def test_a_command_ends_when_the_process_that_ran_it_is_killed(tmp_path: Path) -> None:
    marker = f"5{os.getpid()}.5"
    code = (
        "import asyncio, pathlib; from hud_orchestrator.graders import run_confined\n"
        f"asyncio.run(run_confined(['bash', '-c', 'echo > up; sleep {marker} & setsid sleep {marker}'],\n"
        f"    directory=pathlib.Path({str(tmp_path)!r})))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        while not (tmp_path / "up").exists() or not is_running(f"sleep\0{marker}"):
            assert process.poll() is None
        process.kill()
    anyio.run(gone, marker)


def test_where_the_kernel_grants_no_namespace_a_command_still_ends_whole(tmp_path: Path) -> None:
    marker = f"6{os.getpid()}.5"
    # A user namespace in which this user has no name may make no other.
    code = (
        "import asyncio, ctypes, pathlib; from hud_orchestrator.graders import run_confined\n"
        "assert ctypes.CDLL(None).unshare(0x10000000) == 0\n"
        f"ended = asyncio.run(run_confined(['bash', '-c', 'setsid sleep {marker} & echo left'],\n"
        f"    directory=pathlib.Path({str(tmp_path)!r})))\n"
        "assert 'network' not in ended.held, ended\n"
        "print(ended.code, ended.stdout)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "AssertionError" in done.stderr and "unshare" in done.stderr:
        pytest.skip("this kernel grants no user namespace at all")

    assert done.stdout == "0 left\n\n", done.stderr
    anyio.run(gone, marker)


async def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    ended = await run_confined(["no-such-program"], directory=tmp_path)

    assert ended.code == 126
    assert "no-such-program was not started" in ended.stderr


async def grade(solution: str) -> tuple[float, dict[str, float], dict[str, str]]:
    with anyio.fail_after(30):
        result = await unit_tests(TESTS, {"solution.py": solution}, test_s=2)
    scores = result.subscores or []
    said = {score.name: score.info["said"] for score in scores if score.info}
    return result.reward, {score.name: score.value for score in scores}, said


async def test_the_reward_is_the_share_of_the_tests_that_pass() -> None:
    assert await grade("def add(a, b): return a + b") == (
        1.0, {"test_small": 1, "test_negative": 1, "Big.test_big": 1, "Plain.test_plain": 1}, {}
    )  # fmt: skip

    reward, values, said = await grade("def add(a, b): return a * b + (a == 1)")
    assert reward == 0.25
    assert values == {"test_small": 1, "test_negative": 0, "Big.test_big": 0, "Plain.test_plain": 0}
    assert said["Big.test_big"].startswith("AssertionError: 1000000000 != ")


@pytest.mark.parametrize(
    ("solution", "said"),
    [
        ("def add(a, b): return", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", "its process ended with 0"),
        ("import os; os.kill(os.getpid(), 9)", "its process ended with -9"),
        ('print(\'["test_small", true, ""]\'); add = None', "TypeError"),
        ("import json; add = json.dumps", "TypeError"),
    ],
)
async def test_code_that_ends_or_breaks_its_process_passes_nothing(solution: str, said: str) -> None:
    if said == "SyntaxError":
        solution = "def add(a, b: return a + b"
    reward, _, saids = await grade(solution)

    assert reward == 0
    assert said in saids["test_small"]


async def test_a_test_that_hangs_fails_alone() -> None:
    slow = "import time\ndef add(a, b):\n    time.sleep(60 * (a == 4))\n    return a + b"
    with anyio.fail_after(30):
        result = await unit_tests(TESTS, {"solution.py": slow}, test_s=0.5)

    assert result.reward == 0.75
    assert result.info["timed_out"] is False

    with anyio.fail_after(30):
        result = await unit_tests(TESTS, {"solution.py": slow}, test_s=60, limits=Limits(wall_s=1))
    assert result.reward == 0.75
    assert result.info["timed_out"] is True


async def test_a_file_of_the_tested_code_does_not_stand_in_for_a_module_of_python() -> None:
    files = {"solution.py": "def add(a, b): return 0", "unittest.py": "class TestCase: pass", "json.py": ""}
    with anyio.fail_after(30):
        result = await unit_tests(TESTS, files)

    assert result.reward == 0.25  # -1 + 1 is 0


async def test_tests_that_are_none_are_the_authors_mistake() -> None:
    with pytest.raises(ValueError, match="no test"):
        await unit_tests("x = 1", {})
    with pytest.raises(ValueError, match="not Python"):
        await unit_tests("def", {})
    with pytest.raises(ValueError, match="not a path inside"):
        await unit_tests(TESTS, {"../solution.py": ""})
