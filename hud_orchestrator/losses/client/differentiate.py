"""From a loss on the client's side to the weights that ``backward`` is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hud_orchestrator.losses.client.data import DatumTensors, Loss
from hud_orchestrator.losses.client.tokens import place
from hud_orchestrator.losses.unusable import LossNotFinite, LossUnusable


@dataclass(frozen=True, slots=True, kw_only=True)
class Differentiated:
    """What a loss said about one forward."""

    weights: list[list[float]]
    """``-dC/dlogprobs`` of the loss C, for ``backward``. D lists of length T, all finite."""
    metrics: dict[str, float]
    """The loss's own figures, finite ones only, and ``loss`` when it has none of that name."""
    loss: float
    """Its value."""
    dropped: tuple[str, ...] = ()
    """Names of the metrics that were not finite, and so are left out: JSON has no NaN."""


def weights_of(loss_fn: Loss, data: Sequence[DatumTensors]) -> Differentiated:
    """Differentiate *loss_fn* at a forward's log-probabilities.

    *loss_fn* is called once, as ``loss_fn(data, logprobs)`` with a list of float32 leaves, and its loss
    is differentiated with respect to them. ``backward`` adds the gradient of ``-sum(weights * log pi)``
    to the parameters, which by the chain rule is that of the loss.

    Args:
        loss_fn: one of ours, or anything written for HUD's ``forward_backward_custom``.
        data: D datums, in the order of the forward's reply.

    Raises:
        LossUnusable: there are no datums; the loss raised; it did not return ``(scalar tensor, dict)``;
            it does not depend on a datum's log-probabilities; or a metric is not a number.
        LossNotFinite: its value or its gradient is not finite, or a log-probability that it needs. The
            message names the datum and position.
    """
    if not data:
        raise LossUnusable("there are no datums to compute a loss from")
    with torch.inference_mode(mode=False), torch.enable_grad():
        leaves = [torch.tensor(one.logprobs, dtype=torch.float32).requires_grad_() for one in data]
        name = _name(loss_fn)
        try:
            result = loss_fn(list(data), list(leaves))
        except Exception as error:
            # A loss of the user's may raise anything; it must end as one line, with its cause behind it.
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            kind = LossNotFinite if isinstance(error, LossNotFinite) else LossUnusable
            raise kind(f"loss {name}: {' '.join(reason.split())}") from error
        loss, given = _unpack(name, result)
        gradients = _gradients(name, loss, leaves)
    value = float(loss.detach())
    _check_finite(name, value, gradients)
    metrics, dropped = _floats(name, given)
    return Differentiated(
        weights=[(0.0 - gradient).tolist() for gradient in gradients],
        metrics={**metrics, **({} if "loss" in given else {"loss": value})},
        loss=value,
        dropped=dropped,
    )


def _name(loss_fn: object) -> str:
    found = getattr(loss_fn, "name", None) or getattr(getattr(loss_fn, "func", loss_fn), "__name__", None)
    return str(found or type(loss_fn).__name__)


def _unpack(name: str, result: object) -> tuple[Tensor, Mapping[str, Any]]:
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
        raise LossUnusable(f"loss {name}: must return (loss, metrics), got {_describe(result)}")
    loss, metrics = result
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise LossUnusable(f"loss {name}: the loss must be a scalar tensor, got {_describe(loss)}")
    return loss.reshape(()), metrics


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(one).__name__ for one in value) or 'nothing'}"
    return type(value).__name__


def _gradients(name: str, loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not loss.requires_grad:
        raise LossUnusable(
            f"loss {name}: the loss does not depend on any logprobs: use the tensors that are the second "
            "argument, not data[i].logprobs, and neither detach() nor item() them"
        )
    try:
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
    except RuntimeError as error:
        raise LossUnusable(f"loss {name}: cannot be differentiated: {error}") from error
    missing = [str(number) for number, gradient in enumerate(found) if gradient is None]
    if missing:
        listed = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise LossUnusable(
            f"loss {name}: the loss does not depend on the logprobs of datum {listed} ({len(missing)} of "
            f"{len(found)}): a datum that shall teach nothing must be multiplied by 0, not left out"
        )
    return [gradient for gradient in found if gradient is not None]


def _check_finite(name: str, value: float, gradients: Sequence[Tensor]) -> None:
    flat = torch.cat(list(gradients))
    wrong = (~flat.isfinite()).nonzero()[:1]
    if len(wrong):
        index = int(wrong)
        number, position = place(index, [len(one) for one in gradients])
        raise LossNotFinite(
            f"loss {name}: the gradient at datum {number}, position {position} is {float(flat[index])}, "
            f"and the loss is {value}; nothing was sent"
        )
    if not math.isfinite(value):
        raise LossNotFinite(
            f"loss {name}: the loss is {value}, though its gradient is finite; nothing was sent"
        )


def _floats(name: str, given: Mapping[str, Any]) -> tuple[dict[str, float], tuple[str, ...]]:
    """The finite metrics, and the names of the others."""
    values: dict[str, float] = {}
    for key, value in given.items():
        try:
            values[key] = _float(value)
        except (TypeError, ValueError, RuntimeError):
            raise LossUnusable(f"loss {name}: metric {key!r} must be a number, got {value!r:.80}") from None
        if not isinstance(key, str):
            raise LossUnusable(f"loss {name}: the name of a metric must be a string, got {key!r:.80}")
    dropped = tuple(key for key, value in values.items() if not math.isfinite(value))
    return {key: value for key, value in values.items() if key not in dropped}, dropped


def _float(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError
    return float(value.detach() if isinstance(value, Tensor) else value)
