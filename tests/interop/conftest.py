"""What the tests with the SDK share. They are collected only by ``python -m tests.interop``."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

collect_ignore_glob = [] if "INTEROP_ESCAPES" in os.environ else ["test_*.py"]

ENVIRONMENTS = Path(__file__).parent / "environments"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
_numbers = count(1)


@pytest.fixture(scope="session", autouse=True)
def _quiet_teardown() -> None:
    """Python 3.11 logs every stream that the SDK's environment server tears down as an error."""
    noise = "Exception in callback StreamReaderProtocol.connection_made"
    logging.getLogger("asyncio").addFilter(lambda record: noise not in record.getMessage())


@pytest.fixture
def fork() -> Callable[..., str]:
    """Forks ``tiny`` under a name of its own and returns the slug."""
    from hud.utils.gateway import list_gateway_models, resolve_gateway_model
    from hud.utils.platform import PlatformClient

    def make(prefix: str = "interop") -> str:
        body = {
            "source_model_id": resolve_gateway_model("tiny").id,
            "name": f"{prefix}-{WORKER}-{next(_numbers)}",
        }
        model = PlatformClient.from_settings().post("/models/fork", dict, json=body)
        list_gateway_models.cache_clear()  # it is read once per process, and does not know the fork
        slug: str = model["model_name"]
        return slug

    return make


@pytest.fixture
def slug(fork: Callable[..., str]) -> str:
    """A fresh fork of ``tiny``."""
    return fork()


@pytest.fixture
def agent_of() -> Callable[..., Any]:
    """Makes the SDK's agent for a slug; its completions tell token ids."""
    from hud.agents import create_agent

    def make(slug: str, *, max_tokens: int = 6, body: dict[str, Any] | None = None, **config: Any) -> Any:
        extra = {"return_token_ids": True, **(body or {})}
        wanted = {"max_tokens": max_tokens, "extra_body": extra}
        return create_agent(slug, completion_kwargs=wanted, **config)

    return make


@pytest.fixture
def roll_out(agent_of: Callable[..., Any]) -> Callable[..., Any]:
    """Runs sums with a slug's agent, some attempts each, and returns the SDK's runs."""
    from hud import LocalRuntime, Taskset

    from tests.interop.environments.sums import add

    async def run(
        slug: str, sums: list[tuple[int, int]], *, group: int, job: Any = None, **config: Any
    ) -> list[Any]:
        agent = await asyncio.to_thread(agent_of, slug, max_steps=1, **config)
        tasks = Taskset("sums", [add(a=a, b=b) for a, b in sums])
        runtime = LocalRuntime(ENVIRONMENTS / "sums.py")
        job = await tasks.run(agent, runtime=runtime, group=group, max_concurrent=24, job=job)
        assert [run.trace.error for run in job.runs if run.trace.is_error] == []
        return list(job.runs[-len(sums) * group :])

    return run
