"""The training surface for people: a notebook's or a script's way to train a model.

    client = TrainingClient("my-model")
    await client.step(rollouts, learning_rate=1e-4, group_size=8, call="step-1")

Every training call is sent once, under an id that the caller chooses. Nothing in here repeats one, for
a repeated call applies a gradient or a step twice. What an error says about it is its type:

    ServiceUnreachable  nothing was sent                    call again
    RequestRejected     refused, nothing changed            mend the request
    OutcomeUnknown      sent, and no answer                 look at ``checkpoints()`` before going on

The embedded service knows the ids: a call repeated with the same id and the same body returns the first
outcome instead of a second effect. HUD's service ignores them.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio.to_thread
from pydantic import SecretStr, ValidationError

from hud_orchestrator.client_loss import ClientLoss, differentiator
from hud_orchestrator.clients.catalog import Catalog, head
from hud_orchestrator.clients.training import Training
from hud_orchestrator.clients.transport import Transport
from hud_orchestrator.errors import ConfigError, RequestRejected
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import CallId
from hud_orchestrator.rules.inputs import Input, read_inputs, without_spread
from hud_orchestrator.settings import Settings
from hud_orchestrator.wire import (
    BackwardRequest,
    Checkpoint,
    ForwardBackwardRequest,
    ForwardBackwardResult,
    ForwardRequest,
    ForwardResult,
    OptimStepRequest,
    OptimStepResult,
)

T = TypeVar("T")

log = get_logger()


class TrainingClient:
    """Trains one model behind its slug. Holds no connection, so there is nothing to close."""

    def __init__(
        self,
        model: str,
        *,
        api_key: str | SecretStr | None = None,
        base_url: str | None = None,
        api_url: str | None = None,
        timeout_s: float = 3600,
    ) -> None:
        """Train *model*.

        Args:
            model: slug, display name or id. Anything but an id is looked up at the first call.
            api_key: left out: ``HUD_API_KEY`` of the environment, ``.env`` or ``~/.hud/.env``.
            base_url: of the training service; left out: ``HUD_RL_URL``.
            api_url: of the catalog; left out: ``HUD_API_URL``.
            timeout_s: seconds without an answer after which a call's outcome counts as unknown.

        Raises:
            ConfigError: there is no key, or a value cannot be used.
        """
        self.model = model
        self._model_id = _as_id(model)
        self._timeout_s = timeout_s
        given = {"api_key": api_key, "rl_url": base_url, "api_url": api_url}
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        if settings.api_key is None:
            raise ConfigError("there is no API key: set HUD_API_KEY, or give api_key")
        self._key = settings.api_key
        self._rl_url, self._api_url = settings.rl_url, settings.api_url

    async def available_losses(self) -> list[str]:
        """Names of the losses built into the service."""
        async with self._training() as training:
            return await training.losses()

    async def forward_backward(
        self,
        inputs: Iterable[Any],
        *,
        call: str,
        loss_fn: str = "importance_sampling",
        loss_fn_config: Mapping[str, float] | None = None,
        group_size: int | None = None,
        reward_scale: float = 1.0,
        num_substeps: int = 1,
    ) -> ForwardBackwardResult:
        """Add a batch's gradient to what has accumulated, by a loss built into the service.

        Args:
            inputs: trace ids, rollouts, runs of the hud SDK and payloads, mixed freely.
            call: names this call; no two calls for a model may share one.
            loss_fn: one of :meth:`available_losses`.
            loss_fn_config: numbers for the loss.
            group_size: members per group; groups are contiguous slices of *inputs*. ``None``: one group.
            reward_scale: every reward is multiplied by this before advantages are computed.
            num_substeps: slices whose gradients are computed one after the other and added.

        Raises:
            ValueError: the inputs cannot be trained on; nothing was sent.
            ServiceUnreachable, RequestRejected, OutcomeUnknown: see the module.
        """
        request = _valid(
            ForwardBackwardRequest,
            inputs=_read(inputs, group_size),
            loss_fn=loss_fn,
            loss_fn_config=dict(loss_fn_config) if loss_fn_config else None,
            group_size=group_size,
            reward_scale=reward_scale,
            num_substeps=num_substeps,
        )
        return await self._once(Training.forward_backward, request, call)

    async def optim_step(
        self,
        *,
        call: str,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.95,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> OptimStepResult:
        """One AdamW step on what has accumulated; the gateway serves the new weights when it returns.

        Args:
            call: names this call; no two calls for a model may share one.
            learning_rate: above 0.
            beta1: decay of the mean of gradients.
            beta2: decay of the mean of squared gradients.
            eps: added to the denominator.
            weight_decay: decoupled, 0 or more.
            max_grad_norm: clip the gradient's 2-norm to this; the embedded service alone knows it.

        Raises:
            ValueError: a number is out of range; nothing was sent.
            ServiceUnreachable, RequestRejected, OutcomeUnknown: see the module. Nothing accumulated is
                a RequestRejected.
        """
        request = _valid(
            OptimStepRequest,
            learning_rate=learning_rate,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
        )
        return await self._once(Training.optim_step, request, call)

    async def step(
        self,
        inputs: Iterable[Any],
        *,
        call: str,
        learning_rate: float,
        weight_decay: float = 0.0,
        loss_fn: str = "importance_sampling",
        loss_fn_config: Mapping[str, float] | None = None,
        group_size: int | None = None,
        reward_scale: float = 1.0,
        num_substeps: int = 1,
    ) -> OptimStepResult:
        """:meth:`forward_backward`, then :meth:`optim_step`.

        Args:
            inputs: as for :meth:`forward_backward`, and so are the arguments from *loss_fn* on.
            call: names both calls, as ``<call>.forward-backward`` and ``<call>.optim-step``.
            learning_rate: of the step.
            weight_decay: of the step.
            loss_fn: one of :meth:`available_losses`.
            loss_fn_config: numbers for the loss.
            group_size: members per group.
            reward_scale: every reward is multiplied by this.
            num_substeps: slices whose gradients are added.

        Raises:
            ValueError, ServiceUnreachable, RequestRejected, OutcomeUnknown: of whichever call failed. No
                step is taken on top of a failed or unknown gradient.
        """
        await self.forward_backward(
            inputs,
            call=f"{call}.forward-backward",
            loss_fn=loss_fn,
            loss_fn_config=loss_fn_config,
            group_size=group_size,
            reward_scale=reward_scale,
            num_substeps=num_substeps,
        )
        return await self.optim_step(
            call=f"{call}.optim-step", learning_rate=learning_rate, weight_decay=weight_decay
        )

    async def forward(
        self, inputs: Iterable[Any], *, call: str, group_size: int | None = None, reward_scale: float = 1.0
    ) -> ForwardResult:
        """The current policy's log-probabilities of a batch, token by token.

        Args:
            inputs: as for :meth:`forward_backward`.
            call: names this call.
            group_size: members per group, for ``group_idx`` of the tensors.
            reward_scale: every returned reward has been multiplied by this.

        Returns:
            The tensors, and a forward id that one :meth:`backward` may use.

        Raises:
            ValueError, ServiceUnreachable, RequestRejected, OutcomeUnknown: as for :meth:`forward_backward`.
        """
        request = _valid(
            ForwardRequest,
            inputs=_read(inputs, group_size),
            group_size=group_size,
            reward_scale=reward_scale,
        )
        return await self._once(Training.forward, request, call)

    async def backward(
        self,
        forward_id: str,
        weights: Sequence[Sequence[float]],
        *,
        call: str,
        metrics: Mapping[str, float] | None = None,
    ) -> ForwardBackwardResult:
        """Add the gradient of ``-sum(weights * logprobs)`` to what has accumulated.

        Args:
            forward_id: of a :meth:`forward` since which the policy has not changed.
            weights: ``-dC/dlogprobs`` of the loss C, one list of shape [T] per datum.
            call: names this call.
            metrics: figures of the loss, which the reply repeats.

        Raises:
            ServiceUnreachable, RequestRejected, OutcomeUnknown: see the module. A forward id that is
                unknown, used or out of date is a RequestRejected.
        """
        request = _valid(
            BackwardRequest,
            forward_id=forward_id,
            weights=[list(row) for row in weights],
            metrics=dict(metrics or {}),
        )
        return await self._once(Training.backward, request, call)

    async def forward_backward_custom(
        self,
        inputs: Iterable[Any],
        loss_fn: ClientLoss | str,
        *,
        call: str,
        loss_fn_config: Mapping[str, Any] | None = None,
        group_size: int | None = None,
        reward_scale: float = 1.0,
    ) -> ForwardBackwardResult:
        """Add a batch's gradient to what has accumulated, by a loss computed here, in torch.

        Args:
            inputs: as for :meth:`forward_backward`.
            loss_fn: ``(data, logprobs) -> (loss, metrics)``, with one float32 leaf per datum in *logprobs*;
                or the name of one of ours, such as ``"gspo"``; or ``"package.module:function"``.
            call: names both calls, as ``<call>.forward`` and ``<call>.backward``.
            loss_fn_config: keyword arguments for *loss_fn*.
            group_size: members per group.
            reward_scale: every reward is multiplied by this.

        Returns:
            The figures that *loss_fn* gave, and the service's own.

        Raises:
            ConfigError: torch is not installed.
            ValueError: the inputs cannot be trained on; or the loss gave no usable gradient, and nothing
                was added to what has accumulated.
            ServiceUnreachable, RequestRejected, OutcomeUnknown: see the module.
        """
        differentiate = differentiator(loss_fn, loss_fn_config or {})
        forward = await self.forward(
            inputs, call=f"{call}.forward", group_size=group_size, reward_scale=reward_scale
        )
        weights, metrics = await anyio.to_thread.run_sync(differentiate, forward.data)
        return await self.backward(forward.forward_id, weights, call=f"{call}.backward", metrics=metrics)

    async def checkpoints(self) -> list[Checkpoint]:
        """The model's checkpoint tree, oldest node first."""
        async with self._catalog() as catalog:
            return await catalog.checkpoints(await self._id(catalog))

    async def head(self) -> Checkpoint | None:
        """The checkpoint that the gateway serves; ``None`` before the first step of a fork."""
        return head(await self.checkpoints())

    async def set_head(self, checkpoint_id: str) -> None:
        """Go to a checkpoint: the next step extends from it. Drops what has accumulated."""
        async with self._catalog() as catalog:
            await catalog.set_head(await self._id(catalog), checkpoint_id)

    async def _once(self, send: Callable[..., Awaitable[T]], request: object, call: str) -> T:
        call_id = _call_id(call)
        async with self._training() as training:
            return await send(training, request, call=call_id)

    @asynccontextmanager
    async def _training(self) -> AsyncIterator[Training]:
        if self._model_id is None:
            async with self._catalog() as catalog:
                await self._id(catalog)
        assert self._model_id is not None
        async with Transport(self._rl_url, self._key) as transport:
            yield Training(transport, model_id=self._model_id, timeout_s=self._timeout_s)

    @asynccontextmanager
    async def _catalog(self) -> AsyncIterator[Catalog]:
        async with Transport(self._api_url, self._key) as transport:
            yield Catalog(transport)

    async def _id(self, catalog: Catalog) -> str:
        if self._model_id is None:
            found = await catalog.find(self.model)
            if found is None:
                raise RequestRejected(
                    f"the catalog at {self._api_url} has no model {self.model!r}", status=404
                )
            self._model_id = found.id
        return self._model_id


def _read(inputs: Iterable[Any], group_size: int | None) -> list[Input]:
    read = read_inputs(inputs, group_size=group_size)
    if without_spread(read, group_size=group_size):
        log.warning(
            "batch.without_spread",
            inputs=len(read),
            consequence="every group's rewards are equal: a group-relative loss has no gradient",
        )
    return read


def _valid(model: type[Any], **values: Any) -> Any:
    """The request, with the first mistake in one line.

    Raises:
        ValueError: a value is out of range.
    """
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}, got {first['input']!r:.80}") from None


def _call_id(call: str) -> CallId:
    if not call or len(call) > 200 or not call.isascii() or not call.isprintable() or call != call.strip():
        raise ValueError(f"call must be 1 to 200 printable ASCII characters, got {call!r:.80}")
    return CallId(call)


def _as_id(model: str) -> str | None:
    try:
        return str(uuid.UUID(model))
    except ValueError:
        return None
