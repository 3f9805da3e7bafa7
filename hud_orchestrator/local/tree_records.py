"""What a fork's directory says in JSON: the fork, its nodes, and which of them is the head."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hud_orchestrator.config.local import LoraSection
from hud_orchestrator.errors import StateError
from hud_orchestrator.wire import Checkpoint

M = TypeVar("M", bound=BaseModel)


def read_record(kind: type[M], path: Path) -> M:
    """What *path* says.

    Raises:
        FileNotFoundError: it is not there.
        StateError: it is damaged.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise StateError(
            f"{path}: is damaged ({error.errors(include_url=False)[0]['msg']}); put it back from a copy, "
            "or move the directory of its model away"
        ) from error


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
