"""The run file's sections become the collaborators of the stages, which know no sections."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from hud_orchestrator.agents.chat import ChatAgent
from hud_orchestrator.agents.own import load_agent
from hud_orchestrator.agents.protocol import Agent
from hud_orchestrator.attempt import Attempter, Attempts
from hud_orchestrator.client_loss import Differentiate, differentiator
from hud_orchestrator.clients.gateway import Gateway
from hud_orchestrator.clients.hosted import HostedRollouts
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.config.guards import DEFAULT_FACTOR, GuardSection
from hud_orchestrator.config.losses import CLIENT, client_loss, is_group_relative
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.dispatch import Dispatch
from hud_orchestrator.environments.protocol import Placement
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.evaluation import Evaluator
from hud_orchestrator.feedback import PolicyCell
from hud_orchestrator.hosted import HostedAttempter, HostedPolicy
from hud_orchestrator.ladder import Limits
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.pacing import PacedGateway
from hud_orchestrator.policy import Sampling
from hud_orchestrator.records import Outcome, Task, Treatment
from hud_orchestrator.reporting.witness import Witness
from hud_orchestrator.rules.breaker import BreakerRule
from hud_orchestrator.rules.curriculum import Curriculum, CurriculumRule
from hud_orchestrator.rules.guards import GuardRule
from hud_orchestrator.rules.order import MixedOrder, Order, TaskOrder
from hud_orchestrator.rules.requests import Recipe
from hud_orchestrator.rules.schedule import Schedule
from hud_orchestrator.rules.seeds import derive
from hud_orchestrator.store.history import History
from hud_orchestrator.store.store import Store
from hud_orchestrator.watch import Watch


def make_order(run: RunFile, parts: Sequence[tuple[Task, ...]]) -> Order:
    """Which task stands at which position, from the tasks of every entry of ``taskset.train``."""
    seed, shuffle = run.run.seed, run.taskset.shuffle
    weights = [entry.weight for entry in run.taskset.train if entry.weight is not None]
    if len(parts) == 1 or not weights:
        return TaskOrder([task for part in parts for task in part], seed=seed, shuffle=shuffle)
    orders = [
        TaskOrder(part, seed=derive(seed, "source", place), shuffle=shuffle)
        for place, part in enumerate(parts)
    ]
    return MixedOrder(orders, weights=weights, seed=derive(seed, "mixture"))


def make_curriculum(run: RunFile, order: Order, tasks: Sequence[Task]) -> Curriculum | None:
    """What chooses among *tasks* by their solve rates, ``None`` when it is off."""
    section = run.taskset.curriculum
    if not section.is_on:
        return None
    facts = section.model_dump(exclude={"weighting"})
    rule = CurriculumRule(near_half=section.weighting == "near_half", **facts)
    return Curriculum(order, rule, tasks, seed=derive(run.run.seed, "curriculum"))


def make_watch(run: RunFile, store: Store, board: Scoreboard) -> Watch:
    """The guards of the run file."""
    return Watch(
        [_guard(guard, peak=run.trainer.learning_rate.peak) for guard in run.guards],
        store=store,
        board=board,
    )


def _guard(guard: GuardSection, *, peak: float) -> GuardRule:
    factor = DEFAULT_FACTOR.get(guard.action, 1.0) if guard.factor is None else guard.factor
    facts = guard.model_dump(exclude={"name", "factor", "floor"})
    return GuardRule(name=guard.label, factor=factor, least_scale=guard.floor / peak, **facts)


def make_evaluator(
    run: RunFile,
    heldout: tuple[Task, ...],
    attempter: Attempts,
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


def make_attempter(
    run: RunFile,
    placement: Placement,
    agent: Agent,
    gateway: PacedGateway,
    policy: PolicyCell,
    dispatch: Dispatch,
    witness: Witness,
) -> Attempter:
    """What attempts tickets here."""
    return Attempter(
        placement=placement,
        agent=agent,
        gateway=gateway,
        policy=policy,
        sampling=_sampling(run),
        limits=_limits(run),
        dispatch=dispatch,
        witness=witness,
    )


def make_hosted_attempter(
    run: RunFile,
    api: Transport,
    policy: PolicyCell,
    dispatch: Dispatch,
    *,
    model: str,
    checkpoint: str | None = None,
    job_id: str | None = None,
) -> HostedAttempter:
    """What has tickets attempted on the platform, by the head of the slug *model* or by one *checkpoint*."""
    return HostedAttempter(
        HostedRollouts(api),
        HostedPolicy(
            model=model,
            checkpoint=checkpoint,
            sampling=_sampling(run),
            max_turns=run.agent.max_turns,
            system_prompt=run.agent.system_prompt,
            tool_timeout_s=run.agent.tool_timeout_s,
        ),
        policy,
        limits=_limits(run),
        dispatch=dispatch,
        job_id=job_id or uuid.uuid4().hex,
        poll_s=run.runtime.poll_s,
    )


def _sampling(run: RunFile) -> Sampling:
    return Sampling(
        top_p=run.agent.top_p,
        max_tokens=run.agent.max_tokens,
        stop=run.agent.stop,
        seed=run.run.seed,
        tool_choice=run.agent.tool_choice,
        parallel_tool_calls=run.agent.parallel_tool_calls,
    )


def _limits(run: RunFile) -> Limits:
    retried = [outcome for outcome, treatment in treatments(run).items() if treatment is Treatment.RETRY]
    return Limits(
        deadline_s=run.rollout.deadline_s,
        grading_reserve_s=run.rollout.grading_reserve_s,
        start_s=math.inf if run.rollout.start_s is None else run.rollout.start_s,
        group_s=run.rollout.group_limit_s,
        infrastructure_retries=run.rollout.infrastructure_retries,
        retried=retried,
    )


def make_dispatch(run: RunFile, tasks: Sequence[Task], board: Scoreboard) -> Dispatch:
    """What lets attempts begin.

    Raises:
        ConfigError: ``runtime.concurrency`` names an environment that no task is of.
    """
    known = sorted({task.env for task in tasks})
    for name in run.runtime.concurrency:
        if name not in known:
            raise ConfigError(
                f"runtime.concurrency: no task is of an environment {name!r}; there are {', '.join(known)}"
            )
    limits = run.resilience
    return Dispatch(
        concurrency=run.rollout.concurrency,
        environments=run.runtime.concurrency,
        rule=BreakerRule(
            share=limits.failure_share,
            window=limits.failure_window,
            least=limits.least_attempts,
            probes=limits.probes,
            pause_s=limits.pause_s,
            longest_pause_s=limits.longest_pause_s,
            give_up_after_s=limits.give_up_after_s,
        ),
        board=board,
    )


def make_gateway(run: RunFile, transport: Transport, model: str, board: Scoreboard) -> PacedGateway:
    """The model, at the pace of its gateway."""
    paced = PacedGateway(
        Gateway(transport, model=model),
        most=run.rollout.concurrency,
        patience_s=run.resilience.gateway_patience_s,
    )
    board.gauges["gateway_window"] = lambda: paced.width
    return paced


def make_agent(run: RunFile, directory: Path) -> Agent:
    """The policy's side of episodes: our loop, or somebody's own class.

    Raises:
        ConfigError: it cannot be loaded.
    """
    if run.agent.use is not None:
        _find_beside(directory)
        return load_agent(run.agent.use, run.agent.options)
    return ChatAgent(
        system_prompt=run.agent.system_prompt,
        max_turns=run.agent.max_turns,
        tool_timeout_s=run.agent.tool_timeout_s,
    )


def schedule(run: RunFile) -> Schedule:
    """The learning rate of every step, before guards lower it."""
    rate = run.trainer.learning_rate
    return Schedule(
        peak=rate.peak,
        final=rate.final,
        warmup_steps=rate.warmup_steps,
        total_steps=run.run.steps,
        shape=rate.schedule,
    )


def treatments(run: RunFile) -> dict[Outcome, Treatment]:
    """What becomes of a member, by how its attempt ended."""
    return {Outcome(key): Treatment(value) for key, value in run.rollout.outcomes.model_dump().items()}


def needs_spread(run: RunFile) -> bool:
    """Whether groups with equal rewards are of no use; for a loss of your own, the run file says so."""
    loss = run.trainer.loss
    own = ":" in loss and not loss.startswith(CLIENT)
    if own and not run.pipeline.drop_no_spread:
        return False
    return is_group_relative(loss, run.trainer.loss_config)


def make_differentiate(run: RunFile, directory: Path) -> Differentiate | None:
    """The loss that the daemon computes itself, ``None`` when the service does.

    Raises:
        ConfigError: it cannot be loaded.
    """
    name = client_loss(run.trainer.loss)
    if name is None:
        return None
    _find_beside(directory)
    try:
        return differentiator(name, run.trainer.loss_config)
    except ConfigError as error:
        raise ConfigError(f"trainer.loss: {error}") from error


def recipe(run: RunFile) -> Recipe:
    """The numbers of the training calls."""
    trainer = run.trainer
    return Recipe(
        loss=trainer.loss,
        loss_config=trainer.loss_config,
        needs_spread=needs_spread(run),
        reward_scale=trainer.reward_scale,
        substeps=trainer.substeps,
        max_grad_norm=trainer.max_grad_norm,
        **trainer.adam.model_dump(),
    )


def _find_beside(directory: Path) -> None:
    """Let modules beside the run file be imported, after everything that is installed."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
