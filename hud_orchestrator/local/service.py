"""The service without HTTP: finds models, loads them when they are needed, and forks them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from hud_orchestrator.local.catalog import Catalog, canonical
from hud_orchestrator.local.engine import Engine
from hud_orchestrator.local.engine_pool import EnginePool
from hud_orchestrator.local.fence import Fence
from hud_orchestrator.local.language_model import Recipe
from hud_orchestrator.local.once import OnceOnly
from hud_orchestrator.local.pinned import Pinned
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.settings import ServiceSettings
from hud_orchestrator.local.tasksets import Tasksets
from hud_orchestrator.local.traces import Traces
from hud_orchestrator.local.trained_model import TrainedModel
from hud_orchestrator.local.tree import Tree
from hud_orchestrator.local.tree_records import ModelRecord
from hud_orchestrator.local.weights import Tensors, Weights, initial_adapter
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import INITIAL
from hud_orchestrator.wire import ForkRequest, Model, TrajectoryPayload

log = get_logger()

SETTLE_S = 20.0
"""Longest wait for training calls in hand when the service stops: a save may wait for a slow disk."""

REMEMBERED_FORWARDS = 16
"""Answers of ``forward`` that are kept for a repeated key; each may be as large as a batch."""

Source = Callable[[], Weights]
"""Gives the snapshot to sample from now."""


class Service:
    """Everything that routes need. Used by the event loop only."""

    def __init__(self, settings: ServiceSettings, catalog: Catalog) -> None:
        self.settings = settings
        self.catalog = catalog
        self.pool = EnginePool(settings)
        self.once = OnceOnly()
        self.once_large = OnceOnly(capacity=REMEMBERED_FORWARDS)
        """For calls whose outcomes are large."""
        self.traces = Traces()
        self.tasksets = Tasksets(settings.state_dir / "tasksets")
        self._pinned = Pinned()
        self._fences: dict[str, Fence] = {}
        self._started = monotonic()
        self._opening: dict[str, asyncio.Task[TrainedModel]] = {}
        self._bases: dict[str, Weights] = {}

    async def trained(self, handle: str) -> TrainedModel:
        """The fork with this id or slug, loaded.

        Raises:
            Refused: 404, or 422 for a base model.
        """
        tree = self.catalog.fork_of(handle)
        task = self._opening.get(tree.record.id)
        if task is None or (task.done() and task.exception() is not None):
            task = self._opening[tree.record.id] = asyncio.create_task(self._open(tree))
        return await asyncio.shield(task)

    def fence(self, handle: str) -> Fence:
        """The lease of the fork with this id or slug, which need not be loaded.

        Raises:
            Refused: 404, or 422 for a base model.
        """
        tree = self.catalog.fork_of(handle)
        if tree.record.id not in self._fences:
            path = tree.directory / "lease.json"
            self._fences[tree.record.id] = Fence(
                path, outlives=self.settings.leases_outlive, since=self._started
            )
        return self._fences[tree.record.id]

    async def sampled(self, handle: str, checkpoint: str | None = None) -> tuple[Engine, Source]:
        """What to sample the model with this slug or id with: *checkpoint*, or its head.

        Raises:
            Refused: 404, there is no such model or checkpoint, or the checkpoint was pruned.
        """
        model = self.catalog.find(handle)
        if model.id in self.catalog.forks:
            trained = await self.trained(model.id)
            if checkpoint is None:
                return trained.engine, lambda: trained.weights
            # The SDK asks for a "checkpoint name", which is what its command line shows as the sampler.
            # The head of now, should it be the one: a promotion may come before sampling begins.
            pinned, checkpoint = trained.weights, trained.tree.id_of(canonical(checkpoint))
            if checkpoint != pinned.id:
                pinned = await self._pinned.get(trained.tree, checkpoint, trained.engine)
            return trained.engine, lambda: pinned
        if checkpoint not in (None, f"{INITIAL}{model.id}"):
            raise Refused(404, f"{model.model_name} is a base model and has no checkpoint {checkpoint!r}")
        engine = await self.pool.default(model.model_name)
        # One object per base: sequences of the same snapshot are batched together.
        weights = self._bases.setdefault(model.id, Weights(f"{INITIAL}{model.id}", {}))
        return engine, lambda: weights

    async def fork(self, request: ForkRequest) -> Model:
        """Make a trainable model from a base, or from a checkpoint of another fork, by default its head.

        The fork has the weights of that checkpoint and an optimizer of its own, at step 0.

        Raises:
            Refused: 404, unknown source or checkpoint; 409, the name is taken; 410, the checkpoint was
                pruned; 422; 507, it could not be written.
        """
        source = self.catalog.find(request.source_model_id)
        self.catalog.claim(request.name)
        try:
            recipe, initial, at = await self._initial(source, request)
            tree = await asyncio.to_thread(
                self.catalog.create, request.name, recipe, initial, parent=source, at=at
            )
        except OSError as error:
            raise Refused(507, f"the fork could not be written: {error}") from error
        finally:
            self.catalog.release(request.name)
        log.info("model.forked", model=request.name, source=source.model_name, mode=recipe.mode)
        return self.catalog.add(tree)

    async def close(self) -> None:
        """Refuse what waits, let a save in hand finish, end the threads. Bounded."""
        self.pool.close()
        await asyncio.gather(self.once.settle(SETTLE_S), self.once_large.settle(SETTLE_S))
        await self.pool.join()

    def trajectories(self, inputs: Sequence[TrajectoryPayload | str]) -> list[TrajectoryPayload]:
        """A request's inputs in order, each trace id replaced by what was recorded of the trace.

        Raises:
            Refused: 404 or 422, ids that are not known or not complete, all of them named.
        """
        ids = list(dict.fromkeys(one for one in inputs if isinstance(one, str)))
        found = self.traces.resolve(ids) if ids else {}
        return [found[one] if isinstance(one, str) else one for one in inputs]

    async def _initial(self, source: Model, request: ForkRequest) -> tuple[Recipe, Tensors, str | None]:
        """How a fork is trained, where it begins, and the checkpoint that this is."""
        tree, wanted = self.catalog.forks.get(source.id), request.checkpoint_id
        if tree is not None:
            node = tree.head if wanted is None else tree.node(canonical(wanted))
            state = await asyncio.to_thread(tree.load, node)
            return _recipe(tree.record), state.tensors, node.checkpoint.id if node else None
        if wanted is not None:
            raise Refused(404, f"{source.model_name} is a base model and has no checkpoint {wanted!r}")
        model = (await self.pool.default(source.model_name)).model
        if model.recipe.mode == "full":
            return model.recipe, model.trained, None
        seed, slug = self.settings.seed, request.name
        adapter = await asyncio.to_thread(initial_adapter, model.trained, seed=seed, slug=slug)
        return model.recipe, adapter, None

    async def _open(self, tree: Tree) -> TrainedModel:
        engine = await self.pool.get(_recipe(tree.record))
        state = await asyncio.to_thread(tree.load, tree.head)
        state = state.on(engine.model.device)
        fence = self.fence(tree.record.id)
        return TrainedModel(tree, engine, state, fence=fence, local=self.settings.local)


def _recipe(record: ModelRecord) -> Recipe:
    return Recipe(base=record.base, mode=record.mode, lora=record.lora)
