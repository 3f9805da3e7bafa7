"""``models list``: every model that the catalog has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.models.asking import ask_catalog, print_json, show
from hud_orchestrator.cli.models.options import AsJson, EnvFile, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hud_orchestrator.clients.catalog import Catalog
    from hud_orchestrator.wire import Model


def listing(
    *,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print slugs only.")] = False,
    env_file: EnvFile = None,
    state: State = None,
) -> None:
    """List the models by name, and the gateway that serves them."""

    async def question(catalog: Catalog, gateway_url: str) -> None:
        models = sorted(await catalog.models(), key=lambda model: (_name(model).casefold(), model.id))
        if as_json:
            print_json([model.model_dump(mode="json") for model in models])
        elif quiet:
            print("".join(f"{model.model_name}\n" for model in models), end="")
        else:
            show(_table(models))
            print(f"gateway: {gateway_url}")

    ask_catalog(question, env_file=env_file, state=state, as_json=as_json)


def _name(model: Model) -> str:
    return model.name or model.model_name


def _table(models: Sequence[Model]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("Name", "Model (API)", "ID", "Provider", "Agent", "Trainable"):
        table.add_column(title, overflow="fold")
    yes = "\u2713" if sys.stdout.encoding.lower().startswith("utf") else "yes"
    for model in models:
        table.add_row(
            _name(model),
            model.model_name,
            model.id,
            model.provider.name or "-",
            model.sdk_agent_type or "-",
            yes if model.is_trainable else "",
        )
    return table
