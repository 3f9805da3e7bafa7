"""One fork while the service runs: its state, what has accumulated, and the calls that change them.

Calls are serialised by a lock, for the client sends no step number: two at once could not be told
from one repeated. Every change is an assignment of immutable values after the last thing that can
fail, so an error anywhere leaves the model as it was.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Collection, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from hud_orchestrator.config.local import LocalSection
from hud_orchestrator.local.adamw import Stepped, adamw_step, check_settings
from hud_orchestrator.local.client_loss import read_forward, tensors_of, weigh
from hud_orchestrator.local.datums import Batch, Limits, read_batch
from hud_orchestrator.local.describe import describe
from hud_orchestrator.local.engine import Engine, Job
from hud_orchestrator.local.fence import Fence
from hud_orchestrator.local.forwards import Forwards
from hud_orchestrator.local.gradient import compute_gradient
from hud_orchestrator.local.logprobs import compute_logprobs
from hud_orchestrator.local.pending import Pending
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.tree import Tree
from hud_orchestrator.local.tree_records import Node
from hud_orchestrator.local.weights import TrainState, Weights
from hud_orchestrator.logs import get_logger
from hud_orchestrator.records import INITIAL
from hud_orchestrator.wire import (
    BackwardRequest,
    ForwardBackwardRequest,
    ForwardBackwardResult,
    ForwardRequest,
    ForwardResult,
    OptimStepRequest,
    OptimStepResult,
    TrajectoryPayload,
)
from hud_orchestrator.wire_writer import WriterLease, WriterLeaseRequest

log = get_logger()
T = TypeVar("T")

NOTHING = (
    "nothing has accumulated since the last step: no forward-backward or backward, "
    "or only zero advantages or weights"
)


class TrainedModel:
    """A fork that is loaded. Its methods are called by the event loop only."""

    def __init__(
        self, tree: Tree, engine: Engine, state: TrainState, *, fence: Fence, local: LocalSection
    ) -> None:
        """Serve *tree* with *engine*, beginning at *state*, the state of its head.

        Calls pass *fence* in their turn: one that waited while the lease was given to another is refused.
        """
        self.tree = tree
        self.engine = engine
        self._keep = local.keep
        self._tokens_per_microbatch = local.tokens_per_microbatch
        self._limits = Limits(engine.model.context, engine.model.vocab_size)
        self._one_at_a_time = asyncio.Lock()
        self._fence = fence
        self._state = state
        self._pending = Pending()
        self._forwards = Forwards()
        self.weights = self._snapshot()
        """What is sampled from now. The engine's thread reads it; a promotion replaces it."""

    async def forward_backward(
        self, request: ForwardBackwardRequest, trajectories: Sequence[TrajectoryPayload], *, token: int | None
    ) -> ForwardBackwardResult:
        """Add one batch's gradient to what has accumulated. *trajectories*: the inputs, resolved.

        Raises:
            Refused: the request is wrong (422) or its numbers are not finite (409). Nothing changed.
        """
        async with self._turn(token):
            return await self._add(read_batch(request, trajectories, self._limits), {})

    async def forward(
        self, request: ForwardRequest, trajectories: Sequence[TrajectoryPayload], *, token: int | None
    ) -> ForwardResult:
        """Log-probabilities under the current policy, and the id of one ``backward``.

        The id lives until a backward has used it, until a step or a set head ends the policy it was
        computed on, or until ``LIVE_FORWARDS`` newer ones exist. *trajectories*: the inputs, resolved.

        Raises:
            Refused: the request is wrong (422) or the policy has diverged (409). Nothing changed.
        """
        async with self._turn(token):
            forward = read_forward(request, trajectories, self._limits)
            logprobs = await self._compute(
                compute_logprobs(
                    self.engine.model,
                    self._state.tensors,
                    forward.datums,
                    tokens_per_microbatch=self._tokens_per_microbatch,
                )
            )
            forward_id = self._forwards.add(forward)
        return ForwardResult(forward_id=forward_id, data=tensors_of(forward, logprobs))

    async def backward(self, request: BackwardRequest, *, token: int | None) -> ForwardBackwardResult:
        """Add the gradient of a client's loss to what has accumulated, and use its forward up.

        Raises:
            Refused: 404 or 409, the forward; 422, the weights; 409, numbers that are not finite.
                Nothing changed, and the forward can still be used if it could before.
        """
        async with self._turn(token):
            batch = weigh(self._forwards.get(request.forward_id), request)
            told = {name: value for name, value in request.metrics.items() if math.isfinite(value)}
            result = await self._add(batch, told)
            self._forwards.end(request.forward_id, "a backward has used it")
        return result

    async def optim_step(
        self,
        request: OptimStepRequest,
        *,
        token: int | None,
        key: str | None,
        digest: str,
        keep: Collection[str] = (),
    ) -> OptimStepResult:
        """Step on what has accumulated, save the node, make it the head, and prune all but those to *keep*.

        Raises:
            Refused: 422, the settings are wrong; 409, nothing has accumulated; 409, the numbers are not
                finite, and the gradient is discarded; 507, the node could not be saved, and the gradient
                is kept.
        """
        check_settings(request)
        async with self._turn(token):
            if not self._pending.gradients:
                raise Refused(409, NOTHING)
            try:
                stepped = await self._compute(self._step(request))
            except Refused as refusal:
                if refusal.status == 409:
                    self._pending = Pending()
                raise
            node = describe(self.tree, self._pending, stepped, request, key=key, digest=digest)
            await self._save(node, stepped.state)
            self._state, self._pending = stepped.state, Pending()
            self._forwards.end_all("an optim-step has changed the policy that it was computed on")
            self.weights = self._snapshot()
            await asyncio.to_thread(partial(self.tree.prune, self._keep, asked=keep))
        metrics = node.checkpoint.metrics
        log.info("checkpoint.written", model=self.tree.record.slug, step=node.step, metrics=metrics)
        return self.result(node)

    async def set_head(self, checkpoint_id: str, *, token: int | None) -> None:
        """Go to a checkpoint, and discard what has accumulated, and the forwards.

        Raises:
            Refused: 404, there is no such checkpoint; 410, it was pruned; 507, the head could not be
                written.
        """
        async with self._turn(token):
            node = self.tree.node(checkpoint_id)
            if node is not self.tree.head:
                state = await asyncio.to_thread(lambda: self.tree.load(node).on(self.engine.model.device))
                try:
                    await asyncio.to_thread(self.tree.set_head, checkpoint_id)
                except OSError as error:
                    raise Refused(507, f"the head could not be written, it is as before: {error}") from error
                self._state = state
                self.weights = self._snapshot()
            self._drop("the head was set since")
        log.info("head.set", model=self.tree.record.slug, checkpoint=checkpoint_id)

    async def take_over(self, wanted: WriterLeaseRequest) -> WriterLease:
        """Give the lease once the call in hand is over; a new holder finds nothing accumulated.

        Raises:
            Refused: 409, somebody else has it; 507, it could not be written.
        """
        async with self._one_at_a_time:
            if await self._fence.take(wanted):
                self._drop("the model was taken on lease since")
                log.info("lease.taken", model=self.tree.record.slug, holder=wanted.holder)
            # Told from in here: once the turn is given up, the lease may be another's.
            return self._fence.state()

    def made_by(self, key: str) -> Node | None:
        """The node that the ``optim-step`` with this idempotency key made, also before a restart."""
        return next((node for node in self.tree.nodes.values() if node.idempotency_key == key), None)

    def result(self, node: Node) -> OptimStepResult:
        """What ``optim-step`` answers about the node it made."""
        weights, optimizer = self.tree.paths(node.checkpoint.id)
        return OptimStepResult(
            step=node.step,
            checkpoint_id=node.checkpoint.id,
            sampler_path=str(weights),
            state_path=str(optimizer),
            model=self.tree.record.slug,
        )

    @asynccontextmanager
    async def _turn(self, token: int | None) -> AsyncGenerator[None, None]:
        async with self._one_at_a_time:
            if await self._fence.admit(token):
                self._drop("somebody has trained without a lease since")
            yield

    def _drop(self, why: str) -> None:
        """Discard what has accumulated, and end the forwards."""
        self._pending = Pending()
        self._forwards.end_all(why)

    async def _compute(self, job: Job[T]) -> T:
        return await asyncio.wrap_future(self.engine.run(job))

    async def _add(self, batch: Batch, told: Mapping[str, float]) -> ForwardBackwardResult:
        begin = time.perf_counter()
        self._pending = await self._compute(self._accumulate(batch, told))
        metrics = {"seconds": time.perf_counter() - begin, **self._pending.metrics}
        # As one value: a client's metric may have any name, also one of the log's own.
        log.info("batch.trained", model=self.tree.record.slug, loss=batch.loss.name, metrics=metrics)
        return ForwardBackwardResult(metrics=metrics, num_datums=len(batch.datums))

    def _accumulate(self, batch: Batch, told: Mapping[str, float]) -> Job[Pending]:
        gradient = yield from compute_gradient(
            self.engine.model,
            self._state.tensors,
            batch,
            tokens_per_microbatch=self._tokens_per_microbatch,
        )
        return self._pending.plus(batch, gradient, told)

    def _step(self, request: OptimStepRequest) -> Generator[None, None, Stepped]:
        yield
        return adamw_step(self._state, self._pending.gradients, request)

    async def _save(self, node: Node, state: TrainState) -> None:
        try:
            await asyncio.to_thread(self.tree.save, node, state)
        except OSError as error:
            log.warning("request.failed", stage="saving", model=self.tree.record.slug, error=str(error))
            detail = f"step {node.step} could not be saved, the head and the gradient are as before: {error}"
            raise Refused(507, detail) from error

    def _snapshot(self) -> Weights:
        head = self.tree.head
        return Weights(head.checkpoint.id if head else f"{INITIAL}{self.tree.record.id}", self._state.tensors)
