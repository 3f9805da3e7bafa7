"""The training service, catalog and gateway as they are in a simulation: what is true, and nothing else.

session.batches   gradients that have accumulated: the trace ids of each call
nodes             the checkpoint tree; a node knows which traces made it
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

BASE = "base"


@dataclass(slots=True)
class Node:
    """One checkpoint."""

    id: str
    parent: str | None
    traces: tuple[str, ...]
    """Of the trajectories whose gradient it applied, sorted."""
    at: float


@dataclass(slots=True)
class Slug:
    """A trainable model."""

    id: str
    name: str
    nodes: list[Node] = field(default_factory=list)
    head: str | None = None
    batches: list[tuple[str, ...]] = field(default_factory=list)
    heads: list[tuple[float, str | None]] = field(default_factory=list)
    """Every head and since when, newest last."""
    listed_at: float = 0.0
    """When somebody looked last."""


@dataclass(slots=True)
class Answer:
    """What the service says."""

    status: int
    body: Any


class SimulatedService:
    """Answers requests at once; when they arrive is the network's matter."""

    def __init__(
        self, rng: Random, *, idempotent: bool, counts: bool, list_lag_s: float, gateway_lag_s: float
    ) -> None:
        self._rng = rng
        self._idempotent = idempotent
        self._counts = counts
        self._list_lag_s = list_lag_s
        self._gateway_lag_s = gateway_lag_s
        self._done: dict[str, Answer] = {}
        self._odd = False
        self.slugs: dict[str, Slug] = {}
        self.restarts = 0

    def restart(self) -> None:
        """Lose what is in memory: sessions, and which calls were answered."""
        self.restarts += 1
        for slug in self.slugs.values():
            slug.batches.clear()
        self._done.clear()

    def handle(self, method: str, path: str, body: Any, *, key: str | None, now: float) -> Answer:
        """Do what is asked for."""
        if key is not None and self._idempotent and key in self._done:
            return self._done[key]
        answer = self._route(method, path, body, now)
        if key is not None:
            self._done[key] = answer
        return answer

    def _route(self, method: str, path: str, body: Any, now: float) -> Answer:
        parts = path.strip("/").split("/")
        if path == "/v2/models":
            items = [self._model(BASE, BASE, trainable=False)]
            items += [self._model(one.id, one.name, trainable=True) for one in self.slugs.values()]
            return Answer(200, {"items": items, "total": len(items)})
        if path == "/v2/models/fork":
            return self._fork(body)
        if path == "/chat/completions":
            return self._chat(body, now)
        slug = self.slugs.get(parts[2])
        if slug is None:
            return Answer(404, {"detail": f"no model {parts[2]}"})
        if parts[-1] == "lease":
            return Answer(404, {"detail": f"no such path {path}"})
        if parts[-1] == "losses":
            return Answer(200, {"losses": ["importance_sampling"]})
        if parts[-1] == "checkpoints":
            return self._checkpoints(slug, now)
        if parts[-1] == "head":
            return self._set_head(slug, body, now)
        if parts[-1] == "forward-backward":
            return self._forward_backward(slug, body)
        assert parts[-1] == "optim-step", path
        return self._optim_step(slug, now)

    def _model(self, model_id: str, name: str, *, trainable: bool) -> dict[str, Any]:
        return {
            "id": model_id,
            "name": name,
            "model_name": name,
            "is_trainable": trainable,
            "provider": {"name": "simulation"},
        }

    def _fork(self, body: Any) -> Answer:
        if any(one.name == body["name"] for one in self.slugs.values()):
            return Answer(409, {"detail": f"the name {body['name']} is taken"})
        slug = Slug(id=f"model-{len(self.slugs) + 1}", name=body["name"])
        self.slugs[slug.id] = slug
        return Answer(200, self._model(slug.id, slug.name, trainable=True))

    def _chat(self, body: Any, now: float) -> Answer:
        slug = next((one for one in self.slugs.values() if one.name == body["model"]), None)
        if slug is None:
            return Answer(404, {"error": {"message": "no such model"}})
        # Mostly, one of two neighbours is even: a group without a spread trains nothing.
        self._odd = self._odd ^ (self._rng.random() < 0.93)
        text = self._rng.choice("13579" if self._odd else "02468")
        return Answer(
            200,
            {
                "choices": [
                    {
                        "message": {"role": "assistant", "content": text},
                        "finish_reason": "stop",
                        "logprobs": {"content": [{"logprob": -2.3}]},
                        "prompt_token_ids": [1, 2],
                        "token_ids": [ord(text)],
                    }
                ],
                "system_fingerprint": self._served(slug, now),
            },
        )

    def _served(self, slug: Slug, now: float) -> str | None:
        """The head that the gateway serves: for a while after a promotion, still the one before."""
        for since, head in reversed(slug.heads):
            if now - since >= self._gateway_lag_s or (since, head) == slug.heads[0]:
                return head
        return None

    def _checkpoints(self, slug: Slug, now: float) -> Answer:
        slug.listed_at = now
        known = [node for node in slug.nodes if now - node.at >= self._list_lag_s]
        ids = {node.id for node in known}
        head = slug.head if slug.head in ids else (known[-1].id if known else None)
        listed = [
            {
                "id": node.id,
                "prev_model_checkpoint_id": node.parent,
                "is_active": node.id == head,
                "num_datums": len(node.traces) if self._counts else None,
            }
            for node in known
        ]
        return Answer(200, listed)

    def _set_head(self, slug: Slug, body: Any, now: float) -> Answer:
        if body["checkpoint_id"] not in {node.id for node in slug.nodes}:
            return Answer(404, {"detail": "no such checkpoint"})
        slug.batches.clear()
        self._move(slug, body["checkpoint_id"], now)
        return Answer(200, {})

    def _forward_backward(self, slug: Slug, body: Any) -> Answer:
        slug.batches.append(tuple(one["trace_id"] for one in body["inputs"]))
        return Answer(200, {"metrics": {"loss:sum": 0.0}, "num_datums": len(body["inputs"])})

    def _optim_step(self, slug: Slug, now: float) -> Answer:
        if not slug.batches:
            return Answer(409, {"detail": "no gradient has accumulated"})
        traces = tuple(sorted(trace for batch in slug.batches for trace in batch))
        slug.batches.clear()
        name = hashlib.sha256(json.dumps([slug.id, len(slug.nodes), traces]).encode()).hexdigest()[:12]
        node = Node(id=name, parent=slug.head, traces=traces, at=now)
        slug.nodes.append(node)
        self._move(slug, node.id, now)
        facts = {"step": len(slug.nodes), "checkpoint_id": node.id, "model": slug.name}
        return Answer(200, {**facts, "sampler_path": "s", "state_path": "t"})

    def _move(self, slug: Slug, head: str, now: float) -> None:
        slug.head = head
        slug.heads.append((now, head))
