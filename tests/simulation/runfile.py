"""The run file of a simulation."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.losses import CLIENT
from hud_orchestrator.config.run import RunFile
from tests.simulation.mix import Mix

TASKS = json.dumps([{"env": "parity", "id": "even", "args": {"n": n}} for n in range(8)])


def loaded_run(directory: Path, seed: int, steps: int, mix: Mix) -> LoadedRun:
    """A run in *directory*, which need not exist."""
    directory.mkdir(parents=True)
    tasks = directory / "tasks.json"
    tasks.write_text(TASKS)
    run = _run_file(
        steps,
        mix.staleness,
        mix.groups_per_step,
        mix.group_size,
        mix.evaluates_every,
        drops=mix.drops,
        waits=mix.waits,
        own_loss=mix.own_loss,
        chooses=mix.chooses,
        back=mix.back,
    )
    source = run.taskset.train[0].model_copy(update={"source": str(tasks)})
    run = run.model_copy(
        update={
            "run": run.run.model_copy(update={"seed": seed, "state_dir": directory / "state"}),
            "taskset": run.taskset.model_copy(
                update={"train": (source,), "heldout": run.taskset.heldout and (source,)}
            ),
        }
    )
    origins: dict[str, str] = defaultdict(lambda: "default")
    return LoadedRun(run=run, path=directory / "run.yaml", origins=origins, warnings=())


def changed(loaded: LoadedRun, staleness: int, groups_per_step: int) -> LoadedRun:
    """The run file as somebody has changed it while nothing ran."""
    run = loaded.run
    given = run.model_copy(
        update={
            "pipeline": run.pipeline.model_copy(update={"staleness": staleness}),
            "rollout": run.rollout.model_copy(update={"groups_per_step": groups_per_step}),
        }
    )
    return replace(loaded, run=given)


@lru_cache
def _run_file(
    steps: int,
    staleness: int,
    groups_per_step: int,
    group_size: int,
    evaluates_every: int | None,
    *,
    drops: bool,
    waits: bool,
    own_loss: bool,
    chooses: bool,
    back: tuple[int, int] | None,
) -> RunFile:
    """Checked once: that takes as long as some steps."""
    guards = []
    if back is not None:
        # Goes back twice, and pauses the run whenever it would once more.
        guards = [
            {
                "metric": "reward_mean", "above": -1, "in_a_row": back[0], "cool_down": 8,
                "action": "roll_back", "steps": back[1], "most": 2,
            }
        ]  # fmt: skip
    return RunFile.model_validate(
        {
            "run": {"name": "it", "steps": steps},
            "model": {"slug": "it", "base": "base"},
            "service": "hud",
            "taskset": {
                "train": "tasks.json", "heldout": "tasks.json" if evaluates_every else None,
                "curriculum": {"weighting": "near_half", "skip_solved": 0.9} if chooses else {},
            },
            "evaluation": {"every": evaluates_every or 10, "limit": 2},
            "agent": {"max_tokens": 1},
            "rollout": {
                "group_size": group_size, "groups_per_step": groups_per_step, "concurrency": 6,
                "deadline_s": 30, "grading_reserve_s": 5,
            },
            "pipeline": {"staleness": staleness},
            "trainer": {
                "learning_rate": {"peak": 1e-3}, "call_timeout_s": 60,
                "on_lost_step": "drop" if drops else "redo",
                "loss": f"{CLIENT}importance_sampling" if own_loss else "importance_sampling",
                "on_other_trainer": "wait" if waits else "refuse",
            },
            "guards": guards,
            "reporting": {"enabled": False},
        }
    )  # fmt: skip
