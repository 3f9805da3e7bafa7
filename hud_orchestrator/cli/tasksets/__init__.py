"""``hud-orchestrate tasksets``: look at tasks, wherever they are, and upload them."""

from __future__ import annotations

import typer

from hud_orchestrator.cli.tasksets.listing import listing
from hud_orchestrator.cli.tasksets.push import push
from hud_orchestrator.cli.tasksets.show import show

__all__ = ["tasksets"]

tasksets = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=(
        "List, show and upload tasksets, of HUD or of the embedded service. Address and key are HUD_API_URL "
        "and HUD_API_KEY from the environment or .env; --env-file takes them from the file that serve "
        "--env-file wrote."
    ),
)

tasksets.command("list")(listing)
tasksets.command("show")(show)
tasksets.command("push")(push)
