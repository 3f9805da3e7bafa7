"""Request and reply models of the training contract, shared by ``clients`` and ``local``.

Requests forbid unknown keys, as the real service does; replies that the SDK reads strictly
(``ForwardBackwardResult``, ``OptimStepResult``) have exactly these keys and finite numbers.
"""

from __future__ import annotations

import math
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ModelWrapValidatorHandler, model_validator


class Request(BaseModel):
    """A body we send or accept."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Reply(BaseModel):
    """A body we answer or read. Unknown keys are ignored when reading."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
        # Dumped whole, so in the schema of what is written every key is required.
        json_schema_serialization_defaults_required=True,
    )


class TrajectorySample(Request):
    """One model turn: what the policy was conditioned on and what it sampled."""

    prompt_token_ids: list[int] | None = None
    """The turn's whole prompt. Shape [P]."""
    prompt_chunks: list[dict[str, Any]] | None = None
    """Serialized chunks; authoritative when present."""
    output_token_ids: list[int]
    """The sampled tokens. Shape [T]."""
    output_logprobs: list[float] = Field(default_factory=list)
    """Log-probability of each sampled token under the sampling policy, in nats. Shape [T]."""


class TrajectoryPayload(Request):
    """One attempt: its turns in order and the reward for all of them."""

    samples: list[TrajectorySample] = Field(min_length=1)
    reward: float
    trace_id: str | None = None


class ForwardBackwardRequest(Request):
    """Accumulate one batch's gradient with a loss built into the service."""

    inputs: list[TrajectoryPayload | str] = Field(min_length=1)
    """Trajectories inline or by trace id; groups are contiguous slices of ``group_size``."""
    loss_fn: str = "importance_sampling"
    loss_fn_config: dict[str, float] | None = None
    group_size: int | None = Field(default=None, ge=1)
    """Members per group; ``None`` makes the whole batch one group."""
    reward_scale: float = 1.0
    """Every reward is multiplied by this before advantages are computed."""
    num_substeps: int = Field(default=1, ge=1)
    """Slices of the batch that are run one after the other; the gradients add up."""


