"""Which version of the schema a store has, and how an older one is brought up to date."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from hud_orchestrator.errors import StateError
from hud_orchestrator.logs import get_logger

SCHEMA_VERSION = 7

log = get_logger()


def version_of(connection: sqlite3.Connection, path: Path, *, migrates: bool) -> int:
    """The store's version, 0 of one that is new; looks before anything of the file is changed.

    Raises:
        StateError: it is none to work with.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise StateError(f"{path}: is a database of another program; choose another run.name")
    if version > SCHEMA_VERSION:
        raise StateError(
            f"{path}: store has version {version}, this program reads up to {SCHEMA_VERSION}; "
            "continue it with the program that wrote it, or choose another run.name"
        )
    if 0 < version < SCHEMA_VERSION and not migrates:
        raise StateError(
            f"{path}: store has version {version}, this program writes {SCHEMA_VERSION}; "
            "hud-orchestrate run brings it up to date"
        )
    return version


def bring_up_to_date(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Make the tables, or change those of an older store, one version at a time; a copy of it is kept."""
    if version == 0:
        _run_script(connection, "schema.sql", SCHEMA_VERSION)
    elif version < SCHEMA_VERSION:
        backup = path.with_name(f"{path.name}.v{version}")
        with closing(sqlite3.connect(backup)) as copy:
            connection.backup(copy)
        for newer in range(version + 1, SCHEMA_VERSION + 1):
            _run_script(connection, f"migrations/{newer:04}.sql", newer)
        log.info("store.migrated", version=SCHEMA_VERSION, before=version, backup=str(backup))


def _run_script(connection: sqlite3.Connection, name: str, version: int) -> None:
    """All of a script and the version it leads to, or, after a kill in between, nothing."""
    script = files("hud_orchestrator.store").joinpath(name).read_text()
    # A table cannot be replaced while others refer to it, unless references are not looked at.
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {version}; COMMIT")
    connection.execute("PRAGMA foreign_keys = ON")
