"""Losses that are computed on the client's side, loaded when one is asked for: they need torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hud_orchestrator.errors import ConfigError
from hud_orchestrator.wire import DatumTensors

ClientLoss = Callable[..., tuple[Any, dict[str, float]]]
"""``(list[DatumTensors], list[torch.Tensor]) -> (loss, metrics)``."""

Differentiate = Callable[[Sequence[DatumTensors]], tuple[list[list[float]], dict[str, float]]]
"""From a forward's tensors to the weights and metrics of its ``backward``."""


def differentiator(loss: ClientLoss | str, config: Mapping[str, Any]) -> Differentiate:
    """From tensors to the weights and metrics of a ``backward``, by *loss* with *config*.

    Raises:
        ConfigError: torch is not installed, or there is no such loss.
    """
    try:
        from hud_orchestrator.losses.client.differentiate import weights_of
        from hud_orchestrator.losses.client.registry import resolve
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ConfigError(
            "a loss on the client's side needs torch, which is not installed: "
            "pip install 'hud-orchestrator[train]'"
        ) from error
    try:
        bound = resolve(loss, config) if isinstance(loss, str) else partial(loss, **config)
    except ValueError as error:
        raise ConfigError(str(error)) from error

    def differentiate(data: Sequence[DatumTensors]) -> tuple[list[list[float]], dict[str, float]]:
        result = weights_of(bound, data)
        return result.weights, result.metrics

    return differentiate
