"""A service that hosts environments, as a process of its own, and a client of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from tests.conftest import serving

ENVIRONMENTS = """
import asyncio, os
from hud_orchestrator import Environment

env = Environment("sums")


@env.template()
async def add(a: int, b: int):
    answer = yield f"{a}+{b}="
    yield {"score": 1.0 if (answer or "").strip() == str(a + b) else 0.0, "info": {"sum": a + b}}


@env.template()
async def slow():
    yield "1+1="
    await asyncio.sleep(3600)
    yield 1.0


@env.template()
async def cruel():
    yield "1+1="
    raise RuntimeError("no grades today")


@env.template()
async def gone():
    yield "1+1="
    os._exit(7)
"""

OTHER = """
from hud_orchestrator import Environment

env = Environment("judge")


@env.template()
async def judge():
    answer = yield "judge this"
    yield {"score": 0.75, "content": str(answer)}
"""


@pytest.fixture(scope="session")
def hosting(
    environ: dict[str, str], cache_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment in which a client finds the service."""
    directory = tmp_path_factory.mktemp("hosting")
    (directory / "environments").mkdir()
    (directory / "environments" / "sums.py").write_text(ENVIRONMENTS)
    (directory / "environments" / "judge.py").write_text(OTHER)
    (directory / "environments" / "words.py").write_text("not_an_environment = 1")
    options = ("--environments", str(directory / "environments"))
    with serving(directory, environ, cache_home, *options) as addresses:
        yield addresses | {"HOSTING_DIRECTORY": str(directory)}


@dataclass
class Platform:
    """Calls that clients make."""

    http: httpx.AsyncClient
    slug: str = "tiny"

    async def submit(self, task: str = "add", *, env: str = "sums", **more: Any) -> str:
        """Submit a rollout and return its trace id."""
        trace_id = str(uuid.uuid4())
        reply = await self.http.post("/v2/rollouts/submit", json=self.body(trace_id, task, env) | more)
        assert reply.status_code == 200, reply.text
        return trace_id

    def body(self, trace_id: str, task: str = "add", env: str = "sums") -> dict[str, Any]:
        args = {"a": 12, "b": 3} if task == "add" else {}
        config = {"model": self.slug, "max_steps": 1, "completion_kwargs": {"max_tokens": 6}}
        agent = {"type": "openai_compatible", "config": config}
        return {"trace_id": trace_id, "env": env, "task": task, "args": args, "agent": agent}

    async def trace(self, trace_id: str) -> dict[str, Any]:
        """What is known of a rollout."""
        reply = await self.http.get(f"/v2/trace/{trace_id}")
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    async def ended(self, trace_id: str) -> dict[str, Any]:
        """What is known of a rollout when it is over."""
        with anyio.fail_after(120):
            # Another process's state: nothing here could be waited for.
            while (found := await self.trace(trace_id))["status"] == "running":  # noqa: ASYNC110
                await anyio.sleep(0.05)
        return found


@pytest.fixture
async def platform(hosting: dict[str, str]) -> AsyncIterator[Platform]:
    key = {"Authorization": f"Bearer {hosting['HUD_API_KEY']}"}
    async with httpx.AsyncClient(base_url=hosting["HUD_API_URL"], headers=key, timeout=240) as http:
        yield Platform(http)
