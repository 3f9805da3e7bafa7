"""A service of its own for the fuzz: a real process, temporary state, and models that have been trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SUMS = """
from hud_orchestrator import Environment

env = Environment("sums")


@env.template()
async def add(a: int = 1, b: int = 2):
    answer = yield f"{a}+{b}="
    yield 1.0 if answer == str(a + b) else 0.0
"""


@dataclass(frozen=True)
class Known:
    """Ids that exist, and the calls that make more of them."""

    http: httpx.Client
    steady: str
    """A fork whose optimizer is only given settings that make sense, so that it stays trainable."""
    victim: str
    """A fork whose optimizer is given anything."""
    leased: str
    """A fork that is taken on lease and given back."""
    base: str
    trace: str
    job: str
    taskset: str
    slug: str
    """Of the steady fork."""

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """Trajectories that any tiny model can be trained on."""
        return [trajectory([49, 50, 61], [51, 52], reward) for reward in (1.0, 0.0)]

    def post(self, path: str, body: Any, **headers: str) -> Any:
        """A call that succeeds."""
        reply = self.http.post(path, json=body, headers=headers)
        assert reply.status_code == 200, f"{path}: {reply.text}"
        return reply.json()

    def forward(self, model: str) -> tuple[str, list[list[float]]]:
        """A forward that nobody has used, and weights that fit it."""
        found = self.post(f"/v1/models/{model}/train/forward", {"inputs": self.inputs})
        return found["forward_id"], [datum["mask"] for datum in found["data"]]

    def lease(self) -> str:
        """An environment on lease, that nobody has given back."""
        return str(self.post("/runtime/sessions", {"environment": "sums"})["id"])

    def fencing_token(self) -> str:
        """The token of a lease on the model for that, whoever had it before."""
        self.give_back()
        mine = {"owner": uuid.uuid4().hex, "claim": 1, "holder": "fuzz", "ttl_s": 60}
        return str(self.post(f"/v1/models/{self.leased}/lease", mine)["token"])

    def give_back(self) -> None:
        """End the lease on the model for that, whoever has it."""
        path = f"/v1/models/{self.leased}/lease"
        self.http.delete(path, headers={"Fencing-Token": str(self.http.get(path).json()["token"])})

    def checkpoints(self, model: str) -> list[str]:
        """Ids of a model's checkpoints."""
        return [one["id"] for one in self.http.get(f"/v2/models/{model}/checkpoints").json()]


def trajectory(prompt: list[int], output: list[int], reward: float) -> dict[str, Any]:
    """One turn."""
    sample = {"prompt_token_ids": prompt, "output_token_ids": output, "output_logprobs": [-1.0] * len(output)}
    return {"samples": [sample], "reward": reward}


def meet(url: str, key: str) -> Known:
    """Fork two models of the service, train each for a step, and report one rollout."""
    http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)
    base = http.get("/v2/models/resolve", params={"model": "tiny"}).json()["id"]
    steady, victim, leased = (_fork(http, base) for _ in range(3))
    trace, job = uuid.uuid4().hex, uuid.uuid4().hex
    forks, taskset = (steady["id"], victim["id"], leased["id"]), _upload(http)
    known = Known(http, *forks, base, trace, job, taskset, steady["model_name"])
    for model in (known.steady, known.victim):
        known.post(f"/v1/models/{model}/train/forward-backward", {"inputs": known.inputs})
        known.post(f"/v1/models/{model}/train/optim-step", {"learning_rate": 1e-4})
    known.post(f"/v2/trace/job/{known.job}/enter", {"name": "fuzz", "group": 1})
    known.post(f"/v2/trace/{known.trace}/enter", {"job_id": known.job, "task_slug": "sum"})
    message = {"role": "user", "content": "12+3="}
    chat = {"model": known.steady, "messages": [message], "max_tokens": 3}
    known.post("/chat/completions", chat, **{"Trace-Id": known.trace})
    known.post(f"/v2/trace/{known.trace}/exit", {"status": "completed", "reward": 1.0})
    return known


def _upload(http: httpx.Client) -> str:
    task = {"name": "one", "env": {"name": "e"}, "task_id": "t"}
    body = {"taskset_name": "fuzz", "tasks": [task]}
    return str(http.post("/v2/tasks/upload", json=body).json()["taskset_id"])


def _fork(http: httpx.Client, base: str) -> dict[str, str]:
    body = {"source_model_id": base, "name": f"fuzz-{uuid.uuid4().hex[:8]}"}
    found: dict[str, str] = http.post("/v2/models/fork", json=body).json()
    return found


@contextmanager
def serving(
    directory: Path, *, cache: Path | None = None, environ: dict[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """``hud-orchestrate serve`` in *directory*: its URL, its key, and the file of its log."""
    env_file, log = directory / "service.env", directory / "service.log"
    command = [sys.executable, "-m", "hud_orchestrator", "serve", "--port", "0"]
    command += ["--state", str(directory / "state"), "--env-file", str(env_file)]
    command += ["--cache", str(cache)] if cache else []
    (directory / "sums.py").write_text(SUMS)
    command += ["--environments", "sums.py"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=directory, env=environ or dict(os.environ), stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout
            assert b"listening" in process.stdout.readline(), log.read_text()
            addresses = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
            yield {"url": addresses["HUD_API_URL"], "key": addresses["HUD_API_KEY"], "log": str(log)}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
