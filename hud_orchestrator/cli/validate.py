"""``validate``: check a run file without running it, and show what it resolves to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hud_orchestrator.config.load import LoadedRun

Config = Annotated[Path, typer.Argument(help="The run file.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace one value; repeatable.")
]


def validate(
    config: Config,
    *,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a run file, and print every value with where it came from."""
    from hud_orchestrator.config.load import load

    loaded = load(config, overrides=overrides or ())
    addresses = _addresses() if loaded.run.service == "hud" else {}
    print(_as_json(loaded, addresses) if as_json else _as_yaml(loaded, addresses))
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _addresses() -> dict[str, dict[str, str]]:
    """Say what every ``HUD_*`` variable is, and where it comes from; of the key only whether it is set."""
    from hud_orchestrator.settings import Settings, setting_origins, variable

    settings, origins = Settings.load(), setting_origins()
    values = {variable(name): str(value) for name, value in settings if name != "api_key"}
    values["HUD_API_KEY"] = "set" if settings.api_key else "not set"
    return {name: {"value": values[name], "origin": origin} for name, origin in origins.items()}


def _as_yaml(loaded: LoadedRun, addresses: dict[str, dict[str, str]]) -> str:
    from hud_orchestrator.config.resolved import resolved_lines

    services = [f"# {name}: {found['value']}  ({found['origin']})" for name, found in addresses.items()]
    return "\n".join([*resolved_lines(loaded.run, loaded.origins), *services])


def _as_json(loaded: LoadedRun, addresses: dict[str, dict[str, str]]) -> str:
    found: dict[str, Any] = {
        "run": loaded.run.model_dump(mode="json"),
        "origins": dict(loaded.origins),
        "warnings": list(loaded.warnings),
        "addresses": addresses,
    }
    return json.dumps(found, indent=2)
