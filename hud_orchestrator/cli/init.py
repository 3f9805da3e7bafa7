"""``init``: write a commented run file and the example tasks that it trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TASKS_NAME = "tasks.py"
"""The example run file names this file."""


def init(
    path: Annotated[Path, typer.Argument(help="The run file to write.")] = Path("run.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a run file that is there already.")] = False,
) -> None:
    """Write a run file with every key, its default and what it means, and example tasks beside it."""
    from hud_orchestrator.config.starter import starter
    from hud_orchestrator.errors import StateUnwritable

    tasks = path.parent / TASKS_NAME
    _refuse_to_replace(path, tasks, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not tasks.exists():
            tasks.write_text(_example_tasks(), encoding="utf-8")
        path.write_text(starter(), encoding="utf-8")
    except OSError as error:
        raise StateUnwritable(f"{error.filename or path}: cannot be written: {error.strerror}") from None
    print(f"wrote {path}, which trains on {tasks}; next: hud-orchestrate run {path}")


def _refuse_to_replace(path: Path, tasks: Path, *, force: bool) -> None:
    """Refuse what would replace somebody's work; tasks are never replaced, whatever ``--force`` says.

    Raises:
        ConfigError: nothing may be written.
    """
    from hud_orchestrator.errors import ConfigError

    mistakes = []
    if path.is_dir():
        mistakes.append(f"{path}: is a directory; name the run file in it, such as {path / 'run.yaml'}")
    elif path == tasks:
        mistakes.append(f"{path}: is the name of the example tasks; choose another one for the run file")
    elif path.exists() and not force:
        mistakes.append(f"{path}: is there already; choose another name, or replace it with --force")
    if tasks.exists() and not force and tasks.read_bytes() != _example_tasks().encode():
        mistakes.append(
            f"{tasks}: is there already, and the run file would train on it; choose another directory"
        )
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _example_tasks() -> str:
    from importlib.resources import files

    return files("hud_orchestrator.cli").joinpath("example_tasks.py").read_text(encoding="utf-8")
