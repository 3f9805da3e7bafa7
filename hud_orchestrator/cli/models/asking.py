"""Run one command against the service: connect, ask, and end with an answer or one clear error."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from hud_orchestrator.clients.catalog import Catalog
    from hud_orchestrator.clients.transport import Transport
    from hud_orchestrator.embedded import Addresses

PIPE_WIDTH = 400
"""Columns where nobody looks: nothing is cut off that a program may want."""


def ask_catalog(
    question: Callable[[Catalog, str], Awaitable[None]],
    *,
    env_file: Path | None,
    state: Path | None,
    cache: Path | None = None,
    as_json: bool = False,
) -> None:
    """Await ``question(catalog, gateway_url)``, with errors as ``answer_errors`` tells them."""
    from hud_orchestrator.clients.catalog import Catalog

    async def of_catalog(transport: Transport, gateway_url: str) -> None:
        await question(Catalog(transport), gateway_url)

    ask_service(of_catalog, env_file=env_file, state=state, cache=cache, as_json=as_json)


def ask_service(
    question: Callable[[Transport, str], Awaitable[None]],
    *,
    env_file: Path | None,
    state: Path | None = None,
    cache: Path | None = None,
    as_json: bool = False,
) -> None:
    """Await ``question(transport, gateway_url)``, where the transport leads to the platform's API."""

    async def of_platform(addresses: Addresses) -> None:
        from hud_orchestrator.clients.transport import Transport

        async with Transport(addresses.api_url, addresses.api_key) as transport:
            await question(transport, addresses.gateway_url)

    ask_addresses(of_platform, env_file=env_file, state=state, cache=cache, as_json=as_json)


def ask_addresses(
    question: Callable[[Addresses], Awaitable[None]],
    *,
    env_file: Path | None,
    state: Path | None,
    cache: Path | None,
    as_json: bool,
) -> None:
    """Await *question*, which is told where everything is."""
    import anyio

    from hud_orchestrator import logs
    from hud_orchestrator.cli.models.place import Place, service

    async def main() -> None:
        async with service(Place(env_file=env_file, state=state, cache=cache)) as addresses:
            await question(addresses)

    logs.configure(stream=None, as_json=False, level="error")
    answer_errors(lambda: anyio.run(main), as_json=as_json)


def answer_errors(call: Callable[[], object], *, as_json: bool) -> None:
    """Run *call*; with *as_json*, an error of ours becomes an object on standard output.

    Raises:
        typer.Exit: with *as_json*, after the object was printed, with the error's own code.
    """
    from hud_orchestrator.errors import ExitCode, exit_code_of, leaves

    try:
        call()
    except (Exception, BaseExceptionGroup) as error:
        code = exit_code_of(error)
        if not as_json or code in (ExitCode.BUG, ExitCode.INTERRUPTED):
            raise
        ends = [leaf for leaf in leaves(error) if exit_code_of(leaf) is code]
        print(json.dumps(_as_object(ends[0]), indent=2))
        raise typer.Exit(code) from None


def console() -> Console:
    """Standard output: as wide as the terminal, or as wide as it takes."""
    from rich.console import Console

    return Console(
        highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH
    )


def show(table: Table) -> None:
    """Print *table* without the spaces that fill its lines up."""
    out = console()
    with out.capture() as lines:
        out.print(table)
    print("".join(f"{line.rstrip()}\n" for line in lines.get().splitlines()), end="")


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of text under *titles*."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    show(table)


def print_json(value: Any) -> None:
    """Print *value* as JSON."""
    print(json.dumps(value, indent=2))


def _as_object(error: BaseException) -> dict[str, str]:
    from hud_orchestrator.settings import redacted

    # Our messages end in what to do, after a semicolon.
    message, _, suggestion = redacted(str(error)).rpartition("; ")
    found = {"error": _kind(error), "message": message or suggestion}
    return {**found, "suggestion": suggestion} if message else found


def _kind(error: BaseException) -> str:
    from hud_orchestrator import errors

    if isinstance(error, errors.RequestRejected):
        return {404: "not_found", 409: "conflict", 429: "rate_limited"}.get(error.status, "rejected")
    kinds = {
        errors.NotFound: "not_found",
        errors.ConfigError: "usage",
        errors.KeyRefused: "permission_denied",
        errors.ServiceUnreachable: "unreachable",
        errors.ServiceBusy: "server_error",
        errors.StateInUse: "state_in_use",
        errors.StateUnwritable: "state_unwritable",
    }
    return next((kind for known, kind in kinds.items() if isinstance(error, known)), "failed")
