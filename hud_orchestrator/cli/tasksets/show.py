"""``tasksets show``: the tasks of a file, a directory or the platform."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hud_orchestrator.cli.models.asking import answer_errors, print_json, print_table
from hud_orchestrator.cli.models.options import AsJson, EnvFile

Source = Annotated[
    str,
    typer.Argument(
        help="A .py, .json or .jsonl file, file.py:variable, a directory, or a taskset's name or id.",
        metavar="SOURCE",
    ),
]
TaskIds = Annotated[
    str | None,
    typer.Option(
        "--task-ids", help="Only these: slugs, template ids or positions from 0, with commas between."
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="COLUMN=VALUE",
        help="Only tasks with this value in the column, or one of [several, values]; repeatable.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many at most.")]


def show(
    source: Source,
    *,
    task_ids: TaskIds = None,
    where: Where = None,
    limit: Limit = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
) -> None:
    """Show tasks. With --json they are rows of a taskset file: redirect them into one."""
    import anyio

    from hud_orchestrator.cli.models.place import use_env_file
    from hud_orchestrator.tasksets.load import load_rows
    from hud_orchestrator.tasksets.portable import portable
    from hud_orchestrator.tasksets.select import ids_of, select, where_of

    async def main() -> None:
        if env_file is not None:
            use_env_file(env_file)
        found = {task.slug: (task, row) for task, row in await load_rows(source)}
        everything = [task for task, _ in found.values()]
        chosen = ids_of(task_ids)
        tasks = select(everything, source, only=chosen, where=where_of(where or ()), limit=limit)
        if as_json:
            print_json([portable(found[task.slug][1], task.slug) for task in tasks])
            return
        rows = [
            (task.slug, task.env, task.id, json.dumps(dict(task.args)), json.dumps(dict(task.columns)))
            for task in tasks
        ]
        print_table(("Slug", "Environment", "ID", "Args", "Columns"), rows)

    answer_errors(lambda: anyio.run(main), as_json=as_json)
