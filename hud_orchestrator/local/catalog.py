"""What models there are: base models by name, and the forks on disk."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.local.atomic import remove_leftovers
from hud_orchestrator.local.language_model import Recipe
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.tree import Tree, create_tree
from hud_orchestrator.local.tree_records import ModelRecord
from hud_orchestrator.local.weights import Tensors
from hud_orchestrator.logs import get_logger
from hud_orchestrator.wire import Model, Provider

log = get_logger()

SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
ANY_UUID = re.compile(r"[0-9A-Fa-f]{8}-?([0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}")
_NAMESPACE = uuid.UUID("6f3e3c0e-7b0a-5d0c-9a51-0d5f3c1b7a42")
"""Of the ids of base models: the same name has the same id in every service."""


class Catalog:
    """Base models and forks, by id and by slug."""

    def __init__(self, state_dir: Path, bases: Iterable[str]) -> None:
        """Read the forks of *state_dir*; mend or discard what a crash left there."""
        self.bases = {base_id(name): name for name in dict.fromkeys([*BUNDLED_CONTEXT, *bases])}
        self._models = state_dir / "models"
        self._models.mkdir(parents=True, exist_ok=True)
        for name in remove_leftovers(self._models):
            log.warning("checkpoint.discarded", model=None, leftover=name)
        trees = [Tree(path.parent) for path in self._models.glob("*/model.json")]
        trees.sort(key=lambda tree: (tree.record.created_at, tree.record.id))
        self.forks = {tree.record.id: tree for tree in trees}
        self._claimed: set[str] = set()

    def models(self) -> list[Model]:
        """Every model as the catalog answers it: bases first, then forks, oldest first."""
        bases = [_model(one, name, is_trainable=False) for one, name in self.bases.items()]
        return bases + [_model(one, tree.record.slug, is_trainable=True) for one, tree in self.forks.items()]

    def find(self, handle: str) -> Model:
        """The model with this slug or id; the id in any spelling of a UUID.

        Raises:
            Refused: 404.
        """
        models = self.models()
        # In this order: a slug may look like a UUID.
        for wanted in dict.fromkeys([handle, canonical(handle)]):
            for model in models:
                if wanted in (model.model_name, model.id):
                    return model
        raise Refused(404, f"there is no model {handle!r}")

    def fork_of(self, handle: str) -> Tree:
        """The tree of the fork with this id or slug.

        Raises:
            Refused: 404, there is no such model; 422, it is a base, which cannot be trained.
        """
        model = self.find(handle)
        if model.id in self.bases:
            raise Refused(422, f"{model.model_name} is a base model: fork it, and train the fork")
        return self.forks[model.id]

    def claim(self, slug: str) -> None:
        """Take *slug* for a fork that is being made.

        Raises:
            Refused: 409, it is taken; 422, it is no slug.
        """
        if not SLUG.fullmatch(slug):
            raise Refused(422, f"name: {slug!r} is not 1 to 128 letters, digits or any of . _ - /")
        if slug in self._claimed or any(model.model_name == slug for model in self.models()):
            raise Refused(409, f"the name {slug!r} is taken")
        self._claimed.add(slug)

    def release(self, slug: str) -> None:
        """The fork was added, or will not be."""
        self._claimed.discard(slug)

    def create(self, slug: str, recipe: Recipe, initial: Tensors, *, parent: Model, at: str | None) -> Tree:
        """Write a fork to disk. Blocking; ``add`` then makes it known.

        Raises:
            OSError: nothing was written.
        """
        record = ModelRecord(
            id=str(uuid.uuid4()),
            slug=slug,
            base=recipe.base,
            mode=recipe.mode,
            lora=recipe.lora,
            parent=parent.id,
            parent_checkpoint=at,
            created_at=datetime.now(UTC).isoformat(),
        )
        return create_tree(self._models / record.id, record, initial)

    def add(self, tree: Tree) -> Model:
        """Make a fork known."""
        self.forks[tree.record.id] = tree
        return _model(tree.record.id, tree.record.slug, is_trainable=True)


def canonical(handle: str) -> str:
    """A UUID as ids are written, lower-case and with dashes; anything else as it is."""
    return str(uuid.UUID(handle)) if ANY_UUID.fullmatch(handle) else handle


def base_id(name: str) -> str:
    """The id of a base model."""
    return str(uuid.uuid5(_NAMESPACE, name))


def _model(model_id: str, slug: str, *, is_trainable: bool) -> Model:
    return Model(
        id=model_id,
        name=slug,
        model_name=slug,
        sdk_agent_type="openai_compatible",
        is_trainable=is_trainable,
        provider=Provider(name="local"),
    )
