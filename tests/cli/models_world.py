"""Call ``hud-orchestrate models`` in this process, and train by the same HTTP that any client uses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog

from hud_orchestrator.cli import app
from hud_orchestrator.cli.exits import exit_code


@dataclass(frozen=True)
class Said:
    """What one command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        return [line.split() for line in self.out.splitlines()]


@dataclass(frozen=True)
class Models:
    """The command, its environment, and a client of the service that it talks to."""

    capsys: pytest.CaptureFixture[str]
    http: httpx.Client

    def __call__(self, *arguments: object, command: str = "models") -> Said:
        self.capsys.readouterr()
        try:
            code = exit_code(lambda: app([command, *map(str, arguments)]))
        finally:
            structlog.reset_defaults()
        out, err = self.capsys.readouterr()
        return Said(code, out, err)

    def forked(self) -> str:
        """The slug of a new fork of the tiny base."""
        name = f"cli-{uuid4().hex[:8]}"
        assert self("fork", "tiny", "--name", name).code == 0
        return name

    def step(self, slug: str, *, learning_rate: float = 0.01) -> str:
        """Train one step; the id of the checkpoint."""
        model = self.http.get("/v2/models/resolve", params={"model": slug}).json()["id"]
        path = f"/v1/models/{model}/train"
        batch = {"inputs": [_trajectory([60, 61], 1.0), _trajectory([62, 63], 0.0)]}
        assert self.http.post(f"{path}/forward-backward", json=batch).status_code == 200
        stepped = self.http.post(f"{path}/optim-step", json={"learning_rate": learning_rate})
        return str(stepped.json()["checkpoint_id"])

    def greedy(self, slug: str, text: str, **more: Any) -> dict[str, Any]:
        """The gateway's likeliest answer, with its tokens."""
        message = {"role": "user", "content": text}
        body = {
            "model": slug, "messages": [message], "max_tokens": 12, "temperature": 0, "logprobs": True,
            "return_token_ids": True,
        }  # fmt: skip
        reply = self.http.post("/chat/completions", json=body | more)
        assert reply.status_code == 200, reply.text
        choice: dict[str, Any] = reply.json()["choices"][0]
        return choice

    def state_of(self, slug: str) -> Path:
        """Where the service keeps the state that holds *slug*, which has a checkpoint."""
        return Path(self("head", slug, "--json").json()["head"]["checkpoint_name"]).parents[4]


def _trajectory(output: list[int], reward: float) -> dict[str, Any]:
    sample = {
        "prompt_token_ids": [60, 61, 62],
        "output_token_ids": output,
        "output_logprobs": [-2.0] * len(output),
    }
    return {"samples": [sample], "reward": reward}
