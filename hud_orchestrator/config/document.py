"""A run file's values, and the place of every one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hud_orchestrator.config.mistakes import START, KeyPath, Mistake, Place


@dataclass(slots=True)
class Document:
    """Values of one YAML text; ``keys`` and ``values`` say where each path's key and value stand."""

    data: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def nearest(self, path: KeyPath) -> Place:
        """Find the key at *path*, else the section around it, else the top of the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.keys:
                return self.keys[path[:length]]
        return START


class Unreadable(Exception):
    """The text as a whole is no YAML that can be walked."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.text)
        self.mistake = mistake
