"""Which file defines the environment of a name. Files are imported in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import anyio

from hud_orchestrator.environments.owned import KEY
from hud_orchestrator.errors import ConfigError

NAMES = "hud_orchestrator.environments.names"

IMPORT_S = 60
"""Seconds that a file gets to be imported."""


async def find_environments(places: Iterable[Path]) -> dict[str, Path]:
    """The environments that files, and the ``.py`` files in directories, define: by name, the file.

    Raises:
        ConfigError: a place does not exist, a file cannot be imported, a file that was named defines no
            environment, or two files define one of the same name.
    """
    files = {file: named for place in places for file, named in _files(place)}
    names: dict[Path, list[str]] = {}
    at_once = anyio.CapacityLimiter(os.cpu_count() or 1)

    async def look(file: Path) -> None:
        async with at_once:
            names[file] = await _names(file)

    async with anyio.create_task_group() as group:
        for file in files:
            group.start_soon(look, file)
    found: dict[str, Path] = {}
    for file, named in files.items():
        if named and not names[file]:
            raise ConfigError(f"{file}: defines no Environment at module level")
        for name in names[file]:
            if name in found:
                raise ConfigError(
                    f"environment {name!r} is defined by {found[name]} and by {file}; rename one"
                )
            found[name] = file
    return found


def _files(place: Path) -> Iterator[tuple[Path, bool]]:
    """Files, and whether they were named rather than found."""
    if place.is_dir():
        yield from ((file, False) for file in sorted(place.glob("*.py")))
    elif place.is_file():
        yield place, True
    else:
        raise ConfigError(f"{place}: there is no such file or directory of environments")


async def _names(file: Path) -> list[str]:
    environ = {name: value for name, value in os.environ.items() if name != KEY}
    with anyio.move_on_after(IMPORT_S):
        ended = await anyio.run_process(
            [sys.executable, "-m", NAMES, str(file)],
            stdin=subprocess.DEVNULL, check=False, env=environ, cwd=file.parent,
        )  # fmt: skip
        try:
            said = json.loads(ended.stdout)
        except ValueError:
            said = {"mistake": f"{file}: cannot be imported: its process ended with {ended.returncode}"}
        if isinstance(said, list):
            return said
        raise ConfigError(said["mistake"])
    raise ConfigError(f"{file}: is not imported in {IMPORT_S} s")
