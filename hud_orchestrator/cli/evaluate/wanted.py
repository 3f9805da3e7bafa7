"""What an evaluation is asked to do: the options as one value, and as the sections of a run file.

The rest of the program speaks of run files: checks, placements and attempters are made from one here as they
are for a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hud_orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from hud_orchestrator.config.load import LoadedRun
    from hud_orchestrator.records import Task

OPTIONS = {
    "taskset.train": "SOURCE",
    "runtime.placement": "--runtime",
    "runtime.source": "--environment",
    "rollout.grading_reserve_s": "--deadline",
}
"""What the command line calls the keys that checks speak of."""

GRADING_RESERVE_S = 60.0
"""Seconds of the deadline that are kept for the grader, or a quarter of it when that is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options of ``hud-orchestrate eval``."""

    source: str
    models: Sequence[str]
    checkpoints: Sequence[str]
    everything: bool
    only: Sequence[str]
    where: Sequence[str]
    group: int
    concurrency: int
    runtime: str | None
    environment: str | None
    temperature: float
    max_tokens: int
    max_turns: int
    system_prompt: str | None
    deadline_s: float
    seed: int
    solved_at: float
    reporting: bool
    spans: str

    def run_file(self) -> LoadedRun:
        """The run file that asks for the same.

        Raises:
            ConfigError: its values cannot work; a line for each mistake, in the command line's words.
        """
        from hud_orchestrator.config.file_checks import FILE_CHECKS
        from hud_orchestrator.config.load import LoadedRun
        from hud_orchestrator.config.placement import PLACEMENT_CHECKS
        from hud_orchestrator.config.run import RunFile

        run = RunFile.model_validate(self._document())
        loaded = LoadedRun(run=run, path=Path.cwd() / "eval", origins={}, warnings=())
        checks = [partial(check, run, loaded.resolve) for check in (*FILE_CHECKS, *PLACEMENT_CHECKS)]
        mistakes = [finding for check in checks for finding in check()]
        if mistakes:
            raise ConfigError(
                "\n".join(f"{_option(finding.keys[0])}: {finding.text}" for finding in mistakes)
            )
        return loaded

    async def tasks(self) -> tuple[tuple[Task, ...], int]:
        """The tasks to attempt, and how many there were to choose from.

        Raises:
            ConfigError: there is no such taskset, or none of its tasks is asked for.
            ServiceError: the platform cannot be asked.
        """
        from hud_orchestrator.tasksets.load import load

        found = await load(self.source, only=self.only, where=_columns(self.where))
        chosen = self.everything or self.only or self.where
        return (found if chosen else found[:1]), len(found)

    def _document(self) -> dict[str, Any]:
        return {
            "run": {"name": "eval", "seed": self.seed, "steps": 1},
            "model": {"slug": "eval"},
            "service": "hud",  # whatever the addresses name; nothing is started for a run
            "taskset": {"train": self.source},
            "runtime": {"placement": self.runtime, "source": self.environment},
            "agent": {
                "system_prompt": self.system_prompt,
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
                "max_turns": self.max_turns,
            },
            "rollout": {
                "group_size": self.group,
                "concurrency": self.concurrency,
                "deadline_s": self.deadline_s,
                "grading_reserve_s": min(GRADING_RESERVE_S, self.deadline_s / 4),
            },
            "reporting": {"enabled": self.reporting, "spans": self.spans},
        }


def _option(key: str) -> str:
    found = next((name for known, name in OPTIONS.items() if key.startswith(known)), None)
    return found or key


def _columns(texts: Sequence[str]) -> dict[str, list[Any]]:
    """``column=value``, several times: a column that comes again may have any of its values.

    Raises:
        ConfigError: there is no equals sign.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ConfigError(f"--where: {text!r} is not column=value, as in difficulty=easy")
        found.setdefault(name, []).extend(_meanings(value))
    return found


def _meanings(text: str) -> Iterator[Any]:
    """A column may hold the text, or what it means as a number or a truth."""
    yield text
    if text.lower() in ("true", "false"):
        yield text.lower() == "true"
    try:
        yield float(text)
    except ValueError:
        return
