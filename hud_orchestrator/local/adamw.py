"""One optimizer step, from an immutable state to the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hud_orchestrator.local.replies import Refused
from hud_orchestrator.local.weights import Tensors, TrainState
from hud_orchestrator.wire import OptimStepRequest


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step made."""

    state: TrainState
    grad_norm: float
    """2-norm of the whole gradient, before clipping."""
    update_norm: float
    """2-norm of the change of all parameters."""


LARGEST = 1e30
"""Bound of what a request may set: squares of it must not leave fp32 at once."""


def check_settings(request: OptimStepRequest) -> None:
    """Refuse settings that AdamW cannot take.

    Raises:
        Refused: 422, with the name and the number.
    """
    for name in ("learning_rate", "eps", "weight_decay", "max_grad_norm"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= LARGEST:
            raise Refused(422, f"{name} must be from 0 to {LARGEST:g}, got {value}")
    for name in ("beta1", "beta2"):
        value = getattr(request, name)
        if not 0 <= value < 1:
            raise Refused(422, f"{name} must be at least 0 and below 1, got {value}")


def adamw_step(state: TrainState, gradients: Tensors, request: OptimStepRequest) -> Stepped:
    """Apply one AdamW step; *state* stays as it is.

    Raises:
        Refused: 409, the gradient or the new weights are not finite.
    """
    grad_norm = _norm(gradients)
    if not torch.tensor(grad_norm).isfinite():
        raise Refused(
            409, f"the accumulated gradient has norm {grad_norm}; it was discarded, no step was taken"
        )
    clip = request.max_grad_norm
    factor = min(1.0, clip / (grad_norm + 1e-6)) if clip is not None else 1.0

    parameters = {name: nn.Parameter(tensor.clone()) for name, tensor in state.tensors.items()}
    optimizer = torch.optim.AdamW(
        parameters.values(),
        lr=request.learning_rate,
        betas=(request.beta1, request.beta2),
        eps=request.eps,
        weight_decay=request.weight_decay,
    )
    for name, parameter in parameters.items():
        gradient = gradients.get(name)
        # A parameter that no token used gets a gradient of zero, so that its moments decay too.
        parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient * factor
        if state.step:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": state.first_moments[name].clone(),
                "exp_avg_sq": state.second_moments[name].clone(),
            }
    optimizer.step()

    stepped = TrainState(
        tensors={name: parameter.detach() for name, parameter in parameters.items()},
        first_moments={name: optimizer.state[p]["exp_avg"] for name, p in parameters.items()},
        second_moments={name: optimizer.state[p]["exp_avg_sq"] for name, p in parameters.items()},
        step=state.step + 1,
    )
    update = {name: stepped.tensors[name] - tensor for name, tensor in state.tensors.items()}
    update_norm = _norm(update)
    if not torch.tensor(update_norm).isfinite():
        raise Refused(
            409, "the step gives weights that are not finite; the gradient was discarded, no step was taken"
        )
    return Stepped(stepped, grad_norm, update_norm)


def _norm(tensors: Tensors) -> float:
    norms: list[Tensor] = [torch.linalg.vector_norm(tensor.double()) for tensor in tensors.values()]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
