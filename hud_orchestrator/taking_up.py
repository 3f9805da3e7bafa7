"""Take a run up where it stands: find its model, have it alone, and settle what an earlier end left open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from hud_orchestrator.clients.catalog import Catalog
from hud_orchestrator.clients.hosted import HostedRollouts
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.clients.writer_lease import FencingToken, WriterLeases
from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.edges import base_model
from hud_orchestrator.metrics import Scoreboard
from hud_orchestrator.resume import Standing, find_or_fork, standing, without_forgotten, without_stale
from hud_orchestrator.settling import Settler
from hud_orchestrator.single_writer import SingleWriter, holder_of, writing
from hud_orchestrator.store.store import Store
from hud_orchestrator.wire import Model


@asynccontextmanager
async def taken_up(
    loaded: LoadedRun,
    store: Store,
    board: Scoreboard,
    token: FencingToken,
    *,
    rl: Transport,
    api: Transport,
) -> AsyncGenerator[tuple[Standing, Settler], None]:
    """Where the run stands with its model, which it has on lease for the length of the block.

    Args:
        loaded: the run.
        store: its store.
        board: shows who is waited for.
        token: set to that of the lease; every call of the run shows it.
        rl: to the training service.
        api: to the catalog.

    Raises:
        HeadMoved, FencedOff: somebody else trains it.
    """
    run, catalog = loaded.run, Catalog(api, token=token)
    model = await _model(loaded, catalog, store)
    writer = SingleWriter(WriterLeases(rl), store.history, token, holder=holder_of(run.directory))
    async with writing(writer, model.id, waiting=_waiting(run, board)):
        settling = partial(_settler, run, catalog, store, writer)
        stand = await _stand(loaded, model, settling, store, api)
        yield stand, settling(stand.model.id, settle_s=run.trainer.settle_s)


async def _model(loaded: LoadedRun, catalog: Catalog, store: Store) -> Model:
    """Find the model, or fork it."""
    slug = await store.history.get("slug") or loaded.run.model.slug
    model = await find_or_fork(catalog, slug=slug, base=base_model(loaded))
    await store.history.set("slug", model.model_name)
    return model


def _waiting(run: RunFile, board: Scoreboard) -> Callable[[str], None] | None:
    """Shows who is waited for, when the run file says to wait."""
    if run.trainer.on_other_trainer == "refuse":
        return None

    def show(reason: str) -> None:
        board.phase = f"waiting: {reason}"

    return show


async def _stand(
    loaded: LoadedRun,
    model: Model,
    settling: Callable[..., Settler],
    store: Store,
    api: Transport,
) -> Standing:
    """Settle what an earlier end left open."""
    # The embedded service ended with the daemon, and its unapplied gradients with it.
    survived = loaded.run.service == "hud"
    settler = settling(model.id, settle_s=loaded.run.trainer.settle_s if survived else 0.0)
    stand = await standing(
        settler=settler,
        model=model,
        base=base_model(loaded),
        keeps_gradients=survived and not settler.writer.fences,
        trajectories=store.trajectories,
        rollbacks=store.rollbacks,
    )
    stand = await without_forgotten(stand, HostedRollouts(api), store.trajectories)
    return await without_stale(stand, store.trajectories, staleness=loaded.run.pipeline.staleness)


def _settler(
    run: RunFile, catalog: Catalog, store: Store, writer: SingleWriter, model_id: str, *, settle_s: float
) -> Settler:
    return Settler(
        catalog=catalog,
        model_id=model_id,
        ledger=store.ledger,
        history=store.history,
        settle_s=settle_s,
        writer=writer,
        can_fork=run.model.base is not None,
        redo=run.trainer.on_lost_step == "redo",
    )
