"""Find the model or the checkpoint that somebody means."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from hud_orchestrator.errors import NotFound
from hud_orchestrator.wire import Checkpoint, Model

SHORTEST_PREFIX = 4
"""Fewer characters of an id would change their meaning with the next few checkpoints."""

SHOWN = 8
"""Characters of an id that are shown to people."""


def pick_model(models: Sequence[Model], wanted: str) -> Model:
    """The first model whose slug, name, id or last part of the slug is *wanted*, whatever its case.

    Raises:
        NotFound: there is none.
    """
    for model in models:
        if wanted.casefold() in (part.casefold() for part in _handles(model)):
            return model
    slugs = sorted(model.model_name for model in models)
    raise NotFound(f"there is no model {wanted!r}; {_near(wanted, slugs)}")


def pick_checkpoint(nodes: Sequence[Checkpoint], wanted: str, *, slug: str) -> Checkpoint:
    """The checkpoint with this id, this name, or an id that begins so.

    Raises:
        NotFound: there is none, or more than one.
    """
    for node in nodes:
        if node.id == wanted:
            return node
    found = [node for node in nodes if node.name == wanted]
    if not found and len(wanted) >= SHORTEST_PREFIX:
        found = [node for node in nodes if node.id.startswith(wanted.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(node.id for node in found)
        raise NotFound(f"{wanted!r} means {len(found)} checkpoints of {slug}; use one of the ids {several}")
    if not nodes:
        raise NotFound(f"{slug} has no checkpoints; there is one after the first optimizer step")
    words = [word for node in nodes for word in (node.name, node.id, node.id[:SHOWN]) if word]
    raise NotFound(f"{slug} has no checkpoint {wanted!r}; {_near(wanted, words)}")


def label(node: Checkpoint) -> str:
    """A checkpoint in a sentence: its name and the beginning of its id."""
    return f"{node.name} ({node.id[:SHOWN]})" if node.name else node.id[:SHOWN]


def _handles(model: Model) -> list[str]:
    last = model.model_name.rsplit("/", 1)[-1]
    return [part for part in (model.id, model.name, model.model_name, last) if part]


def _near(wanted: str, words: Sequence[str]) -> str:
    """Up to three words that are spelled alike, or the first few that there are."""
    close = difflib.get_close_matches(wanted, list(dict.fromkeys(words)), n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    some = ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")
    return f"there are {some}" if words else "there are none at all"
