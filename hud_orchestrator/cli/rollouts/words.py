"""Texts of models and environments, made fit for a terminal."""

from __future__ import annotations


def visible(text: str) -> str:
    """*text* with what would steer a terminal, or cannot be printed, written out."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else repr(character)[1:-1]
        for character in text
    )


def facts_line(*facts: str | bool | None) -> str:
    """Those of *facts* that are there, in one line."""
    return ", ".join(str(fact) for fact in facts if fact)
