"""Losses of the client's side against the real service and the real gradient of a real model."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from hud_orchestrator.losses.client.differentiate import weights_of
from hud_orchestrator.losses.client.registry import CLIENT_LOSSES, resolve
from hud_orchestrator.wire import DatumTensors, ForwardResult
from tests.local.local_world import World, make_model, running, trajectory

torch.set_num_threads(1)

PROMPTS = [[1, 5, 2], [1, 9, 12, 2], [1, 5, 2], [1, 7, 2]]
OUTPUTS = [[7, 8, 0], [9, 20, 6, 0], [30, 5, 9], [11, 12]]
REWARDS = [1.0, 0.0, 0.3, 0.9]
SHIFTS = [0.0, 0.05, -0.1, 0.4, -0.5, 0.02, 1.7, -1.6, 0.1, -0.3, 0.6, 0.01]
"""log pi - log q of the action tokens: inside and outside of every loss's bounds."""


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def world(tmp_path: Path, model_dir: Path) -> AsyncIterator[World]:
    async with running(tmp_path / "state", model_dir) as world:
        yield world


def policy(module: LlamaForCausalLM, prompt: list[int], output: list[int]) -> Tensor:
    """Log-probabilities of every token after the first. Shape [prompt + output - 1]."""
    logits = module(torch.tensor([prompt + output[:-1]])).logits[0]
    targets = torch.tensor([*prompt[1:], *output])
    chosen: Tensor = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    return chosen


def in_double(model_dir: Path) -> LlamaForCausalLM:
    """The model in double precision throughout: transformers' own norms compute in single."""
    module = LlamaForCausalLM.from_pretrained(model_dir).double()
    for owner in list(module.modules()):
        for name, norm in list(owner.named_children()):
            if isinstance(norm, LlamaRMSNorm):
                exact = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon)
                exact.weight = norm.weight
                setattr(owner, name, exact)
    return module


def shifted_inputs(module: LlamaForCausalLM) -> list[dict[str, Any]]:
    """Trajectories whose sampling policy differs from the model's by ``SHIFTS``."""
    shifts = iter(SHIFTS)
    inputs = []
    for prompt, output, reward in zip(PROMPTS, OUTPUTS, REWARDS, strict=True):
        with torch.no_grad():
            actions = policy(module, prompt, output)[len(prompt) - 1 :].tolist()
        logprobs = [logprob - next(shifts) for logprob in actions]
        inputs.append(trajectory(prompt, output, reward=reward, logprobs=logprobs))
    return inputs


