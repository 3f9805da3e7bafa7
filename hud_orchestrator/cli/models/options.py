"""The options that several ``models`` commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EnvFile = Annotated[
    Path | None,
    typer.Option(
        "--env-file", help="Take the HUD_* addresses and the key from this file first.", metavar="FILE"
    ),
]

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="A run directory, or the state directory of serve: start the embedded service on it for the "
        "time of this command.",
        metavar="DIR",
    ),
]

Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="With --state: where prepared base models are kept, as for serve.", metavar="DIR"
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]

Handle = Annotated[str, typer.Argument(help="A slug, name or id of a model.", metavar="MODEL")]

CHECKPOINT_HELP = "a checkpoint's id, the beginning of one (4 characters or more), or its name"
