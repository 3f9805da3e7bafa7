"""``models export``: take a trained model away, in the formats that everybody loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.models.asking import ask_catalog
from hud_orchestrator.cli.models.options import CHECKPOINT_HELP, EnvFile, Handle

if TYPE_CHECKING:
    from hud_orchestrator.clients.catalog import Catalog
    from hud_orchestrator.local.stored import StoredModel
    from hud_orchestrator.wire import Checkpoint, Model

HERE = Path("service")
"""Where ``serve`` keeps its state unless it is told otherwise."""


def export(
    handle: Handle,
    directory: Annotated[Path, typer.Argument(help="Made for it; absent or empty.", metavar="DIR")],
    *,
    checkpoint: Annotated[str | None, typer.Option(help=f"Instead of the head: {CHECKPOINT_HELP}.")] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add an adapter to its base, and write one whole model.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            help="A run directory, or the state directory of serve. It is only read, so a service may be "
            "running on it. Default: where the service of --env-file or HUD_API_URL has it, else ./service.",
            metavar="DIR",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where prepared base models are kept, as for serve.", metavar="DIR")
    ] = None,
    env_file: EnvFile = None,
) -> None:
    """Write a model of the embedded service as a directory that transformers loads, or PEFT an adapter."""
    from hud_orchestrator.cli.models.handles import label
    from hud_orchestrator.cli.models.place import local_section
    from hud_orchestrator.embedded import check_installed
    from hud_orchestrator.errors import ConfigError

    check_installed()
    if state is not None and env_file is not None:
        raise ConfigError("--state and --env-file may name two services; give one of them")
    _refuse_to_replace(directory)
    stored, node = _find(handle, checkpoint, state=state, env_file=env_file)
    from hud_orchestrator.local.export import base_directory, export_model

    base = base_directory(stored, local_section(stored.directory.parents[1], cache=cache))
    whole = export_model(stored, node, directory, base=base, merge=merge)
    at = f"at {label(node)}" if node else "before its first step"
    print(f"exported {stored.record.slug} {at} to {directory}")
    if whole:
        print(f'load it with: AutoModelForCausalLM.from_pretrained("{directory}")')
    else:
        print(f'load it with: PeftModel.from_pretrained(base, "{directory}"), base loaded from {base}')


def _refuse_to_replace(directory: Path) -> None:
    from hud_orchestrator.errors import ConfigError

    try:
        taken = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be read: {error.strerror}; name another directory") from None
    if taken:
        raise ConfigError(f"{directory}: is there already and not an empty directory; name another one")


def _find(
    handle: str, checkpoint: str | None, *, state: Path | None, env_file: Path | None
) -> tuple[StoredModel, Checkpoint | None]:
    """The model on disk, and which of its checkpoints; ``None`` before the first step."""
    from hud_orchestrator.cli.models.handles import pick_model
    from hud_orchestrator.cli.models.place import is_addressed, state_directory

    if state is None and not is_addressed(env_file) and (HERE / "models").is_dir():
        state = HERE
    if state is not None:
        return _in_state(handle, checkpoint, state_directory(state))
    found: list[tuple[Model, list[Checkpoint]]] = []

    async def question(catalog: Catalog, _gateway_url: str) -> None:
        model = pick_model(await catalog.models(), handle)
        found.append((model, await catalog.checkpoints(model.id)))

    ask_catalog(question, env_file=env_file, state=None)
    model, nodes = found[0]
    return _in_catalog(model, nodes, checkpoint)


def _in_state(handle: str, checkpoint: str | None, state: Path) -> tuple[StoredModel, Checkpoint | None]:
    from hud_orchestrator.cli.models.handles import pick_checkpoint, pick_model
    from hud_orchestrator.clients.catalog import head
    from hud_orchestrator.local.stored import stored_models

    by_id = {model.record.id: model for model in stored_models(state)}
    stored = by_id[pick_model([model.as_model() for model in by_id.values()], handle).id]
    nodes, slug = stored.checkpoints(), stored.record.slug
    node = pick_checkpoint(nodes, checkpoint, slug=slug) if checkpoint is not None else head(nodes)
    if node is not None and node.checkpoint_name is None:
        raise _pruned(slug, node, nodes)
    return stored, node


def _in_catalog(
    model: Model, nodes: list[Checkpoint], checkpoint: str | None
) -> tuple[StoredModel, Checkpoint]:
    from hud_orchestrator.cli.models.handles import pick_checkpoint
    from hud_orchestrator.clients.catalog import head
    from hud_orchestrator.errors import ConfigError, NotFound
    from hud_orchestrator.local.stored import read_model

    slug = model.model_name
    if model.provider.name != "local":
        raise ConfigError(
            f"{slug}: its weights are on the managed service, which has no route that gives them out; "
            "models chat and any OpenAI client sample it there, and only models of the embedded service "
            "can be exported"
        )
    if not model.is_trainable:
        raise ConfigError(f"{slug}: is a base model and was not trained; export a fork of it")
    node = pick_checkpoint(nodes, checkpoint, slug=slug) if checkpoint is not None else head(nodes)
    if node is None:
        raise NotFound(f"{slug} has no checkpoint yet; its initial weights are exported with --state DIR")
    if node.checkpoint_name is None:
        raise _pruned(slug, node, nodes)
    weights = Path(node.checkpoint_name)
    if not (weights.is_absolute() and weights.is_file()):
        raise ConfigError(
            f"{slug}: its weights are at {weights}, which is not on this machine; export it where the "
            "service runs, or give its state directory as --state DIR"
        )
    return read_model(weights.parents[2]), node


def _pruned(slug: str, node: Checkpoint, nodes: list[Checkpoint]) -> Exception:
    from hud_orchestrator.cli.models.handles import label
    from hud_orchestrator.errors import NotFound

    kept = ", ".join(label(one) for one in nodes if one.checkpoint_name is not None)
    return NotFound(f"{slug}: the weights of {label(node)} were pruned; those that are kept are {kept}")
