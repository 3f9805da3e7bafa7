"""The run file: one YAML document that says everything about a run but its secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hud_orchestrator.config.guards import GuardSection
from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.config.reporting import ReportingSection
from hud_orchestrator.config.resilience import ResilienceSection
from hud_orchestrator.config.rollout import AgentSection, RolloutSection
from hud_orchestrator.config.runtime import RuntimeSection
from hud_orchestrator.config.section import HomePath, Section
from hud_orchestrator.config.taskset import TasksetSection
from hud_orchestrator.config.trainer import TrainerSection


class RunSection(Section):
    """What this run is called and how long it goes on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Name of the run and of its directory: letters, digits, dot, dash and underscore."""

    seed: int = Field(default=0, ge=0, lt=2**31)
    """Every random choice of the run derives from this number."""

    steps: int = Field(ge=1)
    """Optimizer steps to take in all, counted over restarts."""

    state_dir: HomePath | None = None
    """The run directory. Left out: ``runs/<name>`` in the working directory."""

    deterministic: bool = False
    """Same seed, same rewards, step by step. Needs ``pipeline.staleness: 0`` and the local
    service, which then samples one request at a time."""

    drain_s: float = Field(default=60, gt=0)
    """Seconds that a first SIGINT or SIGTERM leaves for the step in hand before it is cut off."""


class ModelSection(Section):
    """Which model is trained."""

    slug: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")
    """The gateway slug that is trained. Forked from ``base`` when the catalog lacks it."""

    base: str | None = None
    """What to fork from: ``tiny``, ``smollm2-135m`` or a directory that transformers loads
    (local service; a directory is relative to the run file), or a model of HUD's catalog."""


class PipelineSection(Section):
    """How far sampling may run ahead of training."""

    staleness: int = Field(default=0, ge=0, le=8)
    """Largest number of steps between the policy that sampled a group and the policy it trains.
    0 waits for every step (sync); 1 samples the next batch during the step (async)."""

    replacements_per_step: int | None = Field(default=None, ge=0)
    """Groups that may be dropped and sampled anew for one step before the batch is cut with what
    there is. Left out: ``rollout.groups_per_step``."""

    drop_no_spread: bool = True
    """Drop groups in which every member got the same reward: they carry no gradient. ``cross_entropy``,
    which does not look at rewards, keeps them all the same."""


class EvaluationSection(Section):
    """Measuring the policy on held-out tasks: before the first step, every N steps, after the last."""

    every: int = Field(default=10, ge=1)
    """Steps between evaluations."""

    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature of an evaluation; 0 always takes the most likely token."""

    samples_per_task: int = Field(default=1, ge=1)
    """Attempts at each held-out task."""

    limit: int | None = Field(default=None, ge=1)
    """Use only the first N held-out tasks."""


class LoggingSection(Section):
    """What is written while the run goes on."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important line that is still written."""

    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: a live view on a terminal, console lines elsewhere. ``json``: one object a line."""


class RunFile(Section):
    """One training run."""

    run: RunSection
    model: ModelSection
    service: Literal["local", "hud"] = "local"
    """``local``: the embedded training service, started and ended with the run. ``hud``: the service
    that the ``HUD_*`` addresses name, by default HUD's managed one; needs ``HUD_API_KEY``."""
    taskset: TasksetSection
    runtime: RuntimeSection = RuntimeSection()
    agent: AgentSection = AgentSection()
    rollout: RolloutSection = RolloutSection()
    resilience: ResilienceSection = ResilienceSection()
    pipeline: PipelineSection = PipelineSection()
    trainer: TrainerSection = TrainerSection()
    evaluation: EvaluationSection = EvaluationSection()
    guards: list[GuardSection] = Field(default_factory=list)
    """What may not happen to the run, and what is done when it does: a list of conditions with actions."""
    logging: LoggingSection = LoggingSection()
    reporting: ReportingSection = ReportingSection()
    local: LocalSection = LocalSection()

    @property
    def directory(self) -> Path:
        """The run directory: ``run.state_dir``, or ``runs/<name>`` in the working directory."""
        return self.run.state_dir or Path("runs") / self.run.name

    @property
    def replacements(self) -> int:
        """Groups that one step may drop and sample anew."""
        given = self.pipeline.replacements_per_step
        return self.rollout.groups_per_step if given is None else given
