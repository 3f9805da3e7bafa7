"""Which service a ``models`` command talks to: one that runs, or one that it starts on a state directory."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.embedded import Addresses, embedded_service, in_use
from hud_orchestrator.errors import ConfigError, KeyRefused, StateInUse
from hud_orchestrator.settings import PREFIX, Settings, setting_origins


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the command line says about where the service is."""

    env_file: Path | None = None
    state: Path | None = None
    cache: Path | None = None


@asynccontextmanager
async def service(place: Place) -> AsyncGenerator[Addresses, None]:
    """The addresses of the service, which runs for the length of the block when a state is named.

    Raises:
        ConfigError: what the command line names cannot be used.
        KeyRefused: there is no key.
        StateInUse: a service that runs has the state directory.
    """
    if place.state is None:
        yield _addresses(place.env_file)
        return
    if place.env_file is not None:
        raise ConfigError("--state starts a service of its own, --env-file names another; give one of them")
    state = state_directory(place.state)
    check_free(state)
    settings = {
        "state_dir": str(state),
        "local": local_section(state, cache=place.cache).model_dump(mode="json"),
    }
    async with embedded_service(settings, log_file=state / "service.log") as addresses:
        yield addresses


def use_env_file(path: Path) -> None:
    """Lay the file's ``HUD_*`` values over the environment of this process.

    Raises:
        ConfigError: it cannot be read, or has none of them.
    """
    from dotenv import dotenv_values

    try:
        with path.open(encoding="utf-8") as file:
            found = dotenv_values(stream=file)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; hud-orchestrate serve --env-file writes such a file"
        ) from None
    values = {name: value for name, value in found.items() if name.upper().startswith(PREFIX) and value}
    if not values:
        raise ConfigError(f"{path}: has no HUD_* value; hud-orchestrate serve --env-file writes such a file")
    os.environ.update(values)


def is_addressed(env_file: Path | None) -> bool:
    """Whether somebody said where the catalog is, rather than leave it at HUD's own address."""
    return env_file is not None or setting_origins()["HUD_API_URL"] != "default"


def state_directory(given: Path) -> Path:
    """The state directory that *given* is, or that the run directory *given* holds.

    Raises:
        ConfigError: it is neither.
    """
    for directory in (given, given / "service"):
        if (directory / "models").is_dir():
            return directory.absolute()
    raise ConfigError(
        f"{given}: holds no models of an embedded service; name a run directory such as runs/quickstart, "
        "or what serve --state was given"
    )


def check_free(state: Path) -> None:
    """Refuse a state directory that a service which runs has.

    Raises:
        StateInUse: it has one.
    """
    if in_use(state):
        raise StateInUse(
            f"{state}: a service is running on it; talk to that one: leave --state out and give the file "
            "of its serve --env-file as --env-file, or wait until its run has ended"
        )


def local_section(state: Path, *, cache: Path | None) -> LocalSection:
    """How the service of *state* computes: as the run whose directory it is in says, if there is one."""
    import yaml

    try:
        document: Any = yaml.safe_load((state.parent / "config.yaml").read_text(encoding="utf-8"))
        section = LocalSection.model_validate(document["local"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        section = LocalSection()
    return section if cache is None else section.model_copy(update={"cache_dir": cache.absolute()})


def _addresses(env_file: Path | None) -> Addresses:
    if env_file is not None:
        use_env_file(env_file)
    settings = Settings.load()
    if settings.api_key is None:
        raise KeyRefused(
            f"HUD_API_KEY is not set, and {settings.api_url} needs it; set it in the environment, in .env or "
            "in ~/.hud/.env, or name a local service with --env-file FILE or --state DIR"
        )
    return Addresses(
        rl_url=settings.rl_url,
        api_url=settings.api_url,
        gateway_url=settings.gateway_url,
        telemetry_url=settings.telemetry_url,
        api_key=settings.api_key,
    )
