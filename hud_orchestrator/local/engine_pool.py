"""The engines that are loaded, one per base model and way of training it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.local.bases import default_cache_dir, prepare
from hud_orchestrator.local.engine import Engine
from hud_orchestrator.local.language_model import LanguageModel, Recipe, choose_recipe, load_language_model
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.sampler import Sampler
from hud_orchestrator.local.settings import ServiceSettings
from hud_orchestrator.logs import get_logger

log = get_logger()
T = TypeVar("T")

JOIN_S = 5.0
"""Longest wait for an engine's slice in hand when the service stops."""


class EnginePool:
    """Loads engines when they are first needed, each once. Used by the event loop only."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._engines: dict[str, asyncio.Task[Engine]] = {}
        self._recipes: dict[str, asyncio.Task[Recipe]] = {}

    async def default(self, base: str) -> Engine:
        """The engine for new forks of *base*, and for sampling *base* itself.

        Raises:
            Refused: 422, *base* cannot be prepared or loaded.
        """
        task = self._recipes.get(base)
        if task is None:
            task = self._recipes[base] = asyncio.create_task(asyncio.to_thread(self._choose, base))
            task.add_done_callback(lambda ended: _drop_failed(self._recipes, base, ended))
        return await self.get(await _settled(task, base))

    async def get(self, recipe: Recipe) -> Engine:
        """The engine for forks made by *recipe*.

        Raises:
            Refused: 422, the base cannot be prepared or loaded.
        """
        task = self._engines.get(recipe.key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(self._load, recipe))
            self._engines[recipe.key] = task
            task.add_done_callback(lambda ended: _drop_failed(self._engines, recipe.key, ended))
        return await _settled(task, recipe.base)

    def loaded(self) -> list[Engine]:
        """Engines that are ready."""
        done = [task for task in self._engines.values() if task.done() and not task.cancelled()]
        return [task.result() for task in done if task.exception() is None]

    def close(self) -> None:
        """End every engine; what they sample is refused with 503."""
        for engine in self.loaded():
            engine.close()

    async def join(self) -> None:
        """Wait, for a bounded time, until the threads have ended."""
        for engine in self.loaded():
            await asyncio.to_thread(engine.join, JOIN_S)

    def _choose(self, base: str) -> Recipe:
        return choose_recipe(base, self._directory(base), self._settings.local)

    def _load(self, recipe: Recipe) -> Engine:
        local = self._settings.local
        model = load_language_model(
            self._directory(recipe.base),
            recipe,
            context=BUNDLED_CONTEXT.get(recipe.base),
            device=local.device,
        )
        log.info("engine.loaded", base=recipe.base, mode=recipe.mode, context=model.context)
        return Engine(model, self._sampler(model), threads=local.threads)

    def _sampler(self, model: LanguageModel) -> Sampler:
        local = self._settings.local
        return Sampler(
            model,
            # One at a time: what a completion is cannot depend on what else happened to arrive.
            max_batch=1 if self._settings.deterministic else local.max_batch,
            max_queue=local.max_queue,
            prefill_tokens=local.tokens_per_microbatch,
        )

    def _directory(self, base: str) -> Path:
        settings = self._settings
        # What a seed decides belongs to the state; what is the same for everybody is kept once.
        usual = settings.state_dir / "bases" if base == "tiny" else default_cache_dir()
        cache = settings.local.cache_dir or usual
        return prepare(base, cache_dir=cache, seed=settings.local.warm_start_seed)


async def _settled(task: asyncio.Task[T], base: str) -> T:
    try:
        # Several requests wait for one load; one that is cancelled must not take it along.
        return await asyncio.shield(task)
    except Exception as error:
        log.warning("request.failed", stage="loading", base=base, error=f"{type(error).__name__}: {error}")
        raise Refused(422, f"base model {base} cannot be loaded: {error}") from error


def _drop_failed(tasks: dict[str, asyncio.Task[T]], key: str, ended: asyncio.Task[T]) -> None:
    if ended.cancelled() or ended.exception() is not None:
        tasks.pop(key, None)
