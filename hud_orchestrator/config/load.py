"""Read a run file: YAML in; out comes a run, or every mistake with its line, its column and what to do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hud_orchestrator.config.checks import CHECKS
from hud_orchestrator.config.document import Document, Unreadable
from hud_orchestrator.config.doubts import doubts
from hud_orchestrator.config.file_checks import FILE_CHECKS
from hud_orchestrator.config.findings import Finding, Resolve, located, rests_on
from hud_orchestrator.config.guard_checks import GUARD_CHECKS
from hud_orchestrator.config.mistakes import START, Mistake, refuse
from hud_orchestrator.config.origins import origins
from hud_orchestrator.config.overrides import lay_over
from hud_orchestrator.config.placement import PLACEMENT_CHECKS
from hud_orchestrator.config.reading import read_document, read_text
from hud_orchestrator.config.run import RunFile
from hud_orchestrator.config.shape import read_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A run file without mistakes.

    ``origins`` has a place for every dotted key: ``quickstart.yaml:14``, ``--set`` or ``default``.
    ``warnings`` are lines about values that work but were probably not meant so.
    """

    run: RunFile
    path: Path
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    """``key=value``, as they were laid over it."""

    def resolve(self, named: str | Path) -> Path:
        """Make an absolute path of a file that the run file names: relative to the run file."""
        return _resolved(self.path, named)


def load(path: Path, *, overrides: Sequence[str] = ()) -> LoadedRun:
    """Read the run file at *path*, with ``key=value`` overrides laid over it.

    Raises:
        ConfigError: the file cannot be read or has mistakes; a line for each of them.
    """
    file = str(path)
    try:
        document = read_document(read_text(path))
    except Unreadable as error:
        refuse([error.mistake], file)
        raise
    if document.data is None and not document.mistakes:
        empty = f"the file is empty; a run file has the keys {', '.join(RunFile.model_fields)}"
        refuse([Mistake(START, (), f'{empty}; "hud-orchestrate init" writes one')], file)
    lay_over(document, overrides)
    run = _checked(document, path)
    found = origins(document, path.name)
    given = [key for key, origin in found.items() if origin != "default"]
    warnings = tuple(located(doubt, document).shown(file) for doubt in doubts(run, given))
    return LoadedRun(
        run=run, path=path.absolute(), origins=found, warnings=warnings, overrides=tuple(overrides)
    )


def _checked(document: Document, path: Path) -> RunFile:
    run, wrong_shape = read_shape(document)
    told = {(mistake.place, mistake.path) for mistake in document.mistakes}
    mistakes = [*document.mistakes, *(one for one in wrong_shape if (one.place, one.path) not in told)]
    findings = _findings(run, lambda named: _resolved(path, named)) if run else []
    wrong = [mistake.path for mistake in mistakes]
    mistakes += [located(finding, document) for finding in findings if not rests_on(finding, wrong)]
    refuse(mistakes, str(path))
    assert run is not None
    return run


def _findings(run: RunFile, resolve: Resolve) -> list[Finding]:
    return [
        finding
        for check in (*CHECKS, *FILE_CHECKS, *PLACEMENT_CHECKS, *GUARD_CHECKS)
        for finding in check(run, resolve)
    ]


def _resolved(run_file: Path, named: str | Path) -> Path:
    # os.path, because pathlib raises on an unknown "~name" and on a loop of links.
    return Path(os.path.realpath(run_file.absolute().parent / os.path.expanduser(named)))  # noqa: PTH111
