"""The options of ``hud-orchestrate eval``, spelled out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hud_orchestrator.cli.models.options import CHECKPOINT_HELP

Source = Annotated[
    str,
    typer.Argument(
        help="A .py, .json or .jsonl file, file.py:variable, a directory of such files, or the name or id "
        "of a taskset of the platform.",
        metavar="SOURCE",
    ),
]
ModelNames = Annotated[
    list[str],
    typer.Option("--model", "-m", help="Slug, name or id of a model; again for others.", metavar="MODEL"),
]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        help=f"Measure this instead of the head: {CHECKPOINT_HELP}; again for others, head for the head.",
        metavar="CHECKPOINT",
    ),
]
Everything = Annotated[
    bool, typer.Option("--all", help="Attempt every task; else, without a choice of tasks, only the first.")
]
TaskIds = Annotated[
    list[str] | None,
    typer.Option(help="Only these: slugs, ids of templates or positions from 0 on, with commas."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(help="Only tasks with this value in a column; again for more.", metavar="COLUMN=VALUE"),
]
GroupSize = Annotated[int, typer.Option("--group", min=1, help="Attempts at each task.")]
MaxConcurrent = Annotated[int, typer.Option(min=1, help="Attempts in flight at most.")]
Runtime = Annotated[
    str | None,
    typer.Option(
        help="Where environments run, as runtime.placement of a run file. Default: local for a source on "
        "disk, hud for a taskset of the platform."
    ),
]
EnvironmentFile = Annotated[
    str | None,
    typer.Option(
        "--environment",
        help="The .py file that defines the environments of a source of rows.",
        metavar="FILE",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(min=0, help="Default: 0, the likeliest tokens; 1 with more than one attempt at a task."),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Sampled in one turn at most.")]
MaxTurns = Annotated[int, typer.Option(min=1, help="Model turns in one attempt at most.")]
SystemPrompt = Annotated[str | None, typer.Option(help="Put before every conversation.")]
Deadline = Annotated[float, typer.Option(min=0.001, help="Seconds for one attempt, its grade included.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the sampling.")]
SolvedAt = Annotated[float, typer.Option(help="The least reward that pass@k takes for solved.")]
Output = Annotated[
    Path | None, typer.Option(help="Write what --json prints to this file too.", metavar="FILE")
]
Reporting = Annotated[
    bool,
    typer.Option(
        "--reporting/--no-reporting",
        help="Report a job for every column of the tables, and every attempt as a trace of it, as "
        "reporting.enabled of a run file; HUD_TELEMETRY_ENABLED=false turns it off too.",
    ),
]
Spans = Annotated[
    Literal["tokens", "steps", "none"],
    typer.Option(help="What is reported of an attempt besides its end, as reporting.spans of a run file."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before many attempts.")]
