"""``hud-orchestrate``: one file per command; each imports what it needs when it is called."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from hud_orchestrator import __version__
from hud_orchestrator.cli.curve import curve
from hud_orchestrator.cli.env import env
from hud_orchestrator.cli.evaluate import evaluate
from hud_orchestrator.cli.exits import exit_code
from hud_orchestrator.cli.init import init
from hud_orchestrator.cli.models import models
from hud_orchestrator.cli.rollback import EPILOG, rollback
from hud_orchestrator.cli.rollouts import rollouts
from hud_orchestrator.cli.run import run
from hud_orchestrator.cli.schema import schema
from hud_orchestrator.cli.serve import serve
from hud_orchestrator.cli.tasksets import tasksets
from hud_orchestrator.cli.validate import validate

__all__ = ["app", "main"]

app = typer.Typer(
    name="hud-orchestrate",
    no_args_is_help=True,
    # A traceback is for a bug, and exits.py prints it then; an error is one line.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("init")(init)
app.command("validate")(validate)
app.command("schema")(schema)
app.command("run")(run)
app.command("eval")(evaluate)
app.command("rollback", epilog=EPILOG)(rollback)
app.command("curve")(curve)
app.command("serve")(serve)
app.add_typer(models, name="models")
app.add_typer(tasksets, name="tasksets")
app.add_typer(rollouts, name="rollouts")
app.add_typer(env, name="env")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hud-orchestrate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Train an agent by on-policy reinforcement learning behind one gateway slug."""


def main() -> int:
    """Run the command line; the console script exits with what this returns."""
    code = exit_code(app)
    gc.freeze()  # the process ends: a look for garbage at all that torch brought would take a second
    return code
