"""A client that knows the contract's paths and nothing of the service's insides."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest


@dataclass(frozen=True)
class Contract:
    """Calls as the SDK makes them: blocking, one after the other."""

    http: httpx.Client
    addresses: dict[str, str]

    def fork(self, name: str | None = None, source: str = "tiny") -> dict[str, Any]:
        """A fresh fork's catalog entry."""
        source_id = self.get("/v2/models/resolve", model=source)["id"]
        body = {"source_model_id": source_id, "name": name or f"contract-{uuid.uuid4().hex[:8]}"}
        reply = self.post("/v2/models/fork", body)
        assert reply.status_code == 200, reply.text
        item: dict[str, Any] = reply.json()
        return item

    def get(self, path: str, **query: Any) -> Any:
        """A read that succeeds."""
        reply = self.http.get(path, params=query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """A POST, whatever its status."""
        return self.http.post(path, json=body, headers=headers)

    def train(self, model: dict[str, Any], suffix: str, body: Any) -> httpx.Response:
        """A training call, whatever its status."""
        return self.post(f"/v1/models/{model['id']}/train/{suffix}", body)

    def chat(self, slug: str, text: str = "12+3=", trace: str | None = None, **more: Any) -> dict[str, Any]:
        """One completion's choice, with its token ids and log-probabilities."""
        message = {"role": "user", "content": [{"type": "text", "text": text}]}
        body = {"model": slug, "messages": [message], "stream": False, "logprobs": True, "max_tokens": 6,
                "return_token_ids": True, **more}  # fmt: skip
        reply = self.post("/chat/completions", body, **({"Trace-Id": trace} if trace else {}))
        assert reply.status_code == 200, reply.text
        choice: dict[str, Any] = reply.json()["choices"][0]
        return choice

    def recorded(self, slug: str, reward: float) -> str:
        """A rollout that only the service has seen: its trace id."""
        trace = uuid.uuid4().hex
        job = {"job_id": uuid.uuid4().hex, "task_slug": "sum", "model": slug}
        self.post(f"/v2/trace/{trace}/enter", job)
        self.chat(slug, trace=trace)
        self.post(f"/v2/trace/{trace}/exit", {"status": "completed", "reward": reward, "stop_reason": "done"})
        return trace

    def inputs(self, slug: str, rewards: tuple[float, ...] = (1.0, 0.0)) -> list[dict[str, Any]]:
        """Inline trajectories of one sampled turn each."""
        return [{"samples": [as_sample(self.chat(slug))], "reward": reward} for reward in rewards]

    def step(self, model: dict[str, Any]) -> dict[str, Any]:
        """Accumulate something and step on it."""
        body = {"inputs": self.inputs(model["model_name"]), "loss_fn": "importance_sampling"}
        assert self.train(model, "forward-backward", body).status_code == 200
        reply = self.train(model, "optim-step", OPTIM_STEP)
        assert reply.status_code == 200, reply.text
        result: dict[str, Any] = reply.json()
        return result

    def tree(self, model: dict[str, Any]) -> list[dict[str, Any]]:
        """The checkpoints."""
        nodes: list[dict[str, Any]] = self.get(f"/v2/models/{model['id']}/checkpoints")
        return nodes


OPTIM_STEP = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.0}
"""As the SDK always sends it: every key."""


def as_sample(choice: dict[str, Any]) -> dict[str, Any]:
    """A completion's choice as one turn of a trajectory."""
    return {
        "prompt_token_ids": choice["prompt_token_ids"],
        "output_token_ids": choice["token_ids"],
        "output_logprobs": [token["logprob"] for token in choice["logprobs"]["content"]],
    }


@pytest.fixture(scope="session")
def contract(served: dict[str, str]) -> Iterator[Contract]:
    """The contract's client for the served process."""
    key = {"Authorization": f"Bearer {served['HUD_API_KEY']}"}
    with httpx.Client(base_url=served["HUD_API_URL"], headers=key, timeout=600) as http:
        yield Contract(http, served)
