"""``init``: write a commented run file and the example tasks that it trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TASKS_NAME = "tasks.py"


def init(
    path: Annotated[Path, typer.Argument(help="The run file to write.", metavar="[PATH]")] = Path("run.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a run file that is there already.")] = False,
) -> None:
    """Write a run file with every key, its default and what it means, and example tasks beside it."""
    from hud_orchestrator.config.example import EXAMPLE_TASKS
    from hud_orchestrator.config.starter import starter

    tasks = path.with_name(TASKS_NAME)
    _refuse_to_replace(path, tasks, EXAMPLE_TASKS, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not tasks.exists():
        tasks.write_text(EXAMPLE_TASKS, encoding="utf-8")
    path.write_text(starter(), encoding="utf-8")
    print(f"wrote {path} and {tasks}")
