"""What a check says about the values of several keys together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from hud_orchestrator.config.document import Document
from hud_orchestrator.config.mistakes import KeyPath, Mistake, Place
from hud_orchestrator.config.run import RunFile

Resolve = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Finding:
    """A text about ``keys``; the first is what the text is about, the others take part in it."""

    keys: tuple[str, ...]
    text: str


Check = Callable[[RunFile, Resolve], Iterator[Finding]]


def located(finding: Finding, document: Document) -> Mistake:
    """Place the finding at its first key that somebody wrote; a default has no line of its own."""
    return Mistake(_place(finding, document), _written(path_of(finding.keys[0]), document), finding.text)


def rests_on(finding: Finding, wrong: Collection[KeyPath]) -> bool:
    """Tell whether one of its keys is wrong already, so that the finding says nothing."""
    paths = [path_of(key) for key in finding.keys]
    return any(path[: len(bad)] == bad or bad[: len(path)] == path for path in paths for bad in wrong)


def path_of(key: str) -> KeyPath:
    """Split ``rollout.deadline_s``, or ``taskset.train.0.source``, into a path."""
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _written(path: KeyPath, document: Document) -> KeyPath:
    """Where *path* is written: in place of an item, or of a list of one, there may be a plain text."""
    for length in range(len(path), 0, -1):
        if path[:length] in document.values or all(isinstance(part, str) for part in path[:length]):
            return path[:length]
    return path


def _place(finding: Finding, document: Document) -> Place:
    written = (document.values.get(_written(path_of(key), document)) for key in finding.keys)
    return next((place for place in written if place), None) or document.nearest(path_of(finding.keys[0]))
