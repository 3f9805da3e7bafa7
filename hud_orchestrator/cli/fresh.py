"""``run --fresh``: an earlier run is set aside, and not without a word when there is something in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hud_orchestrator.directory import RunDirectory


UNREADABLE = "a run whose store cannot be read"
OF_NO_RUN = "files without a run's store"


def begin_anew(directory: RunDirectory, *, yes: bool) -> None:
    """Set what *directory* holds aside, and say where it is.

    Raises:
        ConfigError: it holds work or what is of no run, and nobody says *yes*; or somebody works inside it.
        StateInUse: a run is going on in it.
    """
    # A run that goes on is refused below, whatever anybody says.
    if not yes and directory.holder() is None:
        _confirm(directory)
    kept = directory.set_aside()
    if kept is not None:
        print(f"set aside what was there: {kept}", file=sys.stderr)


def _confirm(directory: RunDirectory) -> None:
    from hud_orchestrator.errors import ConfigError

    held = _held(directory)
    if held is None:
        return
    fact = f"{directory.path}: --fresh would set aside {held}"
    if not sys.stdin.isatty():
        continues = "" if held in (UNREADABLE, OF_NO_RUN) else "leave --fresh out to continue that run, "
        raise ConfigError(f"{fact}; add --yes, {continues}or choose another run.name")
    print(f"{fact}: go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if input().strip().lower() not in ("y", "yes"):
        raise ConfigError("not confirmed; nothing was changed")


def _held(directory: RunDirectory) -> str | None:
    """The work in *directory*, in words; ``None``: there is none."""
    from hud_orchestrator.errors import StateError
    from hud_orchestrator.store.archive import Archive

    if not directory.store.exists():
        here = directory.path.iterdir() if directory.path.is_dir() else ()
        return OF_NO_RUN if any(path != directory.lock for path in here) else None
    try:
        steps, rollouts = Archive(directory.store).counts()
    except StateError:
        return UNREADABLE
    return f"a run of {steps} steps and {rollouts} rollouts" if steps or rollouts else None
