"""``hud-orchestrate rollouts``: what a run's attempts did, in a list and one by one."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from hud_orchestrator.cli.rollouts.listing import listing
from hud_orchestrator.cli.rollouts.show import show

__all__ = ["rollouts"]

EPILOG = (
    "RUN is a run's directory, or its name below runs/. It may be over or still go on; nothing is changed. "
    "Exit codes: 0 done, 1 the store cannot be read, 2 usage or an unknown name. With --json an error is an "
    "object on standard output."
)


class _ListedByDefault(TyperGroup):
    """``rollouts RUN`` is ``rollouts list RUN``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command in that is most wanted, where none is named."""
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = ["list", *args]
        return super().parse_args(ctx, args)


rollouts = typer.Typer(
    cls=_ListedByDefault,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    help="List the rollouts of a run (``rollouts RUN``), and look at one (``rollouts show RUN WHICH``).",
)

rollouts.command("list", epilog=EPILOG)(listing)
rollouts.command("show", epilog=EPILOG)(show)
