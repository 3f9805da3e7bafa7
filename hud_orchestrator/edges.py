"""The service that a run talks to, and what its model is forked from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from hud_orchestrator.config.load import LoadedRun
from hud_orchestrator.config.local import BUNDLED_CONTEXT
from hud_orchestrator.config.placement import hosted_here, placement_of
from hud_orchestrator.config.sources import environment_file
from hud_orchestrator.directory import RunDirectory
from hud_orchestrator.embedded import Addresses, embedded_service
from hud_orchestrator.errors import KeyRefused
from hud_orchestrator.settings import Settings


def base_model(loaded: LoadedRun) -> str | None:
    """What to fork from, by the name that the service's catalog has for it."""
    base = loaded.run.model.base
    if base is None or loaded.run.service == "hud" or base in BUNDLED_CONTEXT:
        return base
    return str(loaded.resolve(base))


@asynccontextmanager
async def service(loaded: LoadedRun, directory: RunDirectory) -> AsyncGenerator[Addresses, None]:
    """The addresses of the service, which runs for the length of the block when it is the local one.

    Raises:
        KeyRefused: HUD's service is asked for and there is no key.
        StateInUse: another service does not leave the state of the local one.
        StateUnwritable: that state cannot be written.
        RunFailed: the local service did not start.
    """
    run = loaded.run
    if run.service == "hud":
        settings = Settings.load()
        if settings.api_key is None:
            raise KeyRefused(
                "HUD_API_KEY is not set, and service: hud needs it; set it in the environment, "
                "in .env or in ~/.hud/.env"
            )
        yield Addresses(
            rl_url=settings.rl_url,
            api_url=settings.api_url,
            gateway_url=settings.gateway_url,
            telemetry_url=settings.telemetry_url,
            api_key=settings.api_key,
        )
        return
    base = base_model(loaded)
    settings_for_child = {
        "state_dir": str(directory.service.absolute()),
        "bases": [base] if base is not None and base not in BUNDLED_CONTEXT else [],
        "seed": run.run.seed,
        "deterministic": run.run.deterministic,
        "local": run.local.model_dump(mode="json"),
    }
    source = environment_file(run, loaded.resolve)
    if source is not None and hosted_here(run, placement_of(run, loaded.resolve)):
        settings_for_child["environments"] = [str(loaded.resolve(source).absolute())]
    async with embedded_service(settings_for_child, log_file=directory.service / "service.log") as addresses:
        yield addresses
