"""However a run file is damaged, loading it ends in a run or in mistakes with a place, never in a crash."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hud_orchestrator.config.load import load
from hud_orchestrator.config.starter import starter
from hud_orchestrator.errors import ConfigError

RunFile = Callable[..., Path]

JUNK = (
    "null", "[]", "{}", "[1, 2]", "{a: b}", "yes", "1e400", "-1", "1e-4", ".nan", "'x'", "10:30",
    "2026-01-01", "!!binary aGk=", "!!python/name:os.system", "!!set {a}", "!!int x", "&a [*a]", "*nobody",
    '"\\ud800"', '"\\0"', "~nobody/x", "x" * 5000, "9" * 5000, "0x_", "? [a]\n  : b", "- a", "%",
    "\t1", "\x07", "<<: 3", "${X}", "tasks.py:", "/dev/null/x.py", "..", "{<<: *nobody}", "|\n  text",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_run_file_never_crashes_the_loader(run_file: RunFile, seed: int) -> None:
    random_ = random.Random(seed)
    whole = re.sub(r"(?m)^( *)#(\w)", r"\1\2", starter())
    lines = [line for line in whole.splitlines() if line and not line.lstrip().startswith("#")]

    for _ in range(40):
        path = run_file(whole="\n".join(damaged(lines, random_)))
        try:
            load(path, overrides=[f"trainer={random_.choice(JUNK)}"] if random_.random() < 0.1 else [])
        except ConfigError as error:
            told = str(error).split("\n")
            assert [line for line in told if not line.startswith((f"{path}:", "--set: "))] == []
            assert [line for line in told if not line.isprintable()] == []


def damaged(lines: list[str], random_: random.Random) -> list[str]:
    """Break a few lines in ways that people and editors break them."""
    broken = list(lines)
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(broken))
        match random_.randrange(5):
            case 0 | 1:
                broken[at] = f"{broken[at].partition(':')[0]}: {random_.choice(JUNK)}"
            case 2:
                broken.insert(at, random_.choice(broken))
            case 3:
                broken[at] = " " * random_.randrange(5) + broken[at].lstrip()
            case _:
                broken[at] = broken[at].replace(":", random_.choice(["", "::", " :", ": {", "\t:"]), 1)
    return broken
