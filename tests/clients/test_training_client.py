"""The training surface for people, against the embedded service as a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx
import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor

from hud_orchestrator import TrainingClient
from hud_orchestrator.errors import ConfigError, RequestRejected, ServiceUnreachable
from hud_orchestrator.wire import DatumTensors

SAMPLE = {"prompt_token_ids": [65, 66], "output_token_ids": [67, 68], "output_logprobs": [-2.0, -3.0]}
GROUP = [
    {"samples": [SAMPLE], "reward": 1.0},
    {"samples": [SAMPLE | {"output_token_ids": [69, 70]}], "reward": 0},
]


@pytest.fixture
def client(served: dict[str, str]) -> TrainingClient:
    """A client of a fresh fork of tiny."""
    slug = f"surface-{uuid4().hex[:8]}"
    headers = {"Authorization": f"Bearer {served['HUD_API_KEY']}"}
    with httpx.Client(base_url=served["HUD_API_URL"], headers=headers, timeout=120) as http:
        base = http.get("/v2/models/resolve", params={"model": "tiny"}).json()["id"]
        http.post("/v2/models/fork", json={"source_model_id": base, "name": slug}).raise_for_status()
    return at(served, slug)


def at(served: dict[str, str], model: str) -> TrainingClient:
    return TrainingClient(
        model,
        api_key=served["HUD_API_KEY"],
        base_url=served["HUD_RL_URL"],
        api_url=served["HUD_API_URL"],
        timeout_s=120,
    )


async def test_a_step_accumulates_steps_and_moves_the_head(client: TrainingClient) -> None:
    assert await client.head() is None
    assert "ppo" in await client.available_losses()

    first = await client.step(GROUP, learning_rate=1e-3, group_size=2, call="step-1")
    added = await client.forward_backward(GROUP, call="more", loss_fn="ppo", group_size=2)
    second = await client.optim_step(learning_rate=1e-3, max_grad_norm=0.5, call="step-2")

    assert added.num_datums == 2
    assert [node.id for node in await client.checkpoints()] == [first.checkpoint_id, second.checkpoint_id]
    await client.set_head(first.checkpoint_id)
    head = await client.head()
    assert head is not None
    assert head.id == first.checkpoint_id


async def test_a_call_repeated_under_its_id_has_its_effect_once(client: TrainingClient) -> None:
    await client.forward_backward(GROUP, call="gradient")
    once = await client.optim_step(learning_rate=1e-3, call="step")

    again = await client.optim_step(learning_rate=1e-3, call="step")

    assert again == once
    assert len(await client.checkpoints()) == 1
    with pytest.raises(RequestRejected, match="409"):
        await client.optim_step(learning_rate=2e-3, call="step")


async def test_a_loss_of_ones_own_is_differentiated_here_and_applied_there(client: TrainingClient) -> None:
    def mine(
        data: Sequence[DatumTensors], logprobs: list[Tensor], *, scale: float
    ) -> tuple[Tensor, dict[str, float]]:
        parts = [
            (leaf * torch.tensor(datum.mask) * (datum.reward - 0.5)).sum()
            for datum, leaf in zip(data, logprobs, strict=True)
        ]
        return -scale * torch.stack(parts).sum(), {"mine": 7.0}

    result = await client.forward_backward_custom(
        GROUP, mine, call="mine", loss_fn_config={"scale": 2.0}, group_size=2
    )
    step = await client.optim_step(learning_rate=1e-3, call="step")

    assert result.metrics["mine"] == 7.0
    assert result.num_datums == 2
    assert step.step == 1


async def test_one_of_our_losses_is_asked_for_by_name(client: TrainingClient) -> None:
    result = await client.forward_backward_custom(GROUP, "gspo", call="gspo", group_size=2)

    assert result.metrics["kl_k1"] == pytest.approx(result.metrics["kl_k1"])
    assert (await client.optim_step(learning_rate=1e-3, call="step")).step == 1


async def test_forward_tells_what_backward_wants(client: TrainingClient) -> None:
    forward = await client.forward(GROUP, call="look", group_size=2)
    weights = [[0.5 * on for on in datum.mask] for datum in forward.data]

    result = await client.backward(forward.forward_id, weights, call="push", metrics={"seen": 1.0})

    assert [datum.group_idx for datum in forward.data] == [0, 0]
    assert [datum.traj_idx for datum in forward.data] == [0, 1]
    assert result.metrics["seen"] == 1.0
    with pytest.raises(RequestRejected):
        await client.backward(forward.forward_id, weights, call="push-again")


async def test_a_loss_without_a_usable_gradient_is_refused_before_anything_accumulates(
    client: TrainingClient,
) -> None:
    def broken(data: Sequence[DatumTensors], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        return (logprobs[0] * float("nan")).sum() + logprobs[1].sum(), {}

    with pytest.raises(ValueError, match="datum 0"):
        await client.forward_backward_custom(GROUP, broken, call="broken")
    with pytest.raises(RequestRejected, match="409"):
        await client.optim_step(learning_rate=1e-3, call="step")


async def test_equal_rewards_are_warned_about_and_sent(client: TrainingClient) -> None:
    flat = [GROUP[0], GROUP[0]]
    with capture_logs() as lines:
        result = await client.forward_backward(flat, call="flat", group_size=2)

    assert result.num_datums == 2
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == ["batch.without_spread"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"inputs": GROUP * 2, "group_size": 3}, "4 inputs cannot be cut"),
        ({"inputs": GROUP, "num_substeps": 0}, "num_substeps"),
        ({"inputs": GROUP, "call": ""}, "call must be"),
        ({"inputs": GROUP, "call": "two\nlines"}, "call must be"),
    ],
)
async def test_a_wrong_argument_is_told_before_anything_is_sent(
    arguments: dict[str, Any], words: str
) -> None:
    nowhere = TrainingClient(
        str(uuid4()), api_key="k", base_url="http://127.0.0.1:9", api_url="http://127.0.0.1:9"
    )
    with pytest.raises(ValueError, match=words):
        await nowhere.forward_backward(**{"call": "c", **arguments})


async def test_an_error_carries_the_facts_of_its_call(client: TrainingClient) -> None:
    nowhere = TrainingClient(
        str(uuid4()), api_key="k", base_url="http://127.0.0.1:9", api_url="http://127.0.0.1:9"
    )
    with pytest.raises(ServiceUnreachable) as unsent:
        await nowhere.optim_step(learning_rate=1e-3, call="step-7")
    with pytest.raises(RequestRejected) as refused:
        await client.optim_step(learning_rate=1e-3, call="step-8")

    assert unsent.value.facts["call"] == "step-7"
    assert refused.value.facts["call"] == "step-8"
    assert refused.value.facts["status"] == refused.value.status == 409


async def test_a_model_that_the_catalog_does_not_have_is_named(served: dict[str, str]) -> None:
    with pytest.raises(RequestRejected, match="no model 'nobody'"):
        await at(served, "nobody").available_losses()


async def test_an_id_needs_no_catalog(served: dict[str, str], client: TrainingClient) -> None:
    headers = {"Authorization": f"Bearer {served['HUD_API_KEY']}"}
    async with httpx.AsyncClient(base_url=served["HUD_API_URL"], headers=headers) as http:
        found = await http.get("/v2/models/resolve", params={"model": client.model})
    by_id = TrainingClient(
        found.json()["id"].upper(),
        api_key=served["HUD_API_KEY"],
        base_url=served["HUD_RL_URL"],
        api_url="http://127.0.0.1:9",
    )

    assert "ppo" in await by_id.available_losses()


def test_a_missing_key_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("HUD_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="HUD_API_KEY"):
        TrainingClient("m")
