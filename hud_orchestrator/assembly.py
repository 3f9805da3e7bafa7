"""The run file's sections become the collaborators of the stages, which know no sections."""

from __future__ import annotations

from hud_orchestrator.attempt import Attempter, Limits, Sampling
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.evaluation import Evaluator
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.records import Task
from hud_orchestrator.rules.requests import Recipe
from hud_orchestrator.rules.schedule import Schedule
from hud_orchestrator.store.history import History


def make_evaluator(
    run: RunFile,
    heldout: tuple[Task, ...],
    attempter: Attempter,
    history: History,
    board: Scoreboard,
) -> Evaluator | None:
    """What evaluates, ``None`` without held-out tasks."""
    if not heldout:
        return None
    return Evaluator(
        attempter=attempter,
        tasks=heldout[: run.evaluation.limit],
        samples_per_task=run.evaluation.samples_per_task,
        temperature=run.evaluation.temperature,
        history=history,
        board=board,
    )


def make_attempter(run: RunFile, placement: Placement, gateway: Gateway, policy: PolicyCell) -> Attempter:
    """What attempts tickets."""
    return Attempter(
        placement=placement,
        gateway=gateway,
        policy=policy,
        sampling=Sampling(
            top_p=run.agent.top_p,
            max_tokens=run.agent.max_tokens,
            stop=run.agent.stop,
            system_prompt=run.agent.system_prompt,
            max_turns=run.agent.max_turns,
            seed=run.run.seed,
        ),
        limits=Limits(
            deadline_s=run.rollout.deadline_s,
            grading_reserve_s=run.rollout.grading_reserve_s,
            infrastructure_retries=run.rollout.infrastructure_retries,
        ),
        concurrency=run.rollout.concurrency,
    )


def schedule(run: RunFile) -> Schedule:
    """The learning rate of every step."""
    rate = run.trainer.learning_rate
    return Schedule(
        peak=rate.peak,
        final=rate.final,
        warmup_steps=rate.warmup_steps,
        total_steps=run.run.steps,
        shape=rate.schedule,
    )


def recipe(run: RunFile) -> Recipe:
    """The numbers of the training calls."""
    trainer = run.trainer
    return Recipe(
        loss=trainer.loss,
        loss_config=trainer.loss_config,
        reward_scale=trainer.reward_scale,
        substeps=trainer.substeps,
        max_grad_norm=trainer.max_grad_norm,
        **trainer.adam.model_dump(),
    )
