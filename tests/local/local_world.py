"""A random little model, the service around it, and the calls that tests make."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hud_orchestrator.environments.guests import Guests
from hud_orchestrator.local.app import build_app
from hud_orchestrator.local.catalog import Catalog
from hud_orchestrator.local.hosting.host import hosting
from hud_orchestrator.local.hosting.sources import find_environments
from hud_orchestrator.local.service import Service
from hud_orchestrator.local.settings import ServiceSettings

KEY = {"Authorization": "Bearer secret"}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 ?"
CONTEXT = 64


def make_model(directory: Path) -> Path:
    """A Llama of 60 thousand random parameters that speaks one letter per token."""
    torch.manual_seed(7)
    vocabulary = {token: index for index, token in enumerate(["<end>", "<user>", "<model>", *LETTERS])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("<[a-z]+>|."), "isolated")
    letters.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters, eos_token="<end>", extra_special_tokens=["<user>", "<model>"], unk_token="?"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ 'model' if m.role == 'assistant' else 'user' }}>"
        "{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<model>{% endif %}"
    )
    tokenizer.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=None,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


@dataclass
class World:
    """A client of a running service, and what it needs to say."""

    http: httpx.AsyncClient
    base: str
    service: Service | None = None
    app: Any = None

    async def fork(self, name: str, source: str | None = None, **more: Any) -> str:
        """Fork and return the new model's id."""
        found = await self.http.get("/v2/models/resolve", params={"model": source or self.base})
        body = {"source_model_id": found.json()["id"], "name": name} | more
        reply = await self.http.post("/v2/models/fork", json=body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["id"])

    async def chat(self, model: str, text: str = "hello", **more: Any) -> dict[str, Any]:
        """One completion with everything it tells."""
        reply = await self.ask(model, text, **more)
        assert reply.status_code == 200, reply.text
        body: dict[str, Any] = reply.json()
        return body

    async def ask(self, model: str, text: str = "hello", **more: Any) -> httpx.Response:
        message = {"role": "user", "content": text}
        body = {
            "model": model,
            "messages": [message],
            "max_tokens": 8,
            "logprobs": True,
            "return_token_ids": True,
        }
        return await self.http.post("/chat/completions", json=body | more)

    async def train(self, model: str, **body: Any) -> httpx.Response:
        headers = body.pop("headers", {})
        return await self.http.post(f"/v1/models/{model}/train/forward-backward", json=body, headers=headers)

    async def forward(self, model: str, **body: Any) -> httpx.Response:
        headers = body.pop("headers", {})
        return await self.http.post(f"/v1/models/{model}/train/forward", json=body, headers=headers)

    async def backward(self, model: str, **body: Any) -> httpx.Response:
        headers = body.pop("headers", {})
        # httpx refuses infinities, other clients do not.
        raw = json.dumps(body)
        return await self.http.post(f"/v1/models/{model}/train/backward", content=raw, headers=headers)

    async def set_head(self, model: str, checkpoint_id: str) -> httpx.Response:
        return await self.http.put(f"/v2/models/{model}/head", json={"checkpoint_id": checkpoint_id})

    async def gradient(self, model: str) -> dict[str, torch.Tensor]:
        """What has accumulated, read off the first moments of a step that uses it up."""
        stepped = await self.step(model, beta1=0.0)
        assert stepped.status_code == 200, stepped.text
        moments = load_file(stepped.json()["state_path"])
        return {name: one for name, one in moments.items() if name.startswith("first.")}

    async def step(self, model: str, **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        body = {"learning_rate": 1e-2} | more
        return await self.http.post(f"/v1/models/{model}/train/optim-step", json=body, headers=headers)

    async def learn(self, model: str, **more: Any) -> dict[str, Any]:
        """One whole step on a fixed batch."""
        reply = await self.train(model, inputs=PAIR)
        assert reply.status_code == 200, reply.text
        stepped = await self.step(model, **more)
        assert stepped.status_code == 200, stepped.text
        body: dict[str, Any] = stepped.json()
        return body

    async def checkpoints(self, model: str) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = (await self.http.get(f"/v2/models/{model}/checkpoints")).json()
        return nodes


def trajectory(
    prompt: list[int], output: list[int], *, reward: float, logprobs: list[float] | None = None
) -> dict[str, Any]:
    """An inline trajectory of one turn."""
    sample = {
        "prompt_token_ids": prompt,
        "output_token_ids": output,
        "output_logprobs": [-3.0] * len(output) if logprobs is None else logprobs,
    }
    return {"samples": [sample], "reward": reward}


def as_trajectory(choice: dict[str, Any], reward: float) -> dict[str, Any]:
    """What a completion's choice becomes in training."""
    logprobs = [one["logprob"] for one in choice["logprobs"]["content"]]
    return trajectory(choice["prompt_token_ids"], choice["token_ids"], reward=reward, logprobs=logprobs)


PAIR = [trajectory([1, 5, 2], [7, 8, 0], reward=1.0), trajectory([1, 5, 2], [9, 0], reward=0.0)]


def settings(state_dir: Path, model: Path, **more: Any) -> ServiceSettings:
    """Settings of a service that knows *model*."""
    given = {"state_dir": state_dir, "api_key": "secret", "bases": [str(model)]}
    return ServiceSettings.model_validate(given | more)


@asynccontextmanager
async def running(state_dir: Path, model: Path, **more: Any) -> AsyncIterator[World]:
    """The service inside this process, without a socket."""
    given = settings(state_dir, model, **more)
    service = Service(given, Catalog(given.state_dir, given.bases))
    sources = await find_environments(given.environments)
    # Nobody listens there: without a socket, what is hosted has no gateway to sample from.
    hosted_there = hosting(given, service.traces, sources, url="http://127.0.0.1:1")
    # In a task of its own, for fixtures are left in another task than they were entered in.
    async with Guests() as house, house.held(hosted_there, named="hosting", leave_s=10) as hosted:
        app = build_app(service, hosted)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://test", headers=KEY, timeout=30
        ) as http:
            try:
                yield World(http, str(model), service, app)
            finally:
                await service.close()


@contextmanager
def process(
    state_dir: Path, model: Path, **more: Any
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The service as its own process, and the first line it says."""
    given = settings(state_dir, model, **more).model_dump(mode="json") | {"api_key": "secret"}
    with subprocess.Popen(
        [sys.executable, "-m", "hud_orchestrator.local"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps(given) + "\n")
        child.stdin.flush()
        try:
            yield child, json.loads(child.stdout.readline())
        finally:
            child.kill()
