"""What a fork's directory says in JSON: the fork, its nodes, and which of them is the head."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hud_orchestrator.config.local import LoraSection
from hud_orchestrator.wire import Checkpoint


class ModelRecord(BaseModel):
    """What a fork is. Written once."""

    model_config = ConfigDict(frozen=True)

    id: str
    slug: str
    base: str
    mode: Literal["full", "lora"]
    lora: LoraSection | None
    parent: str
    """Id of the model it was forked from."""
    parent_checkpoint: str | None
    """The parent's checkpoint it began from; ``None``: the parent's initial weights."""
    created_at: str


class Node(BaseModel):
    """A checkpoint's ``meta.json``."""

    model_config = ConfigDict(frozen=True)

    serial: int
    checkpoint: Checkpoint
    """As the catalog answers it; ``is_active`` is filled in when it does."""
    step: int
    idempotency_key: str | None = None
    request_digest: str | None = None
    """Of the ``optim-step`` that made it, so that a repeated one is recognised after a restart."""


class Head(BaseModel):
    """``head.json``."""

    model_config = ConfigDict(frozen=True)

    checkpoint_id: str | None = None
    """The active checkpoint; ``None`` before the first step."""
    serial: int = Field(default=0, ge=0)
    """The highest serial of any node when this was written."""
