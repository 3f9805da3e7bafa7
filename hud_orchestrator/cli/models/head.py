"""``models head``: the checkpoint that a slug serves, and going to another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.models.asking import ask_addresses, print_json, show
from hud_orchestrator.cli.models.options import CHECKPOINT_HELP, AsJson, Cache, EnvFile, Handle, State

if TYPE_CHECKING:
    from rich.table import Table

    from hud_orchestrator.embedded import Addresses
    from hud_orchestrator.wire import Checkpoint, Model
    from hud_orchestrator.wire_writer import WriterLease


def head(
    handle: Handle,
    *,
    wanted: Annotated[
        str | None,
        typer.Option("--set", help=f"Make this the head: {CHECKPOINT_HELP}.", metavar="CKPT"),
    ] = None,
    as_json: AsJson = False,
    env_file: EnvFile = None,
    state: State = None,
    cache: Cache = None,
) -> None:
    """Show the checkpoint that is sampled and trained on from now, or --set another one.

    Setting it discards a gradient that waits for its optimizer step, and the next step branches off
    from there. While a run trains the model, the embedded service refuses to set it, and says who does;
    elsewhere that run stops when it sees its head moved.
    """

    async def question(addresses: Addresses) -> None:
        from hud_orchestrator.cli.models.handles import pick_checkpoint, pick_model
        from hud_orchestrator.clients.catalog import Catalog
        from hud_orchestrator.clients.catalog import head as active
        from hud_orchestrator.clients.transport import Transport

        async with Transport(addresses.api_url, addresses.api_key) as transport:
            catalog = Catalog(transport)
            model = pick_model(await catalog.models(), handle)
            nodes = await catalog.checkpoints(model.id)
            if wanted is not None:
                await catalog.set_head(model.id, pick_checkpoint(nodes, wanted, slug=model.model_name).id)
                nodes = await catalog.checkpoints(model.id)
        lease = await _lease(addresses, model.id)
        _tell(model, active(nodes), lease, as_json=as_json)

    ask_addresses(question, env_file=env_file, state=state, cache=cache, as_json=as_json)


async def _lease(addresses: Addresses, model_id: str) -> WriterLease | None:
    """Who trains the model, where the service knows."""
    from hud_orchestrator.clients.transport import Transport
    from hud_orchestrator.clients.writer_lease import WriterLeases
    from hud_orchestrator.errors import ServiceError

    async with Transport(addresses.rl_url, addresses.api_key) as transport:
        try:
            return await WriterLeases(transport).show(model_id)
        except ServiceError:
            # The head is what was asked for; and a base model has no lease.
            return None


def _tell(model: Model, node: Checkpoint | None, lease: WriterLease | None, *, as_json: bool) -> None:
    trainer = f"{lease.holder} (for {lease.expires_in_s:.0f} s more)" if lease and lease.held else None
    if as_json:
        found = node.model_dump(mode="json", exclude_unset=True) if node else None
        held = lease.model_dump(mode="json") if lease else None
        print_json({"model_id": model.id, "head": found, "lease": held})
    elif node is None:
        print(f"{model.model_name} has no checkpoint yet; it serves the weights it was forked with")
        if trainer is not None:
            print(f"trained by {trainer}")
    else:
        show(_facts(model.model_name, node, trainer))


def _facts(slug: str, node: Checkpoint, trainer: str | None) -> Table:
    from rich.table import Table

    facts = {
        "model": slug,
        "head": node.name or "-",
        "id": node.id,
        "sampler": node.checkpoint_name,
        "reward": None if node.mean_reward is None else f"{node.mean_reward:.3f}",
        "loss": node.loss_fn,
        "traces": node.num_traces,
        "created": node.created_at,
        "trained by": trainer,
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, "-" if value is None else str(value))
    return table