async def moments(world: World, model: str) -> dict[str, Tensor]:
    """The gradient that the next step is taken on; a first step's mean of gradients is a tenth of it."""
    stepped = (await world.step(model)).json()
    saved = load_file(stepped["state_path"])
    return {name: 10 * tensor for name, tensor in saved.items() if name.startswith("first.")}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("importance_sampling", {}),
        ("ppo", {}),
        ("cispo", {"clip_low_threshold": 0.5, "clip_high_threshold": 1.5}),
        ("dro", {"beta": 0.4}),
    ],
)
async def test_a_built_in_loss_and_ours_of_its_name_give_one_gradient(
    world: World, model_dir: Path, name: str, settings: dict[str, float]
) -> None:
    inputs = shifted_inputs(LlamaForCausalLM.from_pretrained(model_dir))
    theirs, ours = await world.fork("theirs"), await world.fork("ours")
    reply = await world.train(theirs, inputs=inputs, loss_fn=name, loss_fn_config=settings, group_size=2)
    assert reply.status_code == 200, reply.text

    forward = await world.http.post(
        f"/v1/models/{ours}/train/forward", json={"inputs": inputs, "group_size": 2}
    )
    assert forward.status_code == 200, forward.text
    result = ForwardResult.model_validate(forward.json())
    found = weights_of(resolve(name, settings), result.data)
    body = {"forward_id": result.forward_id, "weights": found.weights, "metrics": found.metrics}
    backward = await world.http.post(f"/v1/models/{ours}/train/backward", json=body)
    assert backward.status_code == 200, backward.text
    said = backward.json()["metrics"]
    assert said["effective_tokens"] == found.metrics["effective_tokens"]
    assert found.loss == pytest.approx(reply.json()["metrics"]["loss:sum"], rel=1e-5)
    for figure in ("ratio_mean", "ratio_max", "clipped_share", "kl_k1", "kl_k3", "sampling_logprob_mean"):
        assert found.metrics[figure] == pytest.approx(reply.json()["metrics"][figure], rel=1e-4), figure

    expected, gradient = await moments(world, theirs), await moments(world, ours)
    assert expected.keys() == gradient.keys()
    assert expected
    largest = max(float(one.abs().max()) for one in expected.values())
    assert largest > 1e-3
    for key, tensor in expected.items():
        torch.testing.assert_close(gradient[key], tensor, rtol=1e-5, atol=1e-5 * largest)
    norms = [(await world.checkpoints(model))[0]["metrics"]["grad_norm"] for model in (theirs, ours)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


# Settings with which some, but not all, of the tokens of ``SHIFTS`` are bounded.
REAL: dict[str, dict[str, Any]] = {name: {} for name in CLIENT_LOSSES} | {
    "ppo": {"dual_clip": 3.0, "kl": 0.2, "kl_estimator": "k2"},
    "dapo": {"kl": 0.2},
    "dr_grpo": {"max_tokens": 4, "advantage": "leave_one_out"},
    "gspo": {"eps_low": 0.2, "eps_high": 0.2, "kl": 0.1, "kl_estimator": "k1"},
}


def frozen_weights(name: str, data: list[DatumTensors]) -> list[Tensor]:
    """Written anew: what multiplies log pi in a loss whose weight is held constant."""
    bounds = {"cispo": (0.0, 4.0), "tis": (0.0, 2.0), "icepop": (0.5, 5.0)}
    low, high = bounds[name]
    weights = []
    for datum in data:
        mean = sum(one.reward for one in data if one.group_idx == datum.group_idx) / 2
        row = []
        for lp, q, chosen in zip(datum.logprobs, datum.sampling_logprobs, datum.mask, strict=True):
            ratio = math.exp(lp - q) if chosen else 0.0
            weight = min(max(ratio, low), high)
            kept = 0.0 if name == "icepop" and weight != ratio else weight
            row.append(chosen * kept * (datum.reward - mean))
        weights.append(torch.tensor(row, dtype=torch.float64))
    return weights


@pytest.mark.parametrize("name", REAL)
def test_the_gradient_in_the_parameters_agrees_with_finite_differences(model_dir: Path, name: str) -> None:
    """Through the whole chain: model, log-probabilities, weights, and the linear loss of a backward.

    In double precision but for the weights, which are rounded to single as they are when sent. A
    wrong sign or factor is off by the whole slope, a clipped token taken for a live one by percents.
    """
    module = in_double(model_dir)
    inputs = shifted_inputs(module)
    turns = list(zip(PROMPTS, OUTPUTS, strict=True))
    start = [policy(module, prompt, output) for prompt, output in turns]
    data = [
        DatumTensors(
            reward=one["reward"],
            traj_idx=index,
            group_idx=index // 2,
            logprobs=start[index].tolist(),
            sampling_logprobs=[0.0] * (len(prompt) - 1) + one["samples"][0]["output_logprobs"],
            mask=[0.0] * (len(prompt) - 1) + [1.0] * len(output),
        )
        for index, (one, (prompt, output)) in enumerate(zip(inputs, turns, strict=True))
    ]
    loss = resolve(name, REAL[name])
    weights = [torch.tensor(row, dtype=torch.float64) for row in weights_of(loss, data).weights]
    linear = -torch.stack([(w * lp).sum() for w, lp in zip(weights, start, strict=True)]).sum()
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(linear, parameters)
    frozen = frozen_weights(name, data) if name in ("cispo", "tis", "icepop") else None

    def value() -> float:
        with torch.no_grad():
            now = [policy(module, prompt, output) for prompt, output in turns]
            if frozen is not None:
                return -sum(float((w * lp).sum()) for w, lp in zip(frozen, now, strict=True))
            return float(loss(data, now)[0])

    generator = torch.Generator().manual_seed(3)
    for _ in range(2):
        direction = [torch.randn(one.shape, generator=generator, dtype=one.dtype) for one in parameters]
        expected = sum(float((g * v).sum()) for g, v in zip(gradients, direction, strict=True))
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for parameter, along in zip(parameters, direction, strict=True):
                    parameter.add_(along, alpha=step)
            ends.append(value())
        with torch.no_grad():
            for parameter, along in zip(parameters, direction, strict=True):
                parameter.add_(along, alpha=1e-6)
        slope = (ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(expected, rel=1e-4)
        assert abs(slope) > 1e-3
