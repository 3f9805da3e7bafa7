"""The sections about the training calls."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hud_orchestrator.config.section import PlainValue, Section


class LearningRateSection(Section):
    """The learning rate of every step: a linear warm-up, then a schedule from ``peak`` to ``final``."""

    peak: float = Field(default=1e-4, gt=0)
    """Learning rate after the warm-up."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the rate goes from ``peak`` to ``final`` between the warm-up and the last step."""

    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the rate rises linearly; step k of w uses ``peak * k / w``."""

    final: float = Field(default=0.0, ge=0)
    """Rate that ``linear`` and ``cosine`` approach at the last step; ``constant`` ignores it."""


class AdamSection(Section):
    """Settings of the AdamW optimizer."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""

    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the mean of squared gradients."""

    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""


class TrainerSection(Section):
    """What is asked of the training service in every step."""

    loss: str = "importance_sampling"
    """A loss built into the service: ``cross_entropy``, ``importance_sampling``, ``ppo``, ``cispo``
    or ``dro`` on the local one. Or one that the daemon computes itself, in torch, from per-token
    log-probabilities (the ``train`` extra): one of ours, such as ``gspo`` or ``client:ppo``, or
    ``package.module:function`` of your own, found from the run file's directory too."""

    loss_config: dict[str, PlainValue] = Field(default_factory=dict)
    """Values handed to the loss as they are, for example ``clip_low_threshold`` for ``ppo``. The
    local service also takes ``advantage_std: 1`` to divide advantages by the group's deviation."""

    learning_rate: LearningRateSection = LearningRateSection()

    substeps: int = Field(default=1, ge=1)
    """Slices of the batch whose gradients are computed one after the other and added. Losses that the
    daemon computes see the batch whole."""

    reward_scale: float = Field(default=1.0, gt=0)
    """Every reward is multiplied by this before advantages are computed."""

    adam: AdamSection = AdamSection()

    max_grad_norm: float | None = Field(default=None, gt=0)
    """Clip the gradient's 2-norm to this before the step. Local service only; left out: no clipping."""

    call_timeout_s: float = Field(default=3600, gt=0)
    """Seconds without an answer after which the outcome of a training call counts as unknown."""

    settle_s: float = Field(default=60, ge=0)
    """Seconds that the checkpoint tree is watched for a step whose answer was lost, before it counts as
    not applied; and that the tree may lag behind an answer that was received."""

    on_other_trainer: Literal["refuse", "wait"] = "refuse"
    """What to do at the start when somebody else has the model on lease: end with exit code 76, or wait
    until they are done. The local service gives leases; HUD's own does not, and there another trainer is
    noticed by the checkpoints that it makes."""

    on_lost_step: Literal["redo", "drop"] = "redo"
    """What becomes of a step that was lost and not applied: its batch is trained on anew, or the step
    is skipped and its groups end with it."""
