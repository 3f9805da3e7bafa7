"""Whether a run file goes on with the run of its directory, and what it changes in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hud_orchestrator.config.run import RunFile
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.errors import ConfigError, StateError
from hud_orchestrator.logs import get_logger
from hud_orchestrator.store.history import History

log = get_logger()


async def same_run(run: RunFile, history: History, directory: RunDirectory) -> None:
    """Refuse to continue one run with the run file of another, or what has lost its store.

    Raises:
        ConfigError: seed, service, slug or base differ from what the directory was begun with.
        StateError: it was begun with another store, which is not there.
    """
    now = {"seed": run.run.seed, "service": run.service, "slug": run.model.slug, "base": run.model.base}
    text = await history.get("identity")
    if text is None:
        # The store says what run it is before the file does. Without it all steps would be taken once more.
        if directory.config.exists():
            raise StateError(
                f"{directory.store}: is missing or empty, and {directory.config.name} is of a run that "
                "was begun here; put it back, or use --fresh to set the directory aside and begin anew"
            )
        await history.set("identity", json.dumps(now))
    elif (before := json.loads(text)) != now:
        changed = ", ".join(
            f"{key} was {before[key]!r}, is {now[key]!r}" for key in now if before[key] != now[key]
        )
        raise ConfigError(
            f"{run.directory}: holds another run ({changed}); choose another run.name, "
            "or use --fresh to set it aside"
        )
    config = run.model_dump_json()
    last = await history.get("config")
    if last is not None and (keys := list(_changed(json.loads(last), json.loads(config)))):
        log.info("run.config_changed", directory=str(run.directory), keys=keys)
    await history.set("config", config)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys that have another value now."""
    for name in {**before, **now}:
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _changed(one, other, f"{prefix}{name}.")
        elif one != other:
            yield f"{prefix}{name}"
