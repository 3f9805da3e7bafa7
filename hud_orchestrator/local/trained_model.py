"""One fork while the service runs: its state, what has accumulated, and the calls that change them.

Calls are serialised by a lock, for the client sends no step number: two at once could not be told
from one repeated. Every change is an assignment of immutable values after the last thing that can
fail, so an error anywhere leaves the model as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from hud_orchestrator.local.adamw import Stepped, adamw_step, check_settings
from hud_orchestrator.local.datums import Batch, Limits, read_batch
from hud_orchestrator.local.engine import Engine, Job
from hud_orchestrator.local.gradient import compute_gradient
from hud_orchestrator.local.pending import Pending
from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.tree import Node, Tree
from hud_orchestrator.local.weights import TrainState, Weights
from hud_orchestrator.logs import get_logger
from hud_orchestrator.wire import (
    Checkpoint,
    ForwardBackwardRequest,
    ForwardBackwardResult,
    OptimStepRequest,
    OptimStepResult,
)

log = get_logger()
T = TypeVar("T")

NOTHING = "nothing has accumulated since the last step: no forward-backward, or only zero advantages"


class TrainedModel:
    """A fork that is loaded. Its methods are called by the event loop only."""

    def __init__(self, tree: Tree, engine: Engine, state: TrainState, *, tokens_per_microbatch: int) -> None:
        """Serve *tree* with *engine*, beginning at *state*, the state of its head."""
        self.tree = tree
        self.engine = engine
        self._tokens_per_microbatch = tokens_per_microbatch
        self._one_at_a_time = asyncio.Lock()
        self._state = state
        self._pending = Pending()
        self.weights = self._snapshot()
        """What is sampled from now. The engine's thread reads it; a promotion replaces it."""

    async def forward_backward(self, request: ForwardBackwardRequest) -> ForwardBackwardResult:
        """Add one batch's gradient to what has accumulated.

        Raises:
            Refused: the request is wrong (422) or its numbers are not finite (409). Nothing changed.
        """
        async with self._one_at_a_time:
            begin = time.perf_counter()
            model = self.engine.model
            batch = read_batch(request, Limits(model.context, model.vocab_size))
            self._pending = await self._compute(self._accumulate(batch))
            metrics = {**self._pending.metrics, "seconds": time.perf_counter() - begin}
        log.info("batch.trained", model=self.tree.record.slug, loss=batch.loss.name, **metrics)
        return ForwardBackwardResult(metrics=metrics, num_datums=len(batch.datums))

    async def optim_step(self, request: OptimStepRequest, *, key: str | None, digest: str) -> OptimStepResult:
        """Step on what has accumulated, save the node, make it the head.

        Raises:
            Refused: 422, the settings are wrong; 409, nothing has accumulated; 409, the numbers are not
                finite, and the gradient is discarded; 507, the node could not be saved, and the gradient
                is kept.
        """
        check_settings(request)
        async with self._one_at_a_time:
            if not self._pending.gradients:
                raise Refused(409, NOTHING)
            try:
                stepped = await self._compute(self._step(request))
            except Refused as refusal:
                if refusal.status == 409:
                    self._pending = Pending()
                raise
            node = self._describe(stepped, request)
            node = node.model_copy(update={"idempotency_key": key, "request_digest": digest})
            await self._save(node, stepped.state)
            self._state, self._pending = stepped.state, Pending()
            self.weights = self._snapshot()
        log.info("checkpoint.written", model=self.tree.record.slug, **node.checkpoint.metrics, step=node.step)
        return self.result(node)

    async def set_head(self, checkpoint_id: str) -> None:
        """Go to a checkpoint, and discard what has accumulated.

        Raises:
            Refused: 404, there is no such checkpoint; 507, the head could not be written.
        """
        async with self._one_at_a_time:
            node = self.tree.nodes.get(checkpoint_id)
            if node is None:
                raise Refused(404, f"model {self.tree.record.slug} has no checkpoint {checkpoint_id!r}")
            if node is not self.tree.head:
                state = await asyncio.to_thread(load_state, self.tree, node, self.engine)
                try:
                    await asyncio.to_thread(self.tree.set_head, checkpoint_id)
                except OSError as error:
                    raise Refused(507, f"the head could not be written, it is as before: {error}") from error
                self._state = state
                self.weights = self._snapshot()
            self._pending = Pending()
        log.info("head.set", model=self.tree.record.slug, checkpoint=checkpoint_id)

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

    async def _compute(self, job: Job[T]) -> T:
        return await asyncio.wrap_future(self.engine.run(job))

    def _accumulate(self, batch: Batch) -> Job[Pending]:
        gradient = yield from compute_gradient(
            self.engine.model,
            self._state.tensors,
            batch,
            tokens_per_microbatch=self._tokens_per_microbatch,
        )
        return self._pending.plus(batch, gradient)

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

    def _describe(self, stepped: Stepped, request: OptimStepRequest) -> Node:
        serial, checkpoint_id = self.tree.next_id()
        head, pending, step = self.tree.head, self._pending, stepped.state.step
        facts = pending.facts()
        checkpoint = Checkpoint(
            id=checkpoint_id,
            name=f"step-{step:06d}",
            checkpoint_name=str(self.tree.paths(checkpoint_id)[0]),
            prev_model_checkpoint_id=head.checkpoint.id if head else None,
            created_at=datetime.now(UTC).isoformat(),
            num_traces=len(pending.rewards),
            num_datums=pending.num_datums,
            num_tokens=pending.num_tokens,
            mean_reward=facts["reward_mean"],
            learning_rate=request.learning_rate,
            loss_fn=", ".join(pending.losses),
            metrics={**facts, "grad_norm": stepped.grad_norm, "update_norm": stepped.update_norm},
        )
        return Node(serial=serial, step=step, checkpoint=checkpoint)

    def _snapshot(self) -> Weights:
        head = self.tree.head
        return Weights(head.checkpoint.id if head else f"initial:{self.tree.record.id}", self._state.tensors)


def load_state(tree: Tree, node: Node | None, engine: Engine) -> TrainState:
    """The state at a node, on the engine's device."""
    state, device = tree.load(node), engine.model.device
    return replace(
        state,
        tensors={name: tensor.to(device) for name, tensor in state.tensors.items()},
        first_moments={name: tensor.to(device) for name, tensor in state.first_moments.items()},
        second_moments={name: tensor.to(device) for name, tensor in state.second_moments.items()},
    )