class ForwardBackwardResult(Reply):
    """What a ``forward-backward`` or ``backward`` added to the accumulated gradient."""

    metrics: dict[str, FiniteFloat]
    num_datums: int
    _not_finite: tuple[str, ...] = ()

    @property
    def not_finite(self) -> tuple[str, ...]:
        """Names of figures that the service gave and that are not finite; ``metrics`` has none of them."""
        return self._not_finite

    @model_validator(mode="wrap")
    @classmethod
    def _only_finite(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Leave out what is not finite: the gradient has accumulated, whatever a figure about it says."""
        metrics = given.get("metrics") if isinstance(given, dict) else None
        if not isinstance(metrics, dict):
            return handler(given)
        wild = tuple(name for name, v in metrics.items() if isinstance(v, float) and not math.isfinite(v))
        tame = {name: value for name, value in metrics.items() if name not in wild}
        result = handler({**given, "metrics": tame})
        result._not_finite = wild
        return result


class ForwardRequest(Request):
    """Compute the current policy's log-probabilities of a batch, for a loss on the client's side."""

    inputs: list[TrajectoryPayload | str] = Field(min_length=1)
    group_size: int | None = Field(default=None, ge=1)
    """Members per group; ``None``: the tensors carry no group."""
    reward_scale: float = 1.0
    """Every returned reward has been multiplied by this."""


class DatumTensors(Reply):
    """One turn, token by token: what a client-side loss is computed from.

    ``logprobs``, ``sampling_logprobs`` and ``mask`` have one common length T, prompt + output - 1:
    position t is about the token at t + 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reward: float
    traj_idx: int
    """Position in ``inputs`` of the trajectory that the turn belongs to."""
    group_idx: int | None = None
    """Its group; ``None`` when the request had no ``group_size``."""
    logprobs: list[float]
    """Under the current policy, in nats. Shape [T]."""
    sampling_logprobs: list[float]
    """Under the policy that sampled it, in nats; 0 where the mask is 0. Shape [T]."""
    mask: list[float]
    """1 on tokens that the policy chose, 0 elsewhere. Shape [T]."""


class ForwardResult(Reply):
    """The tensors, and the id that one ``backward`` may use."""

    forward_id: str
    data: list[DatumTensors]


class BackwardRequest(Request):
    """Accumulate the gradient of ``-sum(weights * logprobs)`` over a forward's tensors."""

    forward_id: str
    weights: list[list[float]]
    """``-dC/dlogprobs`` of the client's loss C. One list per datum, each of shape [T]."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Figures of the client's loss; the reply repeats them."""


class OptimStepRequest(Request):
    """One AdamW step on what has accumulated; the new weights become the head."""

    learning_rate: float = Field(gt=0)
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    """Clip the gradient's 2-norm to this. Only the embedded service knows this key; left out
    when ``None``, because the managed service refuses keys it does not know."""


class OptimStepResult(Reply):
    """The checkpoint that a step made and promoted."""

    step: int
    checkpoint_id: str
    sampler_path: str
    state_path: str
    model: str
    """The gateway slug that now serves the new weights."""


class LossList(Reply):
    """The built-in losses of a service."""

    losses: list[str]


class Provider(Reply):
    """Who serves a model."""

    name: str | None = None


class Model(Reply):
    """One entry of the catalog."""

    id: str
    name: str | None = None
    model_name: str
    """The slug: the gateway's ``model`` string."""
    sdk_agent_type: str | None = None
    is_trainable: bool = False
    provider: Provider = Provider()


class ModelPage(Reply):
    """One page of the catalog."""

    items: list[Model]
    total: int


class ForkRequest(Request):
    """Make a trainable model from another model's active checkpoint."""

    source_model_id: str
    name: str
    checkpoint_id: str | None = None
    """Begin at this checkpoint of the source instead of its head. Only the embedded service knows
    this key; left out when ``None``, because the managed service refuses keys it does not know."""


KEEP_CHECKPOINTS = "Keep-Checkpoints"
"""A header of ``optim-step``: ids, with commas between them, of checkpoints that may not be pruned after it.
A service that does not know it does what it does without."""


class Checkpoint(Reply):
    """One node of a model's checkpoint tree."""

    id: str
    name: str | None = None
    checkpoint_name: str | None = None
    prev_model_checkpoint_id: str | None = None
    created_at: str | None = None
    num_traces: int | None = None
    num_datums: int | None = None
    num_tokens: int | None = None
    mean_reward: float | None = None
    learning_rate: float | None = None
    loss_fn: str | None = None
    is_active: bool = False
    metrics: dict[str, float] = Field(default_factory=dict)


class SetHeadRequest(Request):
    """Make a checkpoint the head."""

    checkpoint_id: str


class JobEnter(Reply):
    """A job begins."""

    name: str
    group: int = 1
    taskset_id: str | None = None


class TraceEnter(Reply):
    """A rollout begins."""

    job_id: str | None = None
    group_id: str | None = None
    task_slug: str | None = None
    model: str | None = None
    parent_trace_id: str | None = None


class TraceExit(Reply):
    """A rollout ended."""

    status: str
    reward: float | None = None
    error: str | None = None
    evaluation_result: dict[str, Any] | None = None
    stop_reason: str | None = None
    metadata: dict[str, Any] | None = None


class TasksetName(Reply):
    """A taskset, found by its name."""

    taskset_id: str
    name: str


class TasksetRecord(Reply):
    """A taskset, without its tasks."""

    id: str
    name: str
    project_id: str | None = None
    can_edit: bool = False
    num_tasks: int | None = None


class TasksetPage(Reply):
    """Tasksets, by name."""

    items: list[TasksetRecord]
    total: int


class TasksetExport(Reply):
    """A taskset with its tasks."""

    name: str | None
    tasks: list[dict[str, Any]]
    """``env``, ``scenario`` (the template's id), ``name`` (the slug), ``args`` and the rest of a row."""


class EnvironmentName(Request):
    """The environment of an uploaded task."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)


class VerifierRow(Request):
    """The task whose grade decides, as a row: it has no verifier of its own."""

    model_config = ConfigDict(extra="allow")

    env: str = Field(min_length=1)
    id: str = Field(min_length=1)
    verifier: None = None


class TaskUpload(Request):
    """One task as it is uploaded. Unknown keys are ignored, as in every row of a taskset."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1)
    """The slug."""
    env: EnvironmentName
    task_id: str = Field(min_length=1)
    """The template's id."""
    args: dict[str, Any] = Field(default_factory=dict)
    validation: list[dict[str, Any]] | None = None
    agent_config: dict[str, Any] | None = None
    columns: dict[str, Any] | None = None
    runtime_config: dict[str, Any] | None = None
    verifier: VerifierRow | None = None


class TasksetUpload(Request):
    """``POST /v2/tasks/upload``: tasks to add to a taskset, or to replace in it."""

    taskset_name: str = Field(min_length=1)
    tasks: list[TaskUpload]
    project_id: str | None = None
    taskset_id: str | None = None
    """Of the taskset that there is; left out: the one of this name, or a new one."""


class TasksetUploaded(Reply):
    """What an upload did."""

    taskset_id: str
    tasks_created: int
    tasks_updated: int
