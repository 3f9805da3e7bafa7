"""``hud-orchestrate models``: look at what is trained, branch it, talk to it, and take it away."""

from __future__ import annotations

import typer

from hud_orchestrator.cli.models.chat import chat
from hud_orchestrator.cli.models.checkpoints import checkpoints
from hud_orchestrator.cli.models.export import export
from hud_orchestrator.cli.models.fork import fork
from hud_orchestrator.cli.models.head import head
from hud_orchestrator.cli.models.listing import listing

__all__ = ["models"]

EPILOG = (
    "Exit codes: 0 done, 1 the service refused, 2 usage or an unknown name, 69 unreachable, 74 cannot be "
    "written, 75 the state is in use, 77 the key was refused, 130 interrupted. With --json an error is an "
    "object on standard output: error (its kind), message and, where there is one, suggestion."
)

models = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    help=(
        "List, fork, inspect, rewind, talk to and export models, of HUD or of the embedded service. "
        "Addresses and key are HUD_API_URL, HUD_GATEWAY_URL and HUD_API_KEY from the environment or .env; "
        "--env-file takes them from the file that serve --env-file wrote; --state needs no service that runs."
    ),
)

models.command("list", epilog=EPILOG)(listing)
models.command("fork", epilog=EPILOG)(fork)
models.command("checkpoints", epilog=EPILOG)(checkpoints)
models.command("head", epilog=EPILOG)(head)
models.command("chat", epilog=EPILOG)(chat)
models.command("export", epilog=EPILOG)(export)
