"""The section about where environments run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hud_orchestrator.config.section import PlainValue, Section


class RuntimeSection(Section):
    """Where environments run."""

    placement: str | None = Field(
        default=None,
        examples=["local", "in-process", "subprocess", "tcp://host:8765", "docker", "hud", "hosted"],
    )
    """``local``: one warm environment process per concurrent rollout, so that a hanging
    environment can be ended. ``in-process``: inside the daemon, for pure functions only.
    ``subprocess``: a process for every rollout, ended with it. ``tcp://host:port``: an environment that
    somebody serves, ``hud-orchestrate env serve`` or ``hud serve``. ``docker``: a container for every
    rollout. ``hud``: the environment runs on HUD, by its name, and the agent here. ``hosted``: the whole
    rollout runs on HUD, and trains by its trace id. ``modal`` and ``daytona``: a sandbox for every rollout,
    through HUD's SDK. Left out: ``local`` for a taskset on disk, ``hud`` for one that is named."""

    source: str | None = None
    """The ``.py`` file that defines the environments, relative to the run file. Left out: the
    taskset's file, when that is a ``.py``."""

    command: list[str] | None = Field(default=None, min_length=1)
    """With ``subprocess``: what starts an environment process, and prints ``HUD_SERVE_PORT=<port>`` once
    it listens. ``{source}`` and ``{env}`` stand for the source and the environment's name. It runs in the
    source's directory. Left out: ``hud-orchestrate env serve`` of the source."""

    image: str | None = Field(default=None, min_length=1)
    """With ``docker``: the image, for tasks whose row names none in ``runtime_config``."""

    port: int = Field(default=8765, ge=1, le=65535)
    """With ``docker``: the control port inside the container."""

    environ: dict[str, str] = Field(default_factory=dict)
    """With ``docker``: environment variables of every container."""

    options: dict[str, PlainValue] = Field(default_factory=dict)
    """With ``modal`` and ``daytona``: keyword arguments of the SDK's ``ModalRuntime`` or ``DaytonaRuntime``,
    such as ``image_name`` or ``snapshot_name``."""

    poll_s: float = Field(default=5, gt=0)
    """With ``hosted``: longest wait between two looks at a rollout. The first ones come sooner."""

    ready_timeout_s: float = Field(default=120, gt=0)
    """Seconds that an environment gets to answer for the first time, with every placement that reaches it
    by a port or a tunnel."""

    recycle_after: int = Field(default=5000, ge=1)
    """Episodes after which an environment process is replaced by a new one, with ``local``."""

    concurrency: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, examples=[{"browser": 4}]
    )
    """Rollouts in flight at most in one environment, by its name, for one that is fragile or expensive.
    Others go on meanwhile; those without a number have ``rollout.concurrency``."""

    teardown_s: float = Field(default=2, gt=0)
    """Seconds that an environment gets to cancel an episode before its process is killed, or its
    connection closed."""
