"""``models fork``: make a trainable model of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.models.asking import ask_catalog, print_json
from hud_orchestrator.cli.models.options import CHECKPOINT_HELP, AsJson, Cache, EnvFile, State

if TYPE_CHECKING:
    from hud_orchestrator.clients.catalog import Catalog
    from hud_orchestrator.wire import Model


def fork(
    source: Annotated[str, typer.Argument(help="The model to begin from.", metavar="SOURCE")],
    *,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the new model.")],
    checkpoint: Annotated[
        str | None,
        typer.Option(help=f"Begin there instead of at the head (embedded service only): {CHECKPOINT_HELP}."),
    ] = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="Take the model of this name if there is one.")
    ] = False,
    as_json: AsJson = False,
    env_file: EnvFile = None,
    state: State = None,
    cache: Cache = None,
) -> None:
    """Make a trainable model from the head of another one, or from any of its checkpoints."""

    async def question(catalog: Catalog, _gateway_url: str) -> None:
        model, made = await _fork(catalog, source, name, checkpoint, if_not_exists=if_not_exists)
        if as_json:
            print_json(model.model_dump(mode="json"))
        else:
            print(f"{'forked' if made else 'is there already'}: {model.name or name}")
            print(f"slug: {model.model_name}\nid: {model.id}")

    ask_catalog(question, env_file=env_file, state=state, cache=cache, as_json=as_json)


async def _fork(
    catalog: Catalog, source: str, name: str, checkpoint: str | None, *, if_not_exists: bool
) -> tuple[Model, bool]:
    """The model called *name*, and whether it was made now."""
    from hud_orchestrator.cli.models.handles import pick_checkpoint, pick_model
    from hud_orchestrator.errors import RequestRejected

    origin = pick_model(await catalog.models(), source)
    at = None
    if checkpoint is not None:
        nodes = await catalog.checkpoints(origin.id)
        at = pick_checkpoint(nodes, checkpoint, slug=origin.model_name).id
    try:
        return await catalog.fork(origin.id, name=name, checkpoint=at), True
    except RequestRejected as error:
        if error.status != 409:
            raise
        if not if_not_exists:
            advice = "choose another --name, or take the model that is there with --if-not-exists"
            raise RequestRejected(f"{error}; {advice}", status=error.status) from None
        there = await catalog.find(name, whole=True)
        if there is None:
            raise
        return there, False
