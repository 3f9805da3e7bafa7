"""A first run file, generated from the models: what every key means, what it takes, its default."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from hud_orchestrator.config.fields import allowed, section_of
from hud_orchestrator.config.resolved import yaml_value
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.section import Section

_TOP = """\
A run file: check it with `hud-orchestrate validate`, train with `hud-orchestrate run`.

A key that is commented out shows its default; take the # away to change it. Files are relative to
this one. No secret belongs here: HUD_API_KEY is read from the environment. For completion in an
editor, write the file that the next line names: `hud-orchestrate schema > run.schema.json`."""

_MODELINE = "# yaml-language-server: $schema=run.schema.json"

EXAMPLE: Mapping[str, Any] = {
    "run.name": "first",
    "run.steps": 60,
    "model.slug": "arithmetic",
    "model.base": "tiny",
    "service": "local",
    "taskset.train": "tasks.py:train",
    "taskset.heldout": "tasks.py:heldout",
    "agent.max_tokens": 6,
    "rollout.group_size": 16,
    "rollout.groups_per_step": 16,
    "rollout.concurrency": 64,
    "rollout.deadline_s": 60,
    "rollout.grading_reserve_s": 10,
    "trainer.learning_rate.peak": 3e-4,
    "trainer.learning_rate.warmup_steps": 5,
}
"""Values for a first run: the tiny model, on a machine without a GPU."""


def starter() -> str:
    """Write a run file that trains on the example tasks."""
    sections = "\n\n".join(_section(RunFile, ""))
    return "\n".join([*_comment(_TOP, ""), _MODELINE, "", sections, ""])


def _section(section: type[Section], prefix: str) -> Iterator[str]:
    """Write the keys of *section*, a paragraph for each."""
    indent = "  " * prefix.count(".")
    for name, info in section.model_fields.items():
        inner = section_of(info.annotation)
        if inner is None:
            yield "\n".join(
                [*_comment(_explained(name, info, prefix), indent), indent + _setting(name, info, prefix)]
            )
        else:
            head = [*_comment(inspect.getdoc(inner) or "", indent), f"{indent}{name}:"]
            first, *others = _section(inner, f"{prefix}{name}.")
            yield "\n".join([*head, first])
            yield from others


def _explained(name: str, info: FieldInfo, prefix: str) -> str:
    takes = [f"{'Required' if info.is_required() else 'Allowed'}: {allowed(info.annotation, info.metadata)}."]
    # A key that is commented out shows its default itself.
    if prefix + name in EXAMPLE and info.get_default() is not None and not info.is_required():
        takes.append(f"Default: {_default(info)}.")
    return f"{info.description}\n\n{' '.join(takes)}"


def _setting(name: str, info: FieldInfo, prefix: str) -> str:
    if prefix + name in EXAMPLE:
        return f"{name}: {yaml_value(EXAMPLE[prefix + name])}"
    return f"#{name}: {_default(info)}"


def _default(info: FieldInfo) -> str:
    return yaml_value(info.get_default(call_default_factory=True))


def _comment(text: str, indent: str) -> Iterator[str]:
    for paragraph in text.replace("``", "`").split("\n\n"):
        words, margin = " ".join(paragraph.split()), f"{indent}# "
        yield from textwrap.wrap(
            words, 100, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
        )
