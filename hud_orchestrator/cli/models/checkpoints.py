"""``models checkpoints``: the checkpoint tree of one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.models.asking import ask_catalog, console, print_json, show
from hud_orchestrator.cli.models.options import AsJson, EnvFile, Handle, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from hud_orchestrator.clients.catalog import Catalog
    from hud_orchestrator.wire import Checkpoint


def checkpoints(
    handle: Handle,
    *,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only, oldest first.")] = False,
    env_file: EnvFile = None,
    state: State = None,
) -> None:
    """Draw a model's checkpoints, oldest first, the head marked with *.

    A line of checkpoints that follow each other stays in its column; what branched off it and is
    not on the way to the head is drawn beside it, before the line goes on. Nodes whose weights the
    service has deleted say so: the head cannot be set to them.
    """

    async def question(catalog: Catalog, _gateway_url: str) -> None:
        from hud_orchestrator.cli.models.handles import pick_model

        model = pick_model(await catalog.models(), handle)
        nodes = await catalog.checkpoints(model.id)
        if as_json:
            print_json([node.model_dump(mode="json", exclude_unset=True) for node in nodes])
        elif quiet:
            print("".join(f"{node.id}\n" for node in nodes), end="")
        elif nodes:
            show(_table(nodes))
        else:
            print(f"{model.model_name} has no checkpoints; there is one after the first optimizer step")

    ask_catalog(question, env_file=env_file, state=state, as_json=as_json)


def _table(nodes: Sequence[Checkpoint]) -> Table:
    from rich.table import Table

    from hud_orchestrator.cli.models.branches import ASCII, BOX, branches
    from hud_orchestrator.cli.models.handles import SHOWN

    out = console()
    glyphs = BOX if out.is_terminal and out.encoding.startswith("utf") else ASCII
    table = Table(box=None, pad_edge=False)
    for title in ("", "Name", "ID", "Reward", "Loss", "Traces", "Created", ""):
        table.add_column(title, no_wrap=True, justify="right" if title in ("Reward", "Traces") else "left")
    # Not every service names the weights of its nodes; one that does has pruned those without.
    names_weights = any(node.checkpoint_name for node in nodes)
    for prefix, node in branches(nodes, glyphs):
        table.add_row(
            "*" if node.is_active else "",
            prefix + (node.name or node.id[:SHOWN]),
            node.id[:SHOWN],
            "-" if node.mean_reward is None else f"{node.mean_reward:.3f}",
            node.loss_fn or "-",
            "-" if node.num_traces is None else str(node.num_traces),
            (node.created_at or "-")[:19],
            "pruned" if names_weights and not node.checkpoint_name else "",
        )
    return table
