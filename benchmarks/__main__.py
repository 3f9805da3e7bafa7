"""Run benchmarks and print a table of each; nothing here passes or fails."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks.bookkeeping import Bookkeeping, bookkeeping
from benchmarks.http_clients import http_clients
from benchmarks.measure import Row
from benchmarks.placements import placements
from benchmarks.reporting import Told, told
from benchmarks.store import store


def _parts() -> Table:
    table = Table("what", "milliseconds of processor time each", "ratio to the first of its kind")
    for rows in (http_clients(), placements(), store()):
        _add(table, rows)
    return table


BENCHMARKS: dict[str, Callable[[], Table]] = {
    "parts": _parts,
    "reporting": lambda: _reporting(told()),
    "bookkeeping": lambda: _bookkeeping(bookkeeping()),
}


def main() -> None:
    """Measure what is named, or everything, then print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        parser.error(f"there is no benchmark {unknown[0]!r}; allowed: {', '.join(BENCHMARKS)}")
    for name in names:
        Console().print(BENCHMARKS[name]())


def _reporting(rows: list[Told]) -> Table:
    table = Table("told about each rollout", "ms of wall time", "its pace", "ms of processor time", "ratio")
    for row in rows:
        table.add_row(row.who, f"{row.wall_ms:.3f}", f"{row.pace:.3f}", f"{row.cpu_ms:.3f}", f"{row.cpu:.2f}")
    return table


def _bookkeeping(found: Bookkeeping) -> Table:
    table = Table("a step of the quickstart, with the ledger and the store", "")
    lower, upper = found.quartiles
    for what, value in {
        "seconds with them": f"{found.with_s:.3f}",
        "seconds without": f"{found.without_s:.3f}",
        "ratio, and its standard error": f"{found.ratio:.4f} +- {found.error:.4f}",
        "quartiles of the ratios of pairs": f"{lower:.3f} to {upper:.3f}",
        "a step waits for the store": f"{found.waited:.2%} of the time",
        "the store is at work": f"{found.busy:.2%} of the time",
        "and uses a processor": f"{found.cpu:.2%} of the time",
        "rows are made for it": f"{found.rows:.2%} of the time",
    }.items():
        table.add_row(what, value)
    return table


def _add(table: Table, rows: list[Row]) -> None:
    for row in rows:
        table.add_row(row.what, f"{row.cpu_ms:.3f}", f"{row.cpu_ms / rows[0].cpu_ms:.2f}")
    table.add_section()


if __name__ == "__main__":
    main()
