"""``models chat``: talk to a model, to any of its checkpoints, once or in turns."""

from __future__ import annotations

import io
import sys
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from hud_orchestrator.cli.models.options import CHECKPOINT_HELP, Cache, EnvFile, Handle, State

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.from_thread import BlockingPortal

    from hud_orchestrator.cli.models.place import Place
    from hud_orchestrator.clients.conversation import Conversation

PROMPT = "you> "
FORGET = "/new"


def chat(
    handle: Handle,
    prompt: Annotated[
        str | None, typer.Argument(help="Ask this, print the answer and leave.", metavar="PROMPT")
    ] = None,
    *,
    checkpoint: Annotated[
        str | None, typer.Option(help=f"Talk to this instead of the head: {CHECKPOINT_HELP}.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before anything else.")] = None,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="0 takes the likeliest token. Default: the gateway's, 1."),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    env_file: EnvFile = None,
    state: State = None,
    cache: Cache = None,
) -> None:
    """Talk to a model. Without a prompt, at a terminal, in turns.

    Ctrl-C stops an answer, /new forgets what was said, Ctrl-D ends. Without a terminal,
    everything on standard input is the prompt.
    """
    from hud_orchestrator import logs
    from hud_orchestrator.cli.models.place import Place

    logs.configure(stream=None, as_json=False, level="error")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model may sample what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="replace")
    if prompt is None and not sys.stdin.isatty():
        prompt = _standard_input()
    place = Place(env_file=env_file, state=state, cache=cache)
    wanted = _Wanted(
        handle=handle, checkpoint=checkpoint, system=system, temperature=temperature, max_tokens=max_tokens
    )
    if prompt is None:
        _in_turns(place, wanted)
    else:
        _once(place, wanted, prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Whom to talk to, and how."""

    handle: str
    checkpoint: str | None
    system: str | None
    temperature: float | None
    max_tokens: int | None

    @asynccontextmanager
    async def begun(self, place: Place) -> AsyncGenerator[tuple[Conversation, str], None]:
        """The conversation, and who it is with."""
        from hud_orchestrator.cli.models.handles import label, pick_checkpoint, pick_model
        from hud_orchestrator.cli.models.place import service
        from hud_orchestrator.clients.catalog import Catalog, head
        from hud_orchestrator.clients.conversation import Conversation
        from hud_orchestrator.clients.transport import Transport

        async with AsyncExitStack() as stack:
            addresses = await stack.enter_async_context(service(place))
            api = await stack.enter_async_context(Transport(addresses.api_url, addresses.api_key))
            gateway = await stack.enter_async_context(Transport(addresses.gateway_url, addresses.api_key))
            catalog = Catalog(api)
            model = pick_model(await catalog.models(), self.handle)
            nodes = await catalog.checkpoints(model.id)
            node = head(nodes)
            if self.checkpoint is not None:
                node = pick_checkpoint(nodes, self.checkpoint, slug=model.model_name)
            talk = Conversation(
                gateway,
                model=model.model_name,
                checkpoint=node.id if node and self.checkpoint is not None else None,
                system=self.system,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
            )
            yield talk, f"{model.model_name} at {label(node)}" if node else model.model_name


def _standard_input() -> str:
    from hud_orchestrator.errors import ConfigError

    text = sys.stdin.read().strip()
    if not text:
        raise ConfigError("standard input holds no prompt; give one as the last argument")
    return text


def _once(place: Place, wanted: _Wanted, prompt: str) -> None:
    import anyio

    async def main() -> None:
        async with wanted.begun(place) as (talk, _):
            await _answer(talk, prompt)

    anyio.run(main)


def _in_turns(place: Place, wanted: _Wanted) -> None:
    """Read in this thread, where Ctrl-C reaches ``input``, and let the answers come in another one."""
    from anyio.from_thread import start_blocking_portal

    with suppress(ImportError):
        import readline  # noqa: F401  (gives input() its history and its keys)

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(wanted.begun(place)) as begun:
        talk, whom = begun
        print(f"{whom}; Ctrl-C stops an answer, {FORGET} forgets what was said, Ctrl-D ends", file=sys.stderr)
        # Left by an exception, the service would be torn down by it instead of ended.
        with suppress(KeyboardInterrupt, EOFError):
            while True:
                _turn(portal, talk)
        print()


def _turn(portal: BlockingPortal, talk: Conversation) -> None:
    """One question and its answer.

    Raises:
        EOFError: there are no more questions.
    """
    from hud_orchestrator.errors import ServiceError

    try:
        text = input(PROMPT)
    except KeyboardInterrupt:
        # As a shell does: a line that was begun is dropped.
        print()
        return
    if text.strip() == FORGET:
        talk.forget()
        return
    if not text.strip():
        return
    answer = portal.start_task_soon(_answer, talk, text)
    try:
        answer.result()
    except KeyboardInterrupt:
        answer.cancel()
        print(" [stopped]")
    except CancelledError:
        raise EOFError from None
    except ServiceError as error:
        print(f"error: {error}", file=sys.stderr)


async def _answer(talk: Conversation, text: str) -> None:
    async with aclosing(talk.say(text)) as pieces:
        async for piece in pieces:
            print(piece, end="", flush=True)
    print(flush=True)
