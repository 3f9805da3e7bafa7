"""What a run trains on and what it holds out, from the entries of its run file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hud_orchestrator.config.findings import Resolve
from hud_orchestrator.config.taskset import TasksetSection, TaskSource
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.records import Task
from hud_orchestrator.rules.seeds import derive
from hud_orchestrator.tasksets.load import load
from hud_orchestrator.tasksets.rows import common_taskset, distinct


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTasks:
    """The tasks of a run. No slug occurs twice in ``train``, nor in ``heldout``."""

    train: tuple[tuple[Task, ...], ...]
    """By entry of the run file."""
    heldout: tuple[Task, ...]

    @property
    def all_train(self) -> tuple[Task, ...]:
        """Those that are trained on, of every entry."""
        return tuple(task for part in self.train for task in part)

    @property
    def taskset_id(self) -> str | None:
        """Of the platform's taskset that all of those come from, ``None`` when there is no such one."""
        return common_taskset(self.all_train)


async def load_run_tasks(section: TasksetSection, *, resolve: Resolve, seed: int) -> RunTasks:
    """Everything that *section* names.

    Raises:
        ConfigError: an entry has no tasks, or a wrong one; or a slug names two tasks.
        ServiceError: the platform cannot be asked.
    """
    train = await _parts(section.train, "taskset.train", resolve)
    if section.heldout_split is not None:
        return _split(train, section.heldout_split, seed)
    heldout = await _parts(section.heldout or (), "taskset.heldout", resolve)
    return RunTasks(train=train, heldout=tuple(task for part in heldout for task in part))


async def _parts(entries: Sequence[TaskSource], key: str, resolve: Resolve) -> tuple[tuple[Task, ...], ...]:
    parts = tuple(
        [await load(entry.source, resolve=resolve, where=entry.where, limit=entry.limit) for entry in entries]
    )
    distinct((task for part in parts for task in part), key)
    return parts


def _split(parts: Sequence[tuple[Task, ...]], share: float, seed: int) -> RunTasks:
    """Hold out *share* of all tasks. A task's lot is its own: another one more changes few of the others'."""
    slugs = [task.slug for part in parts for task in part]
    drawn = sorted(slugs, key=lambda slug: (derive(seed, "heldout", slug), slug))
    held = set(drawn[: max(1, round(share * len(slugs)))])
    train = tuple(tuple(task for task in part if task.slug not in held) for part in parts)
    if not all(train):
        raise ConfigError(
            f"taskset.heldout_split: {share:g} of {len(slugs)} tasks leaves an entry of taskset.train "
            "without any; lower it, or name held-out tasks in taskset.heldout"
        )
    return RunTasks(train=train, heldout=tuple(task for part in parts for task in part if task.slug in held))
