"""Client-side losses by name, and a name with its settings bound to one loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import Tensor

from hud_orchestrator.config.spelling import suggestion
from hud_orchestrator.losses.client.cispo import cispo
from hud_orchestrator.losses.client.dapo import dapo
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.client.double_sided import double_sided
from hud_orchestrator.losses.client.dr_grpo import dr_grpo
from hud_orchestrator.losses.client.dro import dro
from hud_orchestrator.losses.client.gspo import gspo
from hud_orchestrator.losses.client.icepop import icepop
from hud_orchestrator.losses.client.importance_sampling import importance_sampling
from hud_orchestrator.losses.client.named import import_loss, settings_of
from hud_orchestrator.losses.client.ppo import ppo
from hud_orchestrator.losses.client.settings import check
from hud_orchestrator.losses.client.tis import tis


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLoss:
    """A loss with its settings. It is called as ``loss(data, logprobs)``."""

    name: str
    function: Callable[..., tuple[Tensor, dict[str, float]]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Every keyword of one of ours, with the value it has when left out."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The keywords it is called with."""

    def __call__(
        self, data: Sequence[DatumTensors], logprobs: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss and its metrics."""
        return self.function(data, logprobs, **self.config)


def _ours(function: Callable[..., tuple[Tensor, dict[str, float]]]) -> ClientLoss:
    defaults = settings_of(function.__name__, function) or {}
    return ClientLoss(name=function.__name__, function=function, defaults=MappingProxyType(defaults))


CLIENT_LOSSES: Mapping[str, ClientLoss] = {
    loss.name: loss
    for loss in map(
        _ours,
        (importance_sampling, ppo, cispo, tis, icepop, double_sided, dro, dapo, dr_grpo, gspo),
    )
}
"""Every loss here, by name, with its defaults."""


def resolve(name: str, config: Mapping[str, Any]) -> ClientLoss:
    """Find a loss, and bind *config* to it.

    Args:
        name: one of ``CLIENT_LOSSES``, or ``package.module:function`` of the user's own.
        config: keyword arguments of the loss.

    Raises:
        ValueError: there is no such loss, it does not take a key of *config* or needs one that is
            missing, or a value of ours is out of range.
    """
    if ":" in name:
        function = import_loss(name)
        _check_keys(name, config, settings_of(name, function))
        return ClientLoss(name=name, function=function, config=dict(config))
    if name not in CLIENT_LOSSES:
        raise ValueError(
            f'"{name}" is not a loss on the client\'s side; allowed: {", ".join(CLIENT_LOSSES)}, or '
            f"package.module:function{suggestion(name, CLIENT_LOSSES)}"
        )
    loss = CLIENT_LOSSES[name]
    _check_keys(name, config, loss.defaults)
    check(**{**loss.defaults, **config})
    return ClientLoss(name=name, function=loss.function, defaults=loss.defaults, config=dict(config))


def _check_keys(name: str, config: Mapping[str, Any], takes: Mapping[str, Any] | None) -> None:
    if takes is None:
        return
    for key in config:
        if key not in takes:
            allowed = ", ".join(takes) or "none"
            raise ValueError(f'loss "{name}" takes no "{key}"; its keys: {allowed}{suggestion(key, takes)}')
    for key, default in takes.items():
        if default is inspect.Parameter.empty and key not in config:
            raise ValueError(f'loss "{name}" needs "{key}"')
