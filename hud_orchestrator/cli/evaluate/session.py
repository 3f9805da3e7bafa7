"""One evaluation from the service to the tables: find, ask, attempt, tell."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from hud_orchestrator.cli.evaluate.candidates import Candidate, candidates
from hud_orchestrator.cli.evaluate.contest import Measured, Told, contest
from hud_orchestrator.cli.evaluate.document import document
from hud_orchestrator.cli.evaluate.tables import show_scores
from hud_orchestrator.cli.evaluate.wanted import Wanted
from hud_orchestrator.cli.models.asking import print_json
from hud_orchestrator.cli.models.place import Place, service
from hud_orchestrator.clients.catalog import Catalog
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.config.placement import placement_of
from hud_orchestrator.directory import write_atomically
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Rollout
from hud_orchestrator.rules.scores import scores

ASKED_ABOVE = 10
"""Attempts on somebody else's service that need no confirmation."""


async def session(wanted: Wanted, place: Place, *, yes: bool, output: Path | None, as_json: bool) -> bool:
    """Measure as *wanted*, print and write what was found; whether any attempt was graded.

    Raises:
        ConfigError: what is wanted does not exist, cannot work, or was not confirmed.
        ServiceError: the service cannot be used.
    """
    loaded = wanted.run_file()
    _check_output(output)
    async with service(place) as addresses:
        tasks, known = await wanted.tasks()
        async with Transport(addresses.api_url, addresses.api_key) as transport:
            contestants = await candidates(
                Catalog(transport), models=wanted.models, checkpoints=wanted.checkpoints
            )
        planned = len(contestants) * len(tasks) * wanted.group
        placed = placement_of(loaded.run, loaded.resolve)
        if not as_json:
            print(_headline(wanted, len(tasks), known, placed))
        if place.state is None and not yes:
            _confirm(planned, addresses.gateway_url)
        with _progress(contestants, planned) as told:
            measured = await contest(loaded, addresses, contestants, tasks, told=told)
    found = [scores(one.rollouts, solved_at=wanted.solved_at) for one in measured]
    facts = {
        "source": wanted.source,
        "runtime": placed,
        "group": wanted.group,
        "temperature": wanted.temperature,
        "seed": wanted.seed,
        "solved_at": wanted.solved_at,
    }
    whole = document(measured, found, facts=facts)
    _tell(whole, output=output, as_json=as_json)
    if not as_json:
        show_scores({one.candidate.label: scored for one, scored in zip(measured, found, strict=True)})
        _tell_drops(measured)
    return any(scored.graded for scored in found)


def _tell_drops(measured: Sequence[Measured]) -> None:
    for one in measured:
        if dropped := one.reports["dropped"]:
            print(f"not reported: {one.candidate.label}: {dropped} of {len(one.rollouts)} attempts")


def _check_output(output: Path | None) -> None:
    """Find out before the attempts what would lose them.

    Raises:
        ConfigError: the file cannot be there.
    """
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise ConfigError(f"--output: {output} is a directory, or is in none; name a file")


def _headline(wanted: Wanted, chosen: int, known: int, placed: str) -> str:
    which = f"{chosen} tasks" if chosen != 1 else "1 task"
    if chosen < known:
        which = f"the first of {known} tasks (--all attempts them all)"
    times = f" x {wanted.group}" if wanted.group > 1 else ""
    return f"{wanted.source}: {which}{times}, temperature {wanted.temperature:g}, environments: {placed}"


def _confirm(planned: int, gateway_url: str) -> None:
    """Ask before many attempts on a service that is not on this machine.

    Raises:
        ConfigError: nobody is there to ask, or the answer is no.
    """
    host = urlsplit(gateway_url).hostname or ""
    if planned <= ASKED_ABOVE or host in ("localhost", "::1") or host.startswith("127."):
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            f"this is {planned} attempts on {gateway_url}, and nobody is there to confirm it; add --yes"
        )
    if input(f"{planned} attempts on {gateway_url}: go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("not confirmed; nothing was attempted")


@contextmanager
def _progress(contestants: Sequence[Candidate], planned: int) -> Iterator[Told]:
    """A line on a terminal's standard error that follows the attempts."""
    line = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[seen]}"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    counts = Counter[str]()
    with line:
        row = line.add_task(contestants[0].label, total=planned, seen="")

        def told(candidate: Candidate, rollout: Rollout) -> None:
            counts["failed" if rollout.reward is None else "graded"] += 1
            seen = ", ".join(f"{count} {what}" for what, count in counts.items())
            line.update(row, advance=1, description=candidate.label, seen=seen)

        yield told


def _tell(whole: dict[str, Any], *, output: Path | None, as_json: bool) -> None:
    if output is not None:
        write_atomically(output, json.dumps(whole, indent=2) + "\n")
    if as_json:
        print_json(whole)
