"""The training service, catalog and gateway as they are in a simulation: what is true, and nothing else.

session.batches   gradients that have accumulated: the trace ids of each call
nodes             the checkpoint tree; a node knows which traces made it
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hud_orchestrator.records import INITIAL
from hud_orchestrator.wire_writer import FENCING_TOKEN
from tests.simulation.fence import Fence, Refused

BASE = "base"
LOGPROB = -2.3
"""Of every sampled token."""


@dataclass(slots=True)
class Node:
    """One checkpoint."""

    id: str
    parent: str | None
    traces: tuple[str, ...]
    """Of the trajectories whose gradient it applied, sorted."""
    learning_rate: float
    at: float
    loss: float
    """Of the first call that it took."""


@dataclass(slots=True)
class Slug:
    """A trainable model."""

    id: str
    name: str
    nodes: list[Node] = field(default_factory=list)
    head: str | None = None
    batches: list[tuple[str, ...]] = field(default_factory=list)
    forwards: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Traces of the forwards that no backward has used."""
    heads: list[tuple[float, str | None]] = field(default_factory=list)
    """Every head and since when, newest last."""
    fence: Fence = field(default_factory=Fence)
    listed_at: float = 0.0
    """When somebody looked last who still waited for the answer."""


@dataclass(slots=True)
class Answer:
    """What the service says."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class SimulatedService:
    """Answers requests at once; when they arrive is the network's matter."""

    def __init__(
        self,
        rng: Random,
        *,
        idempotent: bool,
        counts: bool,
        rates: bool,
        leases: bool,
        list_lag_s: float,
        gateway_lag_s: float,
    ) -> None:
        self._rng = rng
        self._idempotent = idempotent
        self._counts = counts
        self._rates = rates
        self.leases = leases
        self.list_lag_s = list_lag_s
        self.counts_extra = 0
        """How many datums of a checkpoint it counts beside those that were sent for it."""
        self.digits: int | None = None
        """To how many significant ones it tells a learning rate; ``None``: to the last bit."""
        self.judged: Counter[str | None] = Counter()
        """How often each head was sampled without chance, as evaluations do."""
        self.logprob = LOGPROB
        """Of every sampled token, by a forward."""
        self.mute: Callable[[Any], bool] = lambda _: False
        """Whether the completion that answers a request says nothing of its tokens."""
        self.gateway_lag_s = gateway_lag_s
        self._done: dict[str, Answer] = {}
        self._odd = False
        self.slugs: dict[str, Slug] = {}
        self.sampled: dict[str, set[str | None]] = defaultdict(set)
        """Which heads have served a trace."""
        self.restarts = 0

    def restart(self, now: float) -> None:
        """Lose what is in memory: sessions, and which calls were answered."""
        self.restarts += 1
        for slug in self.slugs.values():
            slug.batches.clear()
            slug.forwards.clear()
            slug.fence.until = now + slug.fence.ttl_s
        self._done.clear()

    def looked_at(self, path: str, now: float) -> None:
        """Note that somebody waits for what is at *path*; nobody does for a request that comes late."""
        if path.endswith("/checkpoints") and (slug := self.slugs.get(path.split("/")[3])) is not None:
            slug.listed_at = now

    def handle(
        self, method: str, path: str, body: Any, *, key: str | None, token: int | None, now: float
    ) -> Answer:
        """Do what is asked for, if *token* allows it."""
        if key is not None and self._idempotent and key in self._done:
            return self._done[key]
        try:
            answer = self._route(method, path, body, token, now)
        except Refused as refused:
            newest = self.slugs[path.split("/")[3]].fence.token
            return Answer(409, {"detail": str(refused)}, {FENCING_TOKEN: str(newest)})
        if key is not None:
            self._done[key] = answer
        return answer

    def _route(self, method: str, path: str, body: Any, token: int | None, now: float) -> Answer:
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
        return self._model_route(method, parts[-1], slug, body, token, now)

    def _model_route(
        self, method: str, what: str, slug: Slug, body: Any, token: int | None, now: float
    ) -> Answer:
        if what == "lease":
            return self._lease(method, slug, body, token, now)
        if what == "losses":
            return Answer(200, {"losses": ["importance_sampling"]})
        if what == "checkpoints":
            return self._checkpoints(slug, now)
        if self.leases and slug.fence.admit(token, now):
            slug.batches.clear()
            slug.forwards.clear()
        return self._set_head(slug, body, now) if what == "head" else self._train(what, slug, body, now)

    def _train(self, what: str, slug: Slug, body: Any, now: float) -> Answer:
        if what == "forward-backward":
            return self._forward_backward(slug, body)
        if what == "forward":
            return self._forward(slug, body)
        if what == "backward":
            return self._backward(slug, body)
        assert what == "optim-step", what
        return self._optim_step(slug, body, now)

    def _lease(self, method: str, slug: Slug, body: Any, token: int | None, now: float) -> Answer:
        if not self.leases:
            return Answer(404, {"detail": "no such path"})
        fence = slug.fence
        if method == "POST" and fence.take(body, now):
            slug.batches.clear()
        elif method == "PUT":
            fence.hold(token, now)
        elif method == "DELETE":
            fence.release(token)
        left_s = max(0.0, fence.until - now)
        facts = {"held": not fence.over, "token": fence.token, "unleased": fence.unleased}
        facts |= {"holder": fence.owner, "expires_in_s": left_s}
        return Answer(200, facts)

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
        head = self._served(slug, now)
        self.judged[head] += body["temperature"] == 0
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
                        "logprobs": {"content": [{"logprob": LOGPROB}]},
                        "prompt_token_ids": [1, 2],
                        "token_ids": None if self.mute(body) else [ord(text)],
                    }
                ],
                "system_fingerprint": head or f"{INITIAL}{slug.id}",
            },
        )

    def _served(self, slug: Slug, now: float) -> str | None:
        """The head that the gateway serves: for a while after a promotion, still the one before."""
        for since, head in reversed(slug.heads):
            if now - since >= self.gateway_lag_s:
                return head
        return None

    def _checkpoints(self, slug: Slug, now: float) -> Answer:
        known = [node for node in slug.nodes if now - node.at >= self.list_lag_s]
        ids = {node.id for node in known}
        head = slug.head if slug.head in ids else (known[-1].id if known else None)
        listed = [
            {
                "id": node.id,
                "prev_model_checkpoint_id": node.parent,
                "is_active": node.id == head,
                "num_datums": len(node.traces) + self.counts_extra if self._counts else None,
                "learning_rate": self._told(node.learning_rate) if self._rates else None,
            }
            for node in known
        ]
        return Answer(200, listed)

    def _told(self, rate: float) -> float:
        return rate if self.digits is None else float(f"{rate:.{self.digits}g}")

    def _set_head(self, slug: Slug, body: Any, now: float) -> Answer:
        if body["checkpoint_id"] not in {node.id for node in slug.nodes}:
            return Answer(404, {"detail": "no such checkpoint"})
        slug.batches.clear()
        self._move(slug, body["checkpoint_id"], now)
        return Answer(200, {})

    def _forward_backward(self, slug: Slug, body: Any) -> Answer:
        slug.batches.append(tuple(one["trace_id"] for one in body["inputs"]))
        metrics = {"loss:sum": loss_of(slug.batches[-1])}
        return Answer(200, {"metrics": metrics, "num_datums": len(body["inputs"])})

    def _forward(self, slug: Slug, body: Any) -> Answer:
        traces = tuple(one["trace_id"] for one in body["inputs"])
        name = f"forward-{len(slug.forwards)}-{traces[0]}"
        slug.forwards[name] = traces
        group_size = body.get("group_size")
        data = [
            {
                "reward": one["reward"],
                "traj_idx": place,
                "group_idx": None if group_size is None else place // group_size,
                "logprobs": [-1.0, self.logprob],
                "sampling_logprobs": [0.0, LOGPROB],
                "mask": [0.0, 1.0],
            }
            for place, one in enumerate(body["inputs"])
        ]
        return Answer(200, {"forward_id": name, "data": data})

    def _backward(self, slug: Slug, body: Any) -> Answer:
        traces = slug.forwards.pop(body["forward_id"], None)
        if traces is None:
            # Of one that has ended it knows why, but not of one from before it was started anew.
            return Answer(404, {"detail": "there is no such forward"})
        slug.batches.append(traces)
        return Answer(200, {"metrics": body["metrics"], "num_datums": len(traces)})

    def _optim_step(self, slug: Slug, body: Any, now: float) -> Answer:
        if not slug.batches:
            return Answer(409, {"detail": "no gradient has accumulated"})
        traces, loss = tuple(sorted(one for batch in slug.batches for one in batch)), loss_of(slug.batches[0])
        slug.batches.clear()
        name = hashlib.sha256(json.dumps([slug.id, len(slug.nodes), traces]).encode()).hexdigest()[:12]
        rate = body["learning_rate"]
        node = Node(id=name, parent=slug.head, traces=traces, learning_rate=rate, at=now, loss=loss)
        slug.nodes.append(node)
        self._move(slug, node.id, now)
        facts = {"step": len(slug.nodes), "checkpoint_id": node.id, "model": slug.name}
        return Answer(200, {**facts, "sampler_path": "s", "state_path": "t"})

    def _move(self, slug: Slug, head: str, now: float) -> None:
        slug.head = head
        slug.heads.append((now, head))


def loss_of(traces: tuple[str, ...]) -> float:
    """Another one for every batch."""
    return int(hashlib.sha256("".join(traces).encode()).hexdigest()[:8], 16) / 2**32
