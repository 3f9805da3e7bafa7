"""``hud-orchestrate run``: train, with a live view on a terminal and log lines elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hud_orchestrator.config.load import LoadedRun
    from hud_orchestrator.summary import Summary


def run(
    config: Annotated[Path, typer.Argument(help="The run file.", metavar="CONFIG")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Lay a value over the run file's.", metavar="KEY=VALUE")
    ] = None,
    *,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set an earlier run of this name aside, and begin anew.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --fresh: do not ask, whatever the earlier run holds.")
    ] = False,
) -> None:
    """Train a model as a run file says; on an existing run directory, continue where it stands.

    The first SIGINT or SIGTERM finishes the step in hand and keeps finished work; a second one aborts.
    """
    from hud_orchestrator.cli.fresh import begin_anew
    from hud_orchestrator.config.load import load
    from hud_orchestrator.directory import RunDirectory

    loaded = load(config, overrides=overrides or ())
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if fresh:
        begin_anew(RunDirectory(loaded.run.directory), yes=yes)
    summary = _train(loaded)
    raise typer.Exit(summary.exit_code)


def _train(loaded: LoadedRun) -> Summary:
    import anyio

    from hud_orchestrator import logs
    from hud_orchestrator.cli.ending import show_ending
    from hud_orchestrator.cli.live import live_view
    from hud_orchestrator.daemon import run_daemon
    from hud_orchestrator.heap import quiet_heap
    from hud_orchestrator.metrics import MetricsFile, Scoreboard

    logging = loaded.run.logging
    live = logging.format == "auto" and sys.stdout.isatty()
    logs.configure(stream=None if live else sys.stderr, as_json=logging.format == "json", level=logging.level)
    directory = loaded.run.directory
    board = Scoreboard(total_steps=loaded.run.run.steps, metrics=MetricsFile(directory / "metrics.jsonl"))

    async def main() -> Summary:
        async with live_view(loaded.run, board, shown=live):
            return await run_daemon(loaded, board=board)

    with quiet_heap():
        summary = anyio.run(main, backend_options={"use_uvloop": True})
    show_ending(loaded, summary)
    return summary
