"""``rollouts list``: a line for each rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.models.asking import answer_errors, print_json
from hud_orchestrator.cli.models.options import AsJson
from hud_orchestrator.cli.rollouts.place import Run, archive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hud_orchestrator.store.archive import Line

COLUMNS = ("Rollout", "Step", "Task", "Outcome", "Reward", "Turns", "Tokens", "Seconds")
_WORDS = ("Task", "Outcome")


def listing(
    run: Run,
    *,
    step: Annotated[int | None, typer.Option(help="Only those of this training step.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only those that ended so: finished ...")] = None,
    group: Annotated[int | None, typer.Option(help="Only those of this group.")] = None,
    task: Annotated[str | None, typer.Option(help="Only attempts at the task of this slug.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The highest rewards first.")] = False,
    worst: Annotated[bool, typer.Option("--worst", help="The lowest rewards first.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Lines at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the rollouts of a run, the newest last.

    A rollout is called GROUP.MEMBER. Its step is the one that trained on it, or for which its group was
    dropped; it has none while it waits.
    """
    from dataclasses import asdict

    from hud_orchestrator.cli.rollouts.drawing import out
    from hud_orchestrator.errors import ConfigError
    from hud_orchestrator.records import Outcome
    from hud_orchestrator.store.archive import Wanted

    def answer() -> None:
        if best and worst:
            raise ConfigError("--best and --worst exclude each other; give one of them")
        if outcome is not None and outcome not in set(Outcome):
            raise ConfigError(f"there is no outcome {outcome!r}; allowed: {', '.join(Outcome)}")
        lines = archive(run).lines(
            Wanted(
                step=step,
                outcome=outcome,
                group=group,
                task=task,
                order="best" if best else "worst" if worst else "newest",
                limit=limit,
            )
        )
        if not (best or worst):
            lines.reverse()
        if as_json:
            print_json([asdict(line) for line in lines])
        elif lines:
            out(_table(lines))
        else:
            print("no rollouts; one is there about a second after it was graded")

    answer_errors(answer, as_json=as_json)


def _table(lines: Sequence[Line]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in COLUMNS:
        words = title in _WORDS
        # What is long is broken, not cut: somebody wants to copy it.
        table.add_column(title, overflow="fold", no_wrap=not words, justify="left" if words else "right")
    for line in lines:
        table.add_row(
            f"{line.group_number}.{line.member}",
            "-" if line.step is None else str(line.step),
            line.task,
            line.outcome,
            "-" if line.reward is None else f"{line.reward:.3f}",
            str(line.turns),
            str(line.tokens),
            f"{line.seconds:.2f}",
        )
    return table
