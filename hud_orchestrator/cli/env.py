"""``hud-orchestrate env``: environments as servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

env = typer.Typer(no_args_is_help=True, help="Environments as servers.")


@env.callback()
def root() -> None:
    """Environments as servers."""


@env.command("serve")
def serve(
    source: Annotated[Path, typer.Argument(help="The .py file that defines the environment.")],
    *,
    name: Annotated[
        str | None, typer.Option("--env", help="Its name, when the file defines several.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8765,
) -> None:
    """Serve an environment over HUD's control protocol until SIGINT or SIGTERM.

    The line HUD_SERVE_PORT=<port> on standard output says that it listens. There is no password: whoever
    reaches the port may run its tasks.
    """
    from hud_orchestrator.environments.server import serve_file
    from hud_orchestrator.environments.source import SourceMistake
    from hud_orchestrator.errors import ConfigError, RunFailed

    try:
        serve_file(source, name, host=host, port=port)
    except SourceMistake as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise RunFailed(f"cannot listen on {host}:{port}: {error.strerror}") from error
