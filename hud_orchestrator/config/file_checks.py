"""Whether the files and directories that a run file names are there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from hud_orchestrator.config.findings import Check, Finding, Resolve
from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.sources import TASKSET_SUFFIXES, named_source
from hud_orchestrator.config.spelling import suggestion


def _tasksets(run: RunFile, resolve: Resolve) -> Iterator[Finding]:
    for key, entries in (("taskset.train", run.taskset.train), ("taskset.heldout", run.taskset.heldout)):
        for place, entry in enumerate(entries or ()):
            yield from _taskset(f"{key}.{place}.source", entry.source, resolve)


def _taskset(key: str, text: str, resolve: Resolve) -> Iterator[Finding]:
    source = named_source(text, resolve)
    if not source.is_path:
        return  # the platform is asked when the run starts
    path = resolve(source.name)
    if os.path.isdir(path):  # noqa: PTH112
        return
    if not source.name.endswith(TASKSET_SUFFIXES):
        yield Finding(
            (key,),
            f'"{text}" is not a taskset; allowed: a .json, .jsonl or .py file, file.py:name, a directory, '
            f"or a taskset of the platform by name or id",
        )
    elif source.member is not None and not source.member.isidentifier():
        yield Finding((key,), f'"{source.member}" after the colon is not the name of a list in {source.name}')
    else:
        yield from _file(key, source.name, resolve)


def _file(key: str, file: str, resolve: Resolve) -> Iterator[Finding]:
    path = resolve(file)
    # os.path says "no" where pathlib raises: on a name that is too long.
    if os.path.isdir(path):  # noqa: PTH112
        yield Finding((key,), f'"{file}" is a directory, not a file')
    elif not os.path.exists(path):  # noqa: PTH110
        yield Finding((key,), f'there is no file {path}; "{file}" is relative to the run file')


def _base(run: RunFile, resolve: Resolve) -> Iterator[Finding]:
    base, most = run.model.base, run.agent.max_tokens
    if run.service == "hud" or base is None:
        return
    context = BUNDLED_CONTEXT.get(base)
    if context is None:
        try:
            context = _context_of(resolve(base) / "config.json")
        except (OSError, ValueError) as error:
            yield Finding(("model.base", "service"), _no_base(base, resolve(base), error))
            return
    if context is not None and most >= context:
        yield Finding(
            ("agent.max_tokens", "model.base", "service"),
            f"{most} leaves no room for a prompt: {base} has a context of {context} tokens; allowed: 1 to "
            f"{context - 1}, less what prompts need",
        )


def _no_base(base: str, directory: Path, error: Exception) -> str:
    if os.path.isdir(directory):  # noqa: PTH112
        return (
            f'"{base}" is no model directory: config.json is not usable ({error}); transformers must load it'
        )
    bundled, advice = ", ".join(BUNDLED_CONTEXT), suggestion(base, BUNDLED_CONTEXT)
    return f'"{base}" is neither bundled ({bundled}) nor a directory, there is no {directory}{advice}'


def _context_of(config: Path) -> int | None:
    """Read the context length that a transformers ``config.json`` states; some models state none.

    Raises:
        OSError: there is no such file.
        ValueError: it is not a JSON object.
    """
    stated = json.loads(config.read_bytes())
    if not isinstance(stated, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  (about a file's content, not an argument)
    lengths = (stated.get(key) for key in ("max_position_embeddings", "n_positions"))
    return next((length for length in lengths if isinstance(length, int)), None)


FILE_CHECKS: tuple[Check, ...] = (_tasksets, _base)
"""Checks that look at the disk."""
