"""A run file with every default filled in, as YAML whose comments say where each value came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import yaml

from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.scalars import Loader

WIDEST = 48
"""Columns up to which comments are aligned; a longer line has its own beside it."""


class _Dumper(yaml.SafeDumper):
    """Puts quotes around whatever the loader would not take for text."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers


def yaml_value(value: Any) -> str:
    """Write *value* on one line."""
    return _scalar(value) if isinstance(value, bool | int | float | str | None) else _dumped(value)


@lru_cache(maxsize=1024, typed=True)
def _scalar(value: bool | int | float | str | None) -> str:
    # PyYAML takes its time, and the names of settings are the same in every run file.
    return _dumped(value)


def _dumped(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True
    )
    return text.removesuffix("...\n").rstrip("\n")


def resolved_lines(run: RunFile, origins: Mapping[str, str]) -> list[str]:
    """Write *run* as lines that are a run file again."""
    lines = list(_lines(run.model_dump(mode="json"), origins, ""))
    column = max((len(text) for text, _ in lines if len(text) <= WIDEST), default=0)
    return [f"{text:{column}}  # {origin}" if origin else text for text, origin in lines]


def _lines(values: Mapping[str, Any], origins: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    indent = "  " * prefix.count(".")
    for name, value in values.items():
        key = prefix + name
        if isinstance(value, dict) and value:
            yield f"{indent}{yaml_value(name)}:", ""
            yield from _lines(value, origins, f"{key}.")
        else:
            yield f"{indent}{yaml_value(name)}: {yaml_value(value)}", origins[key]
