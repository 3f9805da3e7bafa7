"""What a taskset is named by: a file, a module's list, a directory, part of a task library."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hud_orchestrator.config.findings import Resolve
from hud_orchestrator.config.run import RunFile

TASKSET_SUFFIXES = (".json", ".jsonl", ".py")

LIBRARIES = {
    "reasoning-gym": "reasoning_gym",
    "textarena": "textarena",
    "gymnasium": "gymnasium",
    "verifiers": "verifiers",
}
"""Task libraries that have an adapter, each with its package in :mod:`hud_orchestrator.adapters`."""

_ADAPTERS = Path(__file__).parents[1] / "adapters"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSource:
    """A name, taken apart."""

    name: str
    """A path as it was written, or the name or id of a taskset of the platform; of a task library, the path
    of its environment."""
    member: str | None
    """The variable of a module, from ``file.py:variable``."""
    is_path: bool
    of_library: str | None = None
    """The whole text, where it names part of a task library: ``reasoning-gym:chain_sum``."""

    @property
    def is_module(self) -> bool:
        """Whether it is a ``.py`` file, which may define environments too."""
        return self.is_path and self.name.endswith(".py")

    @property
    def is_data(self) -> bool:
        """Whether it holds tasks and no environments: data, a directory, or a taskset of the platform."""
        suffix = os.path.splitext(self.name)[1]  # noqa: PTH122
        return not self.is_path or suffix in ("", ".json", ".jsonl")


def training_sources(run: RunFile, resolve: Resolve) -> list[NamedSource]:
    """What the entries of ``taskset.train`` name."""
    return [named_source(entry.source, resolve) for entry in run.taskset.train]


def environment_file(run: RunFile, resolve: Resolve) -> str | None:
    """The file that defines the environments: ``runtime.source``, or the one ``.py`` file of the tasks."""
    modules = {source.name for source in training_sources(run, resolve) if source.is_module}
    return run.runtime.source or (modules.pop() if len(modules) == 1 else None)


def named_source(text: str, resolve: Resolve) -> NamedSource:
    """Take *text* apart: a path when it looks like one or is there on disk, else a name of the platform.

    ``team/name`` is a name unless there is such a directory; ``./name`` and ``name/`` are paths.
    ``library:name?option=value`` is part of a task library.
    """
    library, colon, _ = text.partition(":")
    if colon and library in LIBRARIES:
        environment = _ADAPTERS / LIBRARIES[library] / "environment.py"
        return NamedSource(name=str(environment), member=None, is_path=True, of_library=text)
    split = re.fullmatch(r"(.+\.py):(.*)", text, re.DOTALL)
    name, member = (split[1], split[2]) if split else (text, None)
    looks_like_one = bool(re.search(r"^[./~]|/$|\.[A-Za-z]+$", name))
    # os.path says "no" where pathlib raises: on a name that is too long.
    is_path = looks_like_one or os.path.exists(resolve(name))  # noqa: PTH110
    return NamedSource(name=name, member=member, is_path=is_path)
