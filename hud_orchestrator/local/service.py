"""The service without HTTP: finds models, loads them when they are needed, and forks them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hud_orchestrator.local.catalog import Catalog
from hud_orchestrator.local.engine import Engine
from hud_orchestrator.local.engine_pool import EnginePool
from hud_orchestrator.local.language_model import Recipe
from hud_orchestrator.local.once import OnceOnly
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.settings import ServiceSettings
from hud_orchestrator.local.trained_model import TrainedModel, load_state
from hud_orchestrator.local.tree import ModelRecord, Tree
from hud_orchestrator.local.weights import Tensors, Weights, initial_adapter
from hud_orchestrator.logs import get_logger
from hud_orchestrator.wire import ForkRequest, Model

log = get_logger()

SETTLE_S = 20.0
"""Longest wait for training calls in hand when the service stops: a save may wait for a slow disk."""

Source = Callable[[], Weights]
"""Gives the snapshot to sample from now."""


class Service:
    """Everything that routes need. Used by the event loop only."""

    def __init__(self, settings: ServiceSettings, catalog: Catalog) -> None:
        self.settings = settings
        self.catalog = catalog
        self.pool = EnginePool(settings)
        self.once = OnceOnly()
        self.rewards: dict[str, float | None] = {}
        """Reward per trace, as its exit reported it."""
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

    async def sampled(self, handle: str) -> tuple[Engine, Source]:
        """What to sample the model with this slug or id with.

        Raises:
            Refused: 404.
        """
        model = self.catalog.find(handle)
        if model.id in self.catalog.forks:
            trained = await self.trained(model.id)
            return trained.engine, lambda: trained.weights
        engine = await self.pool.default(model.model_name)
        # One object per base: sequences of the same snapshot are batched together.
        weights = self._bases.setdefault(model.id, Weights(f"initial:{model.id}", {}))
        return engine, lambda: weights

    async def fork(self, request: ForkRequest) -> Model:
        """Make a trainable model from a base, or from another fork's head.

        Raises:
            Refused: 404, unknown source; 409, the name is taken; 422; 507, it could not be written.
        """
        source = self.catalog.find(request.source_model_id)
        self.catalog.claim(request.name)
        try:
            recipe, initial, at = await self._initial(source, request.name)
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
        await self.once.settle(SETTLE_S)
        await self.pool.join()

    async def _initial(self, source: Model, slug: str) -> tuple[Recipe, Tensors, str | None]:
        """How a fork is trained, where it begins, and the checkpoint that this is."""
        tree = self.catalog.forks.get(source.id)
        if tree is not None:
            head = tree.head
            state = await asyncio.to_thread(tree.load, head)
            return _recipe(tree.record), state.tensors, head.checkpoint.id if head else None
        model = (await self.pool.default(source.model_name)).model
        if model.recipe.mode == "full":
            return model.recipe, model.trained, None
        adapter = await asyncio.to_thread(initial_adapter, model.trained, seed=self.settings.seed, slug=slug)
        return model.recipe, adapter, None

    async def _open(self, tree: Tree) -> TrainedModel:
        engine = await self.pool.get(_recipe(tree.record))
        state = await asyncio.to_thread(load_state, tree, tree.head, engine)
        tokens = self.settings.local.tokens_per_microbatch
        return TrainedModel(tree, engine, state, tokens_per_microbatch=tokens)


def _recipe(record: ModelRecord) -> Recipe:
    return Recipe(base=record.base, mode=record.mode, lora=record.lora)
