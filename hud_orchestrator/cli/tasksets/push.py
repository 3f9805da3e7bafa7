"""``tasksets push``: upload tasks to the platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hud_orchestrator.cli.models.asking import ask_service, print_json
from hud_orchestrator.cli.models.options import AsJson, EnvFile
from hud_orchestrator.cli.tasksets.show import Source


def push(
    source: Source,
    *,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Of the taskset; left out: the file's, without suffix.")
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Upload tasks to a taskset: new ones are added, those of a known slug are replaced, none is removed."""
    from hud_orchestrator.clients.tasksets import Tasksets
    from hud_orchestrator.clients.transport import Transport
    from hud_orchestrator.tasksets.load import load_rows
    from hud_orchestrator.tasksets.portable import portable, upload_of

    called = name or Path(source.rpartition(".py:")[0] or source).stem

    async def question(transport: Transport, _gateway_url: str) -> None:
        rows = [portable(row, task.slug) for task, row in await load_rows(source)]
        done = await Tasksets(transport).upload(upload_of(called, rows))
        if as_json:
            print_json(done.model_dump(mode="json"))
        else:
            print(f"{called}: {done.tasks_created} created, {done.tasks_updated} updated")
            print(f"id: {done.taskset_id}")

    ask_service(question, env_file=env_file, as_json=as_json)
