"""SIGKILL at random moments; ``HUD_TEST_KILLS=50 pytest -s tests/local/test_kill.py`` counts fifty."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
from safetensors.torch import load_file

from hud_orchestrator import logs
from hud_orchestrator.local.atomic import PREFIX
from hud_orchestrator.local.serve import serve_until_told
from hud_orchestrator.local.settings import ServiceSettings
from tests.local.local_world import KEY, PAIR

KILLS = int(os.environ.get("HUD_TEST_KILLS", "5"))
SEED = int(os.environ.get("HUD_TEST_KILL_SEED", "1"))
LATEST_S = 0.6
"""Longest time from the start of the loop, or of the service, to the kill: a few steps."""

# A server of forks has imported torch and the model once, so a start takes a tenth of a second.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "transformers.models.llama.modeling_llama"])


def serve_in_a_process(settings: str, ready: Connection) -> None:
    logs.configure(stream=None, as_json=True, level="error")
    given = ServiceSettings.model_validate_json(settings)
    asyncio.run(serve_until_told(given, ready=ready.send))


@dataclass
class Client:
    """Trains one model, and remembers what was acknowledged."""

    acknowledged: list[str] = field(default_factory=list)
    in_doubt: bool = False
    """Whether an optim-step was sent and not answered."""

    def step(self, http: httpx.Client, model: str) -> None:
        train = f"/v1/models/{model}/train"
        call(http, "POST", f"{train}/forward-backward", inputs=PAIR)
        forward = call(http, "POST", f"{train}/forward", inputs=PAIR)
        weights = [one["mask"] for one in forward["data"]]
        call(http, "POST", f"{train}/backward", forward_id=forward["forward_id"], weights=weights)
        self.in_doubt = True
        stepped = call(http, "POST", f"{train}/optim-step", learning_rate=1e-3)
        self.in_doubt = False
        self.acknowledged.append(stepped["checkpoint_id"])
        assert stepped["step"] == len(self.acknowledged)

    def settle(self, http: httpx.Client, model: str) -> bool:
        """Check the tree after a restart; whether the step in doubt was applied."""
        nodes = call(http, "GET", f"/v2/models/{model}/checkpoints")
        ids = [node["id"] for node in nodes]
        known = len(self.acknowledged)
        assert ids[:known] == self.acknowledged
        assert len(ids) - known <= int(self.in_doubt)
        assert [node["name"] for node in nodes] == [f"step-{number + 1:06d}" for number in range(len(ids))]
        assert [node["prev_model_checkpoint_id"] for node in nodes] == [None, *ids][: len(ids)]
        assert [node["id"] for node in nodes if node["is_active"]] == ids[-1:]
        applied = len(ids) > known
        self.acknowledged, self.in_doubt = ids, False
        return applied


def call(http: httpx.Client, method: str, path: str, **body: Any) -> Any:
    reply = http.request(method, path, json=body or None)
    assert reply.status_code == 200, reply.text
    return reply.json()


@contextmanager
def serving(settings: str) -> Iterator[tuple[BaseProcess, Connection]]:
    theirs, ours = PROCESSES.Pipe()
    process = PROCESSES.Process(target=serve_in_a_process, args=(settings, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def fork(http: httpx.Client, base: Path, name: str) -> str:
    source = call(http, "GET", f"/v2/models/resolve?model={base}")["id"]
    return str(call(http, "POST", "/v2/models/fork", source_model_id=source, name=name)["id"])


def check_files(directory: Path, nodes: list[str]) -> None:
    """Every node is whole or pruned, the newest one whole, and nothing is half-written."""
    assert not list(directory.rglob(f"{PREFIX}*"))
    found = {path.parent.name for path in directory.glob("checkpoints/*/meta.json")}
    assert found == {path.name for path in directory.glob("checkpoints/*")} == set(nodes)
    for path in directory.glob("checkpoints/*/*.safetensors"):
        assert load_file(path)
    for node in nodes[-1:]:
        assert len(list((directory / "checkpoints" / node).iterdir())) == 3


def test_a_service_killed_at_any_moment_comes_back_on_a_whole_head(tmp_path: Path, model_dir: Path) -> None:
    given: dict[str, Any] = {"state_dir": str(tmp_path), "api_key": "secret", "bases": [str(model_dir)]}
    settings = json.dumps(given | {"local": {"keep": {"last": 2}}})
    dice, client, model, adopted = random.Random(SEED), Client(), "", 0
    for kill in range(KILLS + 1):
        with serving(settings) as (process, ready):
            timer = threading.Timer(dice.uniform(0, LATEST_S), process.kill)
            while_it_starts = 0 < kill < KILLS and dice.random() < 0.2
            if while_it_starts:
                timer.start()
            with suppress(EOFError, httpx.TransportError), httpx.Client(headers=KEY, timeout=30) as http:
                http.base_url = ready.recv()
                model = model or fork(http, model_dir, "killed")
                adopted += client.settle(http, model)
                check_files(tmp_path / "models" / model, client.acknowledged)
                client.step(http, model)
                if kill == KILLS:
                    compare_with_one_that_lived(http, model_dir, tmp_path, client.acknowledged, model)
                    break
                if not while_it_starts:
                    timer.start()
                while True:
                    client.step(http, model)
            timer.join()
            process.join()
    print(f"\n{KILLS} kills, {len(client.acknowledged)} steps, {adopted} unanswered steps found applied")


def compare_with_one_that_lived(
    http: httpx.Client, base: Path, state: Path, nodes: list[str], killed: str
) -> None:
    """As many steps without a kill lead to the same bits."""
    lived, twin = Client(), fork(http, base, "lived")
    for _ in nodes:
        lived.step(http, twin)
    for file in ("weights.safetensors", "optimizer.safetensors"):
        one, other = (
            (state / "models" / model / "checkpoints" / node / file).read_bytes()
            for model, node in ((killed, nodes[-1]), (twin, lived.acknowledged[-1]))
        )
        assert one == other
