"""The catalog: models, forks, checkpoints and heads."""

from __future__ import annotations

from typing import Any

from hud_orchestrator.clients.retry import AT_START, READ, Retry
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.clients.writer_lease import FencingToken
from hud_orchestrator.errors import ConfigError
from hud_orchestrator.wire import Checkpoint, ForkRequest, Model, ModelPage, SetHeadRequest

PAGE = 100


class Catalog:
    """Everything under ``/v2/models``."""

    def __init__(self, transport: Transport, *, token: FencingToken | None = None) -> None:
        """Ask *transport*; a new head shows the *token* that is the newest when it is set."""
        self._transport = transport
        self._token = token or FencingToken()

    async def models(self, *, retry: Retry = AT_START) -> list[Model]:
        """Every model, in the service's order."""
        found: list[Model] = []
        while True:
            page = await self._transport.read(
                "GET",
                "/v2/models",
                reply=ModelPage,
                retry=retry,
                params={"limit": PAGE, "offset": len(found)},
            )
            found += page.items
            if len(found) >= page.total or not page.items:
                return found

    async def find(self, name: str, *, whole: bool = False) -> Model | None:
        """The first model whose id, name or slug is *name*, whatever its case.

        The last part of a slug does as well, unless the *whole* name is asked for: a fork called
        ``quick`` is not somebody's ``team/quick``.
        """
        wanted = name.casefold()
        for model in await self.models():
            last = model.model_name if whole else model.model_name.rsplit("/", 1)[-1]
            known = (model.id, model.name, model.model_name, last)
            if any(part is not None and part.casefold() == wanted for part in known):
                return model
        return None

    async def fork(self, source: str, *, name: str, checkpoint: str | None = None) -> Model:
        """Make a trainable model called *name* from the active checkpoint of *source*, or from another one.

        Only the embedded service knows how to begin at a *checkpoint* that is not active.

        Raises:
            ConfigError: the catalog has no *source*.
            RequestRejected: the name is taken.
        """
        origin = await self.find(source)
        if origin is None:
            known = ", ".join(sorted(model.model_name for model in await self.models()))
            raise ConfigError(f"model.base: the catalog has no model {source!r}; it has {known or 'none'}")
        request = ForkRequest(source_model_id=origin.id, name=name, checkpoint_id=checkpoint)
        body = request.model_dump(exclude_none=True)
        return await self._transport.read("POST", "/v2/models/fork", reply=Model, retry=READ, body=body)

    async def checkpoints(self, model_id: str) -> list[Checkpoint]:
        """The model's tree, oldest node first; empty before the first step of a fresh fork."""
        return await self._transport.read(
            "GET", f"/v2/models/{model_id}/checkpoints", reply=list[Checkpoint], retry=READ
        )

    async def set_head(self, model_id: str, checkpoint: str, *, retry: Retry = READ) -> None:
        """Make *checkpoint* the head; the service drops gradients that have accumulated."""
        body = SetHeadRequest(checkpoint_id=checkpoint).model_dump()
        await self._transport.read(
            "PUT",
            f"/v2/models/{model_id}/head",
            reply=dict[str, Any],
            retry=retry,
            body=body,
            headers=self._token.headers,
        )


def head(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The active node; there is no route that asks for it alone."""
    return next((node for node in checkpoints if node.is_active), None)
