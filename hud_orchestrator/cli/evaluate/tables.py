"""What an evaluation found, for people: one column for every candidate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hud_orchestrator.cli.models.asking import show
from hud_orchestrator.rules.scores import Scores, difference

if TYPE_CHECKING:
    from rich.table import Table

    from hud_orchestrator.rules.statistics import Estimate

TASKS_SHOWN = 40
"""Tasks that have a row; a file has them all."""
DETAIL_SHOWN = 160
"""Characters of what went wrong."""

Found = Mapping[str, Scores]
"""Scores by the candidate's label."""


def show_scores(found: Found) -> None:
    """Print what every candidate scored, in all and in parts, and what failed."""
    show(_whole(found))
    _section("subscores", found, {label: scored.subscores for label, scored in found.items()})
    for column in dict.fromkeys(name for scored in found.values() for name in scored.columns):
        parts = {label: scored.columns.get(column, {}) for label, scored in found.items()}
        _section(f"by {column}", found, parts)
    _tasks(found)
    for line in _failures(found):
        print(line)


def _whole(found: Found) -> Table:
    first, *others = found.values()
    table = _table("", found)
    table.add_row("reward", *(_estimate(scored.reward) for scored in found.values()))
    if others:
        differences = [_signed(difference(scored, first)) for scored in others]
        table.add_row("difference, task by task", "", *differences)
    for k in dict.fromkeys(k for scored in found.values() for k in scored.pass_at):
        rates = (scored.pass_at.get(k) for scored in found.values())
        table.add_row(f"pass@{k}", *("-" if rate is None else f"{rate:.3f}" for rate in rates))
    table.add_row("tasks", *(str(len(scored.tasks)) for scored in found.values()))
    table.add_row("graded", *(f"{scored.graded} of {scored.attempts}" for scored in found.values()))
    return table


def _section(title: str, found: Found, parts: Mapping[str, Mapping[str, Estimate]]) -> None:
    names = list(dict.fromkeys(name for estimates in parts.values() for name in estimates))
    if not names:
        return
    print()
    table = _table(title, found)
    for name in names:
        table.add_row(name, *(_estimate(parts[label].get(name)) for label in found))
    show(table)


def _tasks(found: Found) -> None:
    slugs = list(dict.fromkeys(slug for scored in found.values() for slug in scored.tasks))
    print()
    table = _table("tasks", found)
    for slug in slugs[:TASKS_SHOWN]:
        table.add_row(slug, *(_mean(scored.tasks.get(slug, ())) for scored in found.values()))
    show(table)
    if len(slugs) > TASKS_SHOWN:
        print(f"and {len(slugs) - TASKS_SHOWN} more; --output FILE has them all")


def _failures(found: Found) -> Iterator[str]:
    """Failures are in no mean, so they are said."""
    for label, scored in found.items():
        for outcome, (count, detail) in scored.failures.items():
            said = " ".join((detail or "no detail").split())[:DETAIL_SHOWN]
            yield f"failed: {label}: {count} {outcome}, the last with: {said}"


def _table(title: str, found: Found) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(title, overflow="fold")
    for label in found:
        table.add_column(label, justify="right", no_wrap=True)
    return table


def _mean(rewards: Sequence[float]) -> str:
    return f"{sum(rewards) / len(rewards):.3f}" if rewards else "-"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.interval is None:
        return f"{estimate.mean:.3f}"
    low, high = estimate.interval
    return f"{estimate.mean:.3f} ({low:.3f} to {high:.3f})"


def _signed(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.interval is None:
        return f"{estimate.mean:+.3f}"
    low, high = estimate.interval
    return f"{estimate.mean:+.3f} ({low:+.3f} to {high:+.3f})"
