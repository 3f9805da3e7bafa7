"""One rollout as a person reads it, in the width of the terminal; 80 columns where there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from hud_orchestrator.cli.rollouts.grades import grade_lines
from hud_orchestrator.cli.rollouts.words import facts_line, visible
from hud_orchestrator.records import Rollout
from hud_orchestrator.steps import EpisodeStep, Source
from hud_orchestrator.store.archive import Kept


def out(*parts: RenderableType) -> None:
    """Print *parts*, without the spaces that fill lines up, in whatever the output can encode."""
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as lines:
        console.print(*parts, sep="\n")
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines.get().splitlines():
        print(line.rstrip().encode(encoding, "backslashreplace").decode(encoding))


def drawn(kept: Kept) -> Iterator[RenderableType]:
    """Head, steps and grade."""
    yield _head(kept)
    turns = 0
    for step in kept.rollout.steps:
        turns += step.source is Source.AGENT
        yield Text()
        yield Rule(_title(step, turns), align="left", style="dim")
        yield from _STEPS[step.source](step, kept.rollout)
    if kept.rollout.grade is not None and all(step.source is not Source.TASK for step in kept.rollout.steps):
        yield Text()
        yield Rule("grade", align="left", style="dim")
        yield from grade_lines(kept.rollout.grade)


def _head(kept: Kept) -> RenderableType:
    rollout, ticket = kept.rollout, kept.rollout.ticket
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    reward = "no reward" if rollout.reward is None else f"reward {rollout.reward:g}"
    table.add_row("rollout", f"{ticket.group}.{ticket.member}, {rollout.outcome}, {reward}")
    if rollout.detail:
        table.add_row("", Text(visible(rollout.detail), style="red"))
    table.add_row("task", visible(f"{ticket.task.slug} ({ticket.task.env}:{ticket.task.id})"))
    table.add_row("arguments", visible(json.dumps(dict(ticket.task.args), ensure_ascii=False)))
    table.add_row("group", _group(kept))
    table.add_row("policy", _policy(rollout))
    table.add_row("time", _time(rollout))
    if rollout.began_at:
        began = datetime.fromtimestamp(rollout.began_at, UTC)
        table.add_row("began", began.strftime("%Y-%m-%d %H:%M:%S UTC"))
    table.add_row("trace", rollout.trace_id)
    return table


def _group(kept: Kept) -> str:
    if kept.ending is None:
        return "waits to be trained on"
    return kept.ending + ("" if kept.step is None else f" at step {kept.step}")


def _policy(rollout: Rollout) -> str:
    turns = len(rollout.samples)
    counted = f"{rollout.num_tokens} tokens in {turns} turn{'s' if turns != 1 else ''}"
    versions = sorted({sample.version for sample in rollout.samples})
    if rollout.remote:
        return "sampled elsewhere; the service has the tokens"
    if not versions:
        return "no tokens"
    span = f"version {versions[0]}" if len(versions) == 1 else f"versions {versions[0]} to {versions[-1]}"
    return f"{span}, {counted}"


def _time(rollout: Rollout) -> str:
    phases = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in rollout.phases.items())
    tries = f", {rollout.attempts} attempts" if rollout.attempts > 1 else ""
    return f"{rollout.seconds:.2f} s{tries} ({phases})"


def _title(step: EpisodeStep, turn: int) -> str:
    took = step.ended - step.began
    name = {
        Source.USER: "environment",
        Source.AGENT: f"turn {turn}",
        Source.TOOL: f"tool {visible(str((step.call or {}).get('name')))}",
        Source.TASK: "grade",
        Source.SYSTEM: "trouble",
    }[step.source]
    return facts_line(
        name, f"at {step.began:.2f} s", took >= 0.005 and f"took {took:.2f} s", step.finish_reason
    )


def _environment(step: EpisodeStep, _rollout: Rollout) -> Iterator[RenderableType]:
    for message in step.messages:
        role = str(message.get("role"))
        if role != "user":
            yield Text(visible(f"{role}:"), style="bold")
        yield Text(visible(_content(message.get("content"))))


def _turn(step: EpisodeStep, _rollout: Rollout) -> Iterator[RenderableType]:
    if step.reasoning:
        yield Padding(Text(visible(step.reasoning), style="dim italic"), (0, 0, 0, 2))
    if step.content:
        yield Text(visible(step.content))
    for call in step.tool_calls:
        yield Text(visible(f"-> {call.get('name')} {call.get('arguments')}"), style="cyan")
    if not (step.content or step.tool_calls):
        yield Text("(nothing)", style="dim")


def _tool(step: EpisodeStep, _rollout: Rollout) -> Iterator[RenderableType]:
    if step.result is None:
        yield Text("(no answer)", style="red")
        return
    style = "red" if step.result.get("isError") else ""
    yield Text(visible(_content(step.result.get("content"))) or "(nothing)", style=style)


def _grade(_step: EpisodeStep, rollout: Rollout) -> Iterator[RenderableType]:
    yield from grade_lines(rollout.grade or {})


def _trouble(step: EpisodeStep, _rollout: Rollout) -> Iterator[RenderableType]:
    yield Text(visible(step.error or ""), style="red")


def _content(content: Any) -> str:
    if isinstance(content, Sequence) and not isinstance(content, str):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")


_STEPS = {
    Source.USER: _environment,
    Source.AGENT: _turn,
    Source.TOOL: _tool,
    Source.TASK: _grade,
    Source.SYSTEM: _trouble,
}
