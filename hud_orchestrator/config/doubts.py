"""Combinations of values that work, and probably not as meant: warnings."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hud_orchestrator.config.findings import Finding
from hud_orchestrator.config.losses import client_loss
from hud_orchestrator.config.run import RunFile

Given = Collection[str]


def doubts(run: RunFile, given: Given) -> Iterator[Finding]:
    """Every warning about *run*; *given* are the dotted keys that somebody wrote."""
    yield from _sampling(run)
    yield from _loss(run)
    yield from _clipping(run)
    yield from _ignored(run, given)


def _sampling(run: RunFile) -> Iterator[Finding]:
    for key, value in (("agent.temperature", run.agent.temperature), ("agent.top_p", run.agent.top_p)):
        if value not in (0, 1):
            yield Finding(
                (key,),
                f"{value:g} samples another distribution than the policy that is trained; losses assume 1",
            )


def _loss(run: RunFile) -> Iterator[Finding]:
    loss, staleness = run.trainer.loss, run.pipeline.staleness
    if loss == "importance_sampling" and staleness >= 1:
        yield Finding(
            ("pipeline.staleness", "trainer.loss"),
            f"{staleness} with the unclipped importance_sampling loss can diverge a few steps off the "
            f"policy; trainer.loss: cispo or ppo clips",
        )
    warmup = run.trainer.learning_rate.warmup_steps
    if warmup >= run.run.steps:
        yield Finding(
            ("trainer.learning_rate.warmup_steps", "run.steps"),
            f"{warmup} is not less than run.steps ({run.run.steps}), so the rate only just arrives at its "
            f"peak, or never does",
        )


def _clipping(run: RunFile) -> Iterator[Finding]:
    if client_loss(run.trainer.loss) is not None:
        return
    config = {key: value for key, value in run.trainer.loss_config.items() if isinstance(value, int | float)}
    low, high = config.get("clip_low_threshold", 0), config.get("clip_high_threshold", 1)
    meant = "it bounds the ratio itself, not its distance from 1"
    if low > 1:
        yield Finding(("trainer.loss_config.clip_low_threshold",), f"{low:g} is above 1; {meant}, as in 0.8")
    if high < 1:
        yield Finding(
            ("trainer.loss_config.clip_high_threshold",), f"{high:g} is below 1; {meant}, as in 1.2"
        )


def _ignored(run: RunFile, given: Given) -> Iterator[Finding]:
    """Keys that somebody wrote and that have no effect."""
    if run.service == "hud":
        yield from _unused("local.", given, "ignored with service: hud")
    if not run.taskset.evaluates:
        yield from _unused("evaluation.", given, "ignored: without taskset.heldout nothing is evaluated")
    for place, entry in enumerate(run.taskset.heldout or ()):
        if entry.weight is not None:
            text = "ignored: evaluation attempts every held-out task equally often"
            yield Finding((f"taskset.heldout.{place}.weight",), text)
    if not run.taskset.curriculum.is_on:
        text = "ignored: the curriculum is off; set its weighting, skip_solved or retire_hopeless"
        yield from _unused("taskset.curriculum.", given, text)
    if run.trainer.learning_rate.schedule == "constant" and run.trainer.learning_rate.final:
        yield Finding(("trainer.learning_rate.final",), "ignored with schedule: constant")
    if run.trainer.substeps > 1 and client_loss(run.trainer.loss) is not None:
        yield Finding(
            ("trainer.substeps", "trainer.loss"),
            "ignored: a loss that the daemon computes sees the batch whole",
        )
    if "rollout.scale_by" in given and "scale" not in run.rollout.outcomes.model_dump().values():
        yield Finding(("rollout.scale_by",), "ignored: no outcome has the treatment scale")


def _unused(section: str, given: Given, text: str) -> Iterator[Finding]:
    first = next((key for key in given if key.startswith(section)), None)
    if first:
        yield Finding((first,), text)
