"""Pages that are made from the code when the site is built, so that they cannot differ from it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.cli import get_docs_for_click

from hud_orchestrator.cli import app
from hud_orchestrator.config.fields import allowed, section_of
from hud_orchestrator.config.resolved import yaml_value
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.section import Section

RUN_FILE = """\
# Run file

Every key of the YAML file that `hud-orchestrate run` reads. `hud-orchestrate init` writes a commented one,
`hud-orchestrate validate` checks one and prints every value with its origin, and `hud-orchestrate schema`
prints the JSON Schema for an editor. Keys that are not listed here are refused. A default of `null` means
that the key is left out.

The API key and the addresses of the services are no part of it; see
[`TrainingClient`](training-client.md#constructor).
"""

CLI = """\
# Command line

What `--help` of every command says. The exit codes are those of [the errors](training-client.md#errors);
the README has the whole table.
"""


def run_file_page() -> str:
    """The reference of the run file, in Markdown."""
    return "\n".join([RUN_FILE, *_section(RunFile, "")])


def cli_page() -> str:
    """The reference of the command line, in Markdown."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name=command.name)
    text = get_docs_for_click(obj=command, ctx=context, name="hud-orchestrate", indent=1)
    # The lists of commands have their help cut off, and each command follows whole.
    text = re.sub(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text)
    return f"{CLI}\n{text.replace('```console', '```text')}"


PAGES: dict[str, Callable[[], str]] = {"run-file.md": run_file_page, "cli.md": cli_page}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages; mkdocs calls this by its name."""
    from mkdocs.structure.files import File

    for path, write in PAGES.items():
        files.append(File.generated(config, path, content=write()))
    return files


def _section(section: type[Section], prefix: str) -> Iterator[str]:
    """The keys that are values first, then the sections below."""
    fields = section.model_fields
    inner = {name: below for name in fields if (below := section_of(fields[name].annotation))}
    for name, info in fields.items():
        if name not in inner:
            takes = f"Takes: `{allowed(info.annotation, info.metadata)}`."
            default = "Required." if info.is_required() else f"Default: `{_default(info)}`."
            yield f"### `{prefix}{name}` {{ #{prefix}{name} }}\n\n{info.description}\n\n{takes} {default}\n"
    for name, below in inner.items():
        yield f"## `{prefix}{name}`\n\n{inspect.getdoc(below)}\n"
        yield from _section(below, f"{prefix}{name}.")


def _default(info: Any) -> str:
    return yaml_value(info.get_default(call_default_factory=True))
