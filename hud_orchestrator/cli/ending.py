"""The last lines of a run: what it reached, where everything is, and what to type next."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.table import Table

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.errors import ExitCode
from hud_orchestrator.summary import Summary


def show_ending(loaded: LoadedRun, summary: Summary) -> None:
    """Print the summary on standard output."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", f"{summary.name}: {_word(summary)}")
    table.add_row("held-out reward", _from_to(summary.eval_first, summary.eval_last))
    table.add_row("training reward", _from_to(summary.reward_first, summary.reward_last))
    table.add_row("steps", _steps(summary))
    table.add_row(
        "rollouts", ", ".join(f"{n} {outcome}" for outcome, n in summary.rollouts.items()) or "none"
    )
    if dropped := summary.reports.get("dropped"):
        table.add_row("reports", f"{summary.reports.get('reported', 0)} delivered, {dropped} dropped")
    table.add_row("model", summary.model)
    table.add_row("checkpoint", summary.head or "none yet")
    if summary.best is not None and summary.best.checkpoint != summary.head:
        table.add_row("best", f"{summary.best.checkpoint}, after step {summary.best.step}")
    if summary.rollback is not None:
        table.add_row("rollback", f"to step {summary.rollback.step} is asked for; run it again to go back")
    table.add_row("everything is in", f"{loaded.run.directory}/")
    table.add_row("next", next_command(loaded, summary))
    Console(soft_wrap=True).print(table)


def next_command(loaded: LoadedRun, summary: Summary) -> str:
    """What a person would want to type now."""
    again = f"hud-orchestrate run {shlex.quote(_relative(loaded))}"
    again += "".join(f" --set {shlex.quote(override)}" for override in loaded.overrides)
    if summary.exit_code != ExitCode.DONE or summary.rollback is not None:
        return again
    if loaded.run.service == "local":
        return f"hud-orchestrate serve --state {shlex.quote(str(loaded.run.directory / 'service'))}"
    # Of several values for a key the last one holds.
    return f"{again} --set run.steps={max(summary.steps, summary.steps_wanted) * 2}"


def _relative(loaded: LoadedRun) -> str:
    here = loaded.path.cwd()
    return str(loaded.path.relative_to(here) if loaded.path.is_relative_to(here) else loaded.path)


def _word(summary: Summary) -> str:
    words = {
        ExitCode.DONE: "done",
        ExitCode.INTERRUPTED: "interrupted; nothing is lost, run it again to continue",
        ExitCode.PAUSED: "paused by a guard; run it again to go on",
        ExitCode.ABORTED: "aborted; run it again to settle the step in hand and continue",
    }
    return words.get(ExitCode(summary.exit_code), "ended")


def _steps(summary: Summary) -> str:
    seconds = f"in {summary.seconds:.0f} s"
    if summary.steps > summary.steps_wanted:
        return f"{summary.steps} {seconds}, and no more: {summary.steps_wanted} are asked for"
    return f"{summary.steps} of {summary.steps_wanted} {seconds}"


def _from_to(first: float | None, last: float | None) -> str:
    if first is None or last is None:
        return "not measured"
    return f"{first:.3f} -> {last:.3f}"
