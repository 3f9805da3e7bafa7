"""What a row asks of the machine that its environment runs on: ``runtime_config``, read and checked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hud_orchestrator.errors import EnvironmentFailed
from hud_orchestrator.records import Task


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Gpu(_Part):
    type: str | list[str] | None = None
    count: int = Field(default=1, ge=1)


class _Resources(_Part):
    cpu: float | None = Field(default=None, gt=0)
    memory_mb: int | None = Field(default=None, gt=0)
    storage_mb: int | None = Field(default=None, gt=0)
    """A hint that nobody here enforces."""
    gpu: _Gpu | None = None
    os: str | None = None
    tpu: dict[str, Any] | None = None


class _Limits(_Part):
    startup_timeout_s: int | None = Field(default=None, gt=0)
    run_timeout_s: int | None = Field(default=None, gt=0)


class Machine(_Part):
    """The wishes of one row."""

    image: str | None = None
    compose: Any = None
    resources: _Resources = _Resources()
    limits: _Limits = _Limits()


def machine_of(task: Task, *, where: str, fulfilled: Collection[str]) -> Machine:
    """What *task* asks for, when all of it can be had: without it, it would be another task.

    Args:
        task: with or without a ``runtime_config``.
        where: the placement, for the message.
        fulfilled: what the placement can do: ``image``, ``compose``, and the names of resources and limits.

    Raises:
        EnvironmentFailed: it asks for something else, or for nothing that can be read.
    """
    given = {key: value for key, value in (task.runtime_config or {}).items() if value is not None}
    try:
        machine = Machine.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, ("runtime_config", *first["loc"])))
        raise EnvironmentFailed(f"task {task.slug!r}: {place}: {first['msg']}") from error
    asked = machine.model_dump(exclude_none=True, exclude={"resources": {"storage_mb"}})
    names = [*(asked.keys() - {"resources", "limits"}), *asked["resources"], *asked["limits"]]
    refused = sorted(set(names) - set(fulfilled))
    if refused:
        raise EnvironmentFailed(
            f"task {task.slug!r} asks for {', '.join(refused)} in its runtime_config, which placement "
            f"{where} cannot give"
        )
    return machine
