"""The section about where environments run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hud_orchestrator.config.section import Section


class RuntimeSection(Section):
    """Where environments run."""

    placement: Literal["local", "in-process"] = "local"
    """``local``: one warm environment process per concurrent rollout, so that a hanging
    environment can be ended. ``in-process``: inside the daemon, for pure functions only."""

    source: str | None = None
    """The ``.py`` file that defines the environments, relative to the run file. Left out: the
    taskset's file, when that is a ``.py``."""

    recycle_after: int = Field(default=5000, ge=1)
    """Episodes after which an environment process is replaced by a new one."""

    teardown_s: float = Field(default=2, gt=0)
    """Seconds that an environment gets to cancel an episode before its process is killed."""
