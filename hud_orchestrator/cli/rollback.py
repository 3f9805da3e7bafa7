"""``hud-orchestrate rollback``: have a run go back to an earlier step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.rollouts.place import Run, run_directory

if TYPE_CHECKING:
    from hud_orchestrator.records import Target
    from hud_orchestrator.store.history import History
    from hud_orchestrator.store.rollbacks import Rollback

EPILOG = (
    "It is written down in the run's store, and done by the daemon: by one that runs, after the step in "
    "hand; otherwise by the next hud-orchestrate run, before anything else. Exit codes: 0 written down, "
    "1 the store cannot be read, 2 usage, there is no such step, or it is to go back to another one already, "
    "74 the store cannot be written."
)


def rollback(
    run: Run,
    *,
    to: Annotated[
        str | None,
        typer.Option("--to", help="Go back to this checkpoint: an id, or its beginning.", metavar="ID"),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Go back to the checkpoint with the best evaluation.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Go back so many steps.", metavar="N")
    ] = None,
) -> None:
    """Have a run go back to an earlier step, and go on from there with tasks that it has not tried.

    The steps after it become a branch of the checkpoint tree that nothing builds on; groups that were
    sampled from them and not yet trained on are dropped. The step counter and the learning rate's schedule
    go back too.
    """
    import anyio

    from hud_orchestrator.errors import ConfigError

    if sum((to is not None, best, steps is not None)) != 1:
        raise ConfigError("say where to go back to: give one of --to ID, --best and --steps N")
    directory = run_directory(run)

    async def main() -> None:
        from hud_orchestrator.store.database import Database
        from hud_orchestrator.store.store import Store

        database = Database(directory / "store.db", holds=False)
        try:
            store = Store.over(database)
            before = await store.rollbacks.asked()
            target = await _target(store.history, to=to, steps=steps)
            if before is not None and before.target != target:
                raise ConfigError(
                    f"{directory}: is to go back to {_place(before.target)} already, and not to "
                    f"{_place(target)}; ask again when that is done"
                )
            asked = before or await store.rollbacks.ask(target, reason="asked for")
        finally:
            database.close()
        _tell(directory, asked, new=before is None)

    anyio.run(main)


async def _target(history: History, *, to: str | None, steps: int | None) -> Target:
    from hud_orchestrator.errors import ConfigError
    from hud_orchestrator.rewinding import best_of, line_of

    line = await line_of(history)
    if steps is not None:
        return line.back(steps)
    if to is not None:
        return line.named(to)
    target = await best_of(history)
    if target is None:
        raise ConfigError("no checkpoint of this run has been evaluated or trained on yet; give --steps N")
    if target.checkpoint == line.head(line.last):
        raise ConfigError(f"the best checkpoint is the head already: {target.checkpoint}")
    return target


def _place(target: Target) -> str:
    return f"step {target.step}, checkpoint {target.checkpoint}"


def _tell(directory: Path, asked: Rollback, *, new: bool) -> None:
    from hud_orchestrator.directory import RunDirectory

    place = _place(asked.target)
    print(f"{directory}: goes back to {place}" if new else f"{directory}: is to go back to {place} already")
    holder = RunDirectory(directory).holder()
    if holder is None:
        print("the next hud-orchestrate run does it before anything else")
    else:
        print(
            f"process {holder} does it when the step in hand is over; if that was the last one, the next "
            "hud-orchestrate run does"
        )
