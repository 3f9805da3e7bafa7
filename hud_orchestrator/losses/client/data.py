"""What a client-side loss is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor


class DatumTensors(Protocol):
    """One turn, token by token: of ``hud_orchestrator.wire``, of HUD's SDK, or of a test's own.

    The three lists have one common length T. Position t is about the token at t + 1 of the turn's
    prompt and output.
    """

    @property
    def reward(self) -> float:
        """Of the whole trajectory. Every datum of the trajectory has the same."""
        ...

    @property
    def traj_idx(self) -> int:
        """The trajectory; several datums share it when there were several turns."""
        ...

    @property
    def group_idx(self) -> int | None:
        """The trajectory's group; ``None``: the whole batch is one."""
        ...

    @property
    def logprobs(self) -> Sequence[float]:
        """Log pi at the moment of the forward, in nats. Shape [T]."""
        ...

    @property
    def sampling_logprobs(self) -> Sequence[float]:
        """Log q, in nats; anything where the mask is 0. Shape [T]."""
        ...

    @property
    def mask(self) -> Sequence[float]:
        """1 on tokens that the policy chose, 0 elsewhere. Shape [T]."""
        ...


Loss = Callable[[list[Any], list[Tensor]], tuple[Tensor, Mapping[str, Any]]]
"""``loss(data, logprobs) -> (loss, metrics)``, as HUD's SDK calls it.

*data* are D datums; *logprobs* are D float32 leaves that require grad, each of shape [T]: log pi, in
nats. The loss is a scalar to minimise; the metrics are numbers by name.
"""
