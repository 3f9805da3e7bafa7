"""A whole run, from the held directory to the written summary."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from hud_orchestrator import logs
from hud_orchestrator.assembly import (
    make_agent,
    make_attempter,
    make_differentiate,
    make_dispatch,
    make_evaluator,
    make_gateway,
    make_hosted_attempter,
    make_watch,
    recipe,
    schedule,
)
from hud_orchestrator.attempt import Attempts
from hud_orchestrator.client_loss import Differentiate
from hud_orchestrator.clients.training import Training
from hud_orchestrator.clients.transport import Network, Transport
from hud_orchestrator.clients.writer_lease import FencingToken
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.placement import HOSTED, placement_of
from hud_orchestrator.config.resolved import resolved_lines
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.directory import RunDirectory, write_atomically
from hud_orchestrator.embedded import Addresses
from hud_orchestrator.errors import (
    ConfigError,
    ExitCode,
    RunPaused,
    StateUnwritable,
    exit_code_of,
    leaves,
)
from hud_orchestrator.feedback import Drain, PolicyCell
from hud_orchestrator.identity import same_run
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.rounds import order_of, restore_board, train_to_the_end
from hud_orchestrator.rules.guards import NOT_FINITE
from hud_orchestrator.seams import Edges
from hud_orchestrator.settings import redacted
from hud_orchestrator.settling import Settler
from hud_orchestrator.stages.train import Trainer
from hud_orchestrator.store.database import Database
from hud_orchestrator.store.firings import Firings
from hud_orchestrator.store.store import Store
from hud_orchestrator.summary import Summary, summarize, write_summary
from hud_orchestrator.supervisor import Pipeline, watch_signals
from hud_orchestrator.taking_up import taken_up
from hud_orchestrator.tasksets.parts import load_run_tasks
from hud_orchestrator.telling import witness
from hud_orchestrator.watch import Watch

CLOSING_S = 20.0
"""Seconds for the last rows and the summary, whatever ended the run."""

REAL = Edges()

log = logs.get_logger()


async def run_daemon(loaded: LoadedRun, *, board: Scoreboard, edges: Edges = REAL) -> Summary:
    """Train until the last step, a signal or an error; the summary is written in any case.

    Raises:
        OrchestratorError: what made it impossible to go on, possibly inside an exception group.
    """
    directory = RunDirectory(loaded.run.directory)
    with directory.held():
        database = Database(directory.store, disk=edges.disk)
        try:
            logs.copy_to(directory.log)
            store = Store.over(database)
            await same_run(loaded.run, store.history, directory)
            write_atomically(directory.config, "\n".join(resolved_lines(loaded.run, loaded.origins)) + "\n")
            return await _session(loaded, directory, store, board, edges)
        finally:
            logs.copy_to(None)
            database.close()


async def _session(
    loaded: LoadedRun, directory: RunDirectory, store: Store, board: Scoreboard, edges: Edges
) -> Summary:
    began = time.monotonic()
    session = await store.history.begin_session()
    code, failure, summary = ExitCode.BUG, None, None
    try:
        code = await _until_the_end(loaded, directory, store, board, edges)
    except BaseException as error:
        code = exit_code_of(error)
        failure = redacted("; ".join(dict.fromkeys(str(leaf) for leaf in leaves(error))))
        raise
    finally:
        with anyio.move_on_after(CLOSING_S, shield=True):
            await store.history.end_session(session, seconds=time.monotonic() - began, exit_code=code)
            summary = await summarize(loaded.run, store, exit_code=code, error=failure)
            write_summary(directory, summary)
            log.info("run.ended", exit_code=int(code), steps=summary.steps, eval_last=summary.eval_last)
    if summary is None:
        raise StateUnwritable(f"{directory.path}: the summary could not be written within {CLOSING_S:g} s")
    return summary


async def _until_the_end(
    loaded: LoadedRun, directory: RunDirectory, store: Store, board: Scoreboard, edges: Edges
) -> ExitCode:
    await _heed_pauses(store.firings)
    drain = Drain()
    finished, in_time = False, None
    # A drain may cut off everything but the watch: what is started then takes a while to end.
    async with anyio.create_task_group() as guards:
        with drain.interruptible() as everything:
            guards.start_soon(
                lambda: watch_signals(drain, everything, drain_s=loaded.run.run.drain_s, board=board),
                name="signals",
            )
            async with _pipeline(loaded, directory, store, board, drain, edges) as pipeline:
                if pipeline is not None:
                    with drain.spared(everything):
                        await train_to_the_end(pipeline)
                finished = not drain.requested or await _complete(loaded.run, store)
                in_time = anyio.current_time() < everything.deadline
        guards.cancel_scope.cancel("the run is over")
    await _heed_pauses(store.firings)
    if finished:
        return ExitCode.DONE
    if in_time is None:  # cut off before, or inside, the pipeline
        in_time = anyio.current_time() < everything.deadline
    # A drain that ran out of time, or a second signal, has put the deadline behind us.
    return ExitCode.INTERRUPTED if in_time else ExitCode.ABORTED


async def _heed_pauses(firings: Firings) -> None:
    """End the run when a guard has paused it, also when a kill came before; the start after that goes on.

    Raises:
        RunPaused: one has.
    """
    pauses = await firings.pauses()
    await firings.heed()
    if pauses:
        told = "; ".join(f"guard {one.guard}, after step {one.step}: {one.detail}" for one in pauses)
        raise RunPaused(f"paused by {told}; look into it, then run it again to go on")


@asynccontextmanager
async def _pipeline(
    loaded: LoadedRun, directory: RunDirectory, store: Store, board: Scoreboard, drain: Drain, edges: Edges
) -> AsyncGenerator[Pipeline | None, None]:
    """Everything up to the first ticket; ``None`` when the run has taken and measured all its steps."""
    run = loaded.run
    tasks = await load_run_tasks(run.taskset, resolve=loaded.resolve, seed=run.run.seed)
    if await _complete(run, store) and await _left_alone(run, store, board):
        yield None
        return
    differentiate = make_differentiate(run, loaded.path.parent)
    agent = make_agent(run, loaded.path.parent)
    dispatch = make_dispatch(run, (*tasks.all_train, *tasks.heldout), board)
    async with AsyncExitStack() as stack:
        board.phase = "starting the service"
        addresses = await stack.enter_async_context(edges.service(loaded, directory))
        rl, api, gateway = await _transports(
            stack, addresses, sampling=run.rollout.concurrency, network=edges.network
        )
        board.phase = "preparing the model"
        token = FencingToken()
        stand, settler = await stack.enter_async_context(
            taken_up(loaded, store, board, token, rl=rl, api=api)
        )
        training = Training(rl, model_id=stand.model.id, timeout_s=run.trainer.call_timeout_s, token=token)
        if differentiate is None:
            await _known_loss(training, run)
        await restore_board(board, store.history, stand=stand)
        policy = PolicyCell(stand.policy, history=stand.versions, abandoned=stand.abandoned)
        watch = make_watch(run, store, board)
        await watch.load()
        slug = stand.model.model_name
        told = await stack.enter_async_context(
            witness(loaded, addresses, store.history, policy, board.reports, tasks.taskset_id)
        )
        attempter: Attempts
        if placement_of(run, loaded.resolve) == HOSTED:
            # The platform itself reports what runs there, as a part of the job that the witness has told of.
            job_id = await store.history.get("job")
            attempter = make_hosted_attempter(run, api, policy, dispatch, model=slug, job_id=job_id)
        else:
            place = await stack.enter_async_context(edges.placement(loaded, directory))
            paced = make_gateway(run, gateway, slug, board)
            attempter = make_attempter(run, place, agent, paced, policy, dispatch, told)
        log.info("run.started", model=slug, after_step=stand.policy.version, steps=run.run.steps)
        yield Pipeline(
            run=run,
            order=await order_of(run, tasks, stand, store, board),
            attempter=attempter,
            dispatch=dispatch,
            trainer=_trainer(run, training, settler, policy, differentiate, watch),
            policy=policy,
            store=store,
            standing=stand,
            evaluator=make_evaluator(run, tasks.heldout, attempter, store.history, board),
            watch=watch,
            tasks=tasks,
            board=board,
            drain=drain,
        )


def _trainer(
    run: RunFile,
    training: Training,
    settler: Settler,
    policy: PolicyCell,
    differentiate: Differentiate | None,
    watch: Watch,
) -> Trainer:
    planned = schedule(run)
    return Trainer(
        training=training,
        ledger=settler.ledger,
        settler=settler,
        policy=policy,
        learning_rate=lambda step: planned.learning_rate(step) * watch.scale,
        recipe=recipe(run),
        not_finite=frozenset(NOT_FINITE) & {guard.metric for guard in run.guards if guard.not_finite},
        kept=watch.kept,
        differentiate=differentiate,
    )


async def _complete(run: RunFile, store: Store) -> bool:
    steps = await store.history.steps()
    if not steps or steps[-1].number < run.run.steps or await store.ledger.open_step() is not None:
        return False
    if await store.rollbacks.asked() is not None:
        return False
    measured = {evaluation.version for evaluation in await store.history.evaluations()}
    return not run.taskset.evaluates or steps[-1].number in measured


async def _left_alone(run: RunFile, store: Store, board: Scoreboard) -> bool:
    """Whether a run that has taken all its steps does not have to go back.

    A kill may have come before the last step was told of, or the guards looked at it.
    """
    await restore_board(board, store.history)
    watch = make_watch(run, store, board)
    await watch.load()
    return not await watch.objects() or watch.paused


async def _transports(
    stack: AsyncExitStack, addresses: Addresses, *, sampling: int, network: Network | None
) -> list[Transport]:
    """To the training service, the catalog and the gateway, closed with *stack*."""
    wanted = ((addresses.rl_url, 10), (addresses.api_url, 10), (addresses.gateway_url, sampling + 10))
    return [
        await stack.enter_async_context(
            Transport(url, addresses.api_key, connections=connections, network=network)
        )
        for url, connections in wanted
    ]


async def _known_loss(training: Training, run: RunFile) -> None:
    known = await training.losses()
    if run.trainer.loss not in known:
        raise ConfigError(
            f"trainer.loss: the service has no loss {run.trainer.loss!r}; it has {', '.join(known)}"
        )
