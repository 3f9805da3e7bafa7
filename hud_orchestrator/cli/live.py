"""What a person at a terminal sees while a run goes on."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import anyio
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hud_orchestrator.config.run import RunFile
from hud_orchestrator.metrics import Scoreboard

REFRESH_S = 0.25
SPARKS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 40


@asynccontextmanager
async def live_view(run: RunFile, board: Scoreboard, *, shown: bool) -> AsyncGenerator[None, None]:
    """Draw *board* a few times a second for the length of the block, when it is *shown*."""
    if not shown:
        yield
        return
    began = time.monotonic()
    with Live(_view(run, board, began), auto_refresh=False, transient=True) as live:

        async def draw() -> None:
            while True:
                live.update(_view(run, board, began), refresh=True)
                await anyio.sleep(REFRESH_S)

        async with anyio.create_task_group() as beside:
            beside.start_soon(draw, name="live-view")
            yield
            beside.cancel_scope.cancel()


def _view(run: RunFile, board: Scoreboard, began: float) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    facts.add_row("step", Group(f"{board.step} of {board.total_steps}", _bar(board)))
    facts.add_row("reward", _curve(board.rewards))
    facts.add_row("held-out", _curve([reward for _, reward in board.evaluations]))
    facts.add_row("rollouts", _rollouts(board))
    facts.add_row("tokens", f"{board.tokens_per_second:,.0f} per second")
    facts.add_row("staleness", f"{board.staleness:.0f} of at most {run.pipeline.staleness} steps")
    facts.add_row("time", _times(board, began))
    title = f"{run.run.name}: {run.model.slug} on {run.service}"
    return Panel(facts, title=title, subtitle=_phase(board), title_align="left", subtitle_align="left")


def _bar(board: Scoreboard) -> ProgressBar:
    return ProgressBar(total=board.total_steps, completed=board.step, width=SPARKLINE_WIDTH)


def _curve(values: Sequence[float]) -> Text:
    if not values:
        return Text("none yet", style="dim")
    return Text.assemble((f"{values[-1]:.3f}  ", "bold green"), sparkline(values))


def sparkline(values: Sequence[float], *, width: int = SPARKLINE_WIDTH) -> str:
    """*values* as bars of at most *width* characters, each the mean of its share, from least to most."""
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((mean - low) / span * (len(SPARKS) - 1))] for mean in means)


def _rollouts(board: Scoreboard) -> str:
    done = sum(board.outcomes.values())
    return f"{board.flying} in flight, {done} done, {board.cut_short} cut short, {board.failed} failed"


def _times(board: Scoreboard, began: float) -> str:
    left = board.seconds_left
    spent = f"{time.monotonic() - began:.0f} s"
    return spent if left is None else f"{spent}, about {left:.0f} s to finish"


def _phase(board: Scoreboard) -> str:
    if board.paused is not None:
        return f"paused: {board.paused}"
    if board.evaluating is None:
        return board.phase
    done, planned = board.evaluating
    return f"evaluating: {done} of {planned}"
