"""Find and mend the bug in a file, with a shell.

Every episode has a directory of its own with one small Python file in it. The agent has a tool, ``shell``,
that runs a command there with limits, and says so when it is done. Tests that it does not see grade what then
stands in the file: the reward is the share that passes. A file that nobody has mended passes some of them.

What the shell may do is what ``hud_orchestrator.graders.run_confined`` says: it writes in its directory
alone, reads programs and no files of yours, has no network, and all that it started ends with the command. It
is a fence, not a virtual machine: the page about graders says what it does not protect against.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bugs import EXERCISES, tests_of

from hud_orchestrator import Environment, EvaluationResult, TaskRow
from hud_orchestrator.graders import Limits, run_confined, unit_tests

NUM_HELD_OUT = 3
"""Functions that only held-out tasks have."""

LONGEST_FILE = 20_000
"""Characters of the mended file that are read."""

COMMANDS = Limits(wall_s=5, cpu_s=2, memory_mib=256, file_mib=1, processes=32, output_bytes=2_000)
TESTS = Limits(wall_s=10, cpu_s=4, memory_mib=256, file_mib=1, processes=32)

env = Environment("code-fixing")


@env.tool()
async def shell(command: str) -> str:
    """Run a command with bash in the directory of the file; returns what it prints."""
    ended = await run_confined(["bash", "-c", command], directory=env.state.directory, limits=COMMANDS)
    said = ended.stdout + ended.stderr
    if ended.timed_out:
        said += f"\n(stopped after {COMMANDS.wall_s:g} s)"
    return said if ended.code == 0 else f"{said}\n(exit code {ended.code})"


@env.template()
async def fix(name: str, bug: int) -> Any:
    """Mend the function called *name*, into which bug number *bug* was put."""
    exercise = EXERCISES[name]
    directory = Path(tempfile.mkdtemp(prefix="code-fixing-"))
    env.state.directory = directory
    file = directory / f"{name}.py"
    file.write_text(exercise.source.replace(*exercise.bugs[bug], 1))
    try:
        yield (
            f"{file.name} has a bug. {exercise.purpose}\n"
            f"Mend the file with the tool shell, then say what was wrong."
        )
        yield await _grade(name, file)
    finally:
        _remove(directory)


async def _grade(name: str, file: Path) -> EvaluationResult:
    """What the tests say about the file; nothing for one that is gone, or is something else now."""
    text = _read(file)
    if text is None:
        return EvaluationResult(reward=0.0, content=f"{file.name} is not a file any more")
    return await unit_tests(tests_of(name), {file.name: text}, limits=TESTS, test_s=1)


def _read(file: Path) -> str | None:
    # No command runs any more, so what is looked at is what is read.
    if file.is_symlink() or not file.is_file():
        return None
    file.chmod(0o600)
    with file.open(encoding="utf-8", errors="replace") as mended:
        return mended.read(LONGEST_FILE)


def _remove(directory: Path) -> None:
    """Remove a directory in which somebody may have forbidden to."""
    directory.chmod(0o700)
    for place, directories, _ in os.walk(directory):
        for inner in directories:
            if not (Path(place) / inner).is_symlink():
                (Path(place) / inner).chmod(0o700)
    shutil.rmtree(directory, ignore_errors=True)


_names = list(EXERCISES)


def _rows(names: list[str]) -> list[TaskRow]:
    return [fix(name=name, bug=bug) for name in names for bug in range(len(EXERCISES[name].bugs))]


train = _rows(_names[NUM_HELD_OUT:])
heldout = _rows(_names[:NUM_HELD_OUT])
