"""Find the store of the run that somebody means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hud_orchestrator.store.archive import Archive

RUNS = Path("runs")
STORE = "store.db"

Run = Annotated[str, typer.Argument(help="A run's directory, or its name below runs/.", metavar="RUN")]


def archive(run: str) -> Archive:
    """The store of *run*, to look at.

    Raises:
        NotFound: there is no such run, or it has no store.
    """
    from hud_orchestrator.store.archive import Archive

    return Archive(run_directory(run) / STORE)


def run_directory(run: str) -> Path:
    """The directory of *run*.

    Raises:
        NotFound: there is no such run, or it has no store.
    """
    from hud_orchestrator.errors import NotFound

    for directory in (Path(run), RUNS / run):
        if (directory / STORE).is_file():
            return directory
    if Path(run).is_dir():
        raise NotFound(f"{run}: has no {STORE}; give the directory of a run")
    known = sorted(path.parent.name for path in RUNS.glob(f"*/{STORE}"))
    there = f"runs/ has: {', '.join(known)}" if known else "runs/ has none here; give a run's directory"
    raise NotFound(f"there is no run {run!r}; {there}")
