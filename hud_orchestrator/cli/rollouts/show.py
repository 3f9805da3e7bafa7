"""``rollouts show``: one rollout, from its prompt to its grade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hud_orchestrator.cli.models.asking import answer_errors, print_json
from hud_orchestrator.cli.models.options import AsJson
from hud_orchestrator.cli.rollouts.place import Run, archive

if TYPE_CHECKING:
    from hud_orchestrator.store.archive import Kept


def show(
    run: Run,
    which: Annotated[
        str, typer.Argument(help="GROUP.MEMBER, or a trace id or its beginning.", metavar="WHICH")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what happened in one rollout: what was said, what tools answered, and how it was graded.

    With --json also the token ids and log-probabilities of every turn.
    """
    from hud_orchestrator.cli.rollouts.drawing import drawn, out

    def answer() -> None:
        kept = archive(run).named(which)
        if as_json:
            print_json(_facts(kept))
        else:
            out(*drawn(kept))

    answer_errors(answer, as_json=as_json)


def _facts(kept: Kept) -> dict[str, Any]:
    import msgspec

    facts = msgspec.to_builtins(kept.rollout)
    ticket = facts.pop("ticket")
    return {**ticket, **facts, "step": kept.step, "ending": kept.ending}
