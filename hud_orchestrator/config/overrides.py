"""``--set key=value``: values of the command line, laid over those of the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hud_orchestrator.config.document import Document, Unreadable
from hud_orchestrator.config.mistakes import COMMAND_LINE, KeyPath, Mistake
from hud_orchestrator.config.reading import read_document


def lay_over(document: Document, overrides: Sequence[str]) -> None:
    """Put every override into *document*; of two for one key the later holds."""
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            # Only the key is repeated: what follows it may be a secret.
            wrong = Mistake(
                COMMAND_LINE, (key.strip()[:60],), "write --set KEY=VALUE, for example --set run.steps=20"
            )
            document.mistakes.append(wrong)
            continue
        _lay_one(document, path, text)


def _lay_one(document: Document, path: tuple[str, ...], text: str) -> None:
    try:
        given = read_document(text)
    except Unreadable as error:
        document.mistakes.append(Mistake(COMMAND_LINE, path, error.mistake.text))
        return
    holder = _holder(document, path)
    if holder is None:
        return
    _forget(document, path)
    for mistake in given.mistakes:
        document.mistakes.append(Mistake(COMMAND_LINE, (*path, *mistake.path), mistake.text))
    holder[path[-1]] = given.data
    for length in range(1, len(path) + 1):
        document.keys.setdefault(path[:length], COMMAND_LINE)
    document.keys |= {(*path, *inner): COMMAND_LINE for inner in given.keys}
    document.values |= {(*path, *inner): COMMAND_LINE for inner in [(), *given.values]}


def _holder(document: Document, path: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the mapping that holds the last key of *path*, made where it is missing."""
    if document.data is None:
        document.data = {}
    holder = document.data
    for part in path[:-1]:
        if not isinstance(holder, dict):
            break
        if holder.get(part) is None:
            holder[part] = {}
        holder = holder[part]
    if isinstance(holder, dict):
        return holder
    text = "cannot be set: the file has a plain value or a list where this key's section should be"
    document.mistakes.append(Mistake(COMMAND_LINE, path, text))
    return None


def _forget(document: Document, path: KeyPath) -> None:
    """Drop the places and mistakes of what the file said at *path*: it no longer counts."""
    for places in (document.keys, document.values):
        for known in [known for known in places if known[: len(path)] == path]:
            del places[known]
    document.mistakes = [mistake for mistake in document.mistakes if mistake.path[: len(path)] != path]
