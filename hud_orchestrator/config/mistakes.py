"""A mistake in the run file or on the command line: where it is, which key, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hud_orchestrator.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line and column of the run file, both from 1; line 0 is the command line's ``--set``."""

    line: int
    column: int

    def shown(self, file: str) -> str:
        """``file:line:column``, or ``--set``."""
        return f"{file}:{self.line}:{self.column}" if self.line else "--set"


START = Place(1, 1)
COMMAND_LINE = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong at one place; ``path`` is the key from the top of the file, empty for the file itself."""

    place: Place
    path: KeyPath
    text: str

    def shown(self, file: str) -> str:
        """One line for a person."""
        parts = (self.place.shown(file), dotted(self.path), self.text)
        return ": ".join(part for part in parts if part)


def dotted(path: KeyPath) -> str:
    """``("agent", "stop", 1)`` as ``agent.stop[1]``; what a terminal cannot show is escaped."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isprintable() else ascii(part))
    return text


def refuse(mistakes: Iterable[Mistake], file: str) -> None:
    """Raise them all, in the order of the file, the command line last.

    Raises:
        ConfigError: there is at least one; a line for each.
    """
    in_order = sorted(mistakes, key=lambda mistake: (mistake.place == COMMAND_LINE, mistake.place))
    lines = dict.fromkeys(mistake.shown(file) for mistake in in_order)
    if lines:
        raise ConfigError("\n".join(lines))
