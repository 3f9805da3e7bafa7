"""``hud-orchestrate eval``: attempt tasks with models or checkpoints, side by side, and tell the scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hud_orchestrator.cli.evaluate.options import (
    Checkpoints,
    Deadline,
    EnvironmentFile,
    Everything,
    GroupSize,
    MaxConcurrent,
    MaxTokens,
    MaxTurns,
    ModelNames,
    Output,
    Reporting,
    Runtime,
    Seed,
    SolvedAt,
    Source,
    Spans,
    SystemPrompt,
    TaskIds,
    Temperature,
    Where,
    Yes,
)
from hud_orchestrator.cli.models.asking import answer_errors
from hud_orchestrator.cli.models.options import AsJson, Cache, EnvFile, State

if TYPE_CHECKING:
    from hud_orchestrator.cli.evaluate.wanted import Wanted
    from hud_orchestrator.cli.models.place import Place


def evaluate(
    source: Source,
    models: ModelNames,
    *,
    checkpoints: Checkpoints = None,
    everything: Everything = False,
    task_ids: TaskIds = None,
    where: Where = None,
    group: GroupSize = 1,
    max_concurrent: MaxConcurrent = 30,
    runtime: Runtime = None,
    environment: EnvironmentFile = None,
    temperature: Temperature = None,
    max_tokens: MaxTokens = 256,
    max_turns: MaxTurns = 10,
    system_prompt: SystemPrompt = None,
    deadline: Deadline = 600,
    seed: Seed = 0,
    solved_at: SolvedAt = 1.0,
    reporting: Reporting = True,
    spans: Spans = "tokens",
    output: Output = None,
    as_json: AsJson = False,
    yes: Yes = False,
    env_file: EnvFile = None,
    state: State = None,
    cache: Cache = None,
) -> None:
    """Measure models, or checkpoints, on a taskset: mean reward with its confidence interval, pass@k, tables.

    Attempts that failed are no low rewards: they are counted and named, and are in no mean. The exit code
    is 1 when not one attempt was graded.
    """
    from hud_orchestrator.cli.evaluate.wanted import Wanted
    from hud_orchestrator.cli.models.place import Place

    wanted = Wanted(
        source=source,
        models=models,
        checkpoints=checkpoints or (),
        everything=everything,
        only=[name.strip() for names in task_ids or () for name in names.split(",") if name.strip()],
        where=where or (),
        group=group,
        concurrency=max_concurrent,
        runtime=runtime,
        environment=environment,
        temperature=(1.0 if group > 1 else 0.0) if temperature is None else temperature,
        max_tokens=max_tokens,
        max_turns=max_turns,
        system_prompt=system_prompt,
        deadline_s=deadline,
        seed=seed,
        solved_at=solved_at,
        reporting=reporting,
        spans=spans,
    )
    place = Place(env_file=env_file, state=state, cache=cache)
    answer_errors(lambda: _evaluate(wanted, place, yes=yes, output=output, as_json=as_json), as_json=as_json)


def _evaluate(wanted: Wanted, place: Place, *, yes: bool, output: Path | None, as_json: bool) -> None:
    """Measure and say what was found.

    Raises:
        typer.Exit: with 1 when not one attempt was graded.
    """
    import anyio

    from hud_orchestrator import logs
    from hud_orchestrator.cli.evaluate.session import session
    from hud_orchestrator.errors import ExitCode
    from hud_orchestrator.heap import quiet_heap

    logs.configure(stream=None, as_json=False, level="error")
    with quiet_heap():
        graded = anyio.run(
            lambda: session(wanted, place, yes=yes, output=output, as_json=as_json),
            backend_options={"use_uvloop": True},
        )
    if not graded:
        raise typer.Exit(ExitCode.RUN_FAILED)
