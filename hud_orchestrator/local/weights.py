"""What is trained, as immutable values: a snapshot to sample from, and the state of an optimizer.

No tensor in here is ever written to. A step makes new tensors, so that a completion may go on with
the snapshot it began with, a failed save leaves the old state as it was, and a promotion is one
assignment.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
"""Tensors by parameter name."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """One policy: values for the parameters that are trained. Those it does not name are the base's."""

    id: str
    """Checkpoint id, or ``initial:<model id>`` before the first step; replies show it as a fingerprint."""
    tensors: Tensors


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainState:
    """Everything that the next optimizer step needs but the gradient. All tensors fp32."""

    tensors: Tensors
    first_moments: Tensors
    """AdamW's running mean of gradients; empty before the first step."""
    second_moments: Tensors
    """AdamW's running mean of squared gradients; empty before the first step."""
    step: int
    """Steps taken on the way from the initial weights to here."""

    def on(self, device: torch.device) -> TrainState:
        """The same on *device*."""
        return TrainState(
            tensors={name: tensor.to(device) for name, tensor in self.tensors.items()},
            first_moments={name: tensor.to(device) for name, tensor in self.first_moments.items()},
            second_moments={name: tensor.to(device) for name, tensor in self.second_moments.items()},
            step=self.step,
        )


def fresh_state(tensors: Tensors) -> TrainState:
    """The state of a model that was never stepped."""
    return TrainState(tensors=tensors, first_moments={}, second_moments={}, step=0)


def initial_adapter(shapes: Tensors, *, seed: int, slug: str) -> dict[str, Tensor]:
    """A LoRA adapter that changes nothing yet: A uniform, B zero.

    A is drawn from U(-1/sqrt(n), 1/sqrt(n)), n the layer's input size, as peft does, but from a
    generator of its own, so that the same *seed* and *slug* give the same adapter.
    """
    digest = hashlib.sha256(f"{seed}:{slug}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    adapter = {}
    for name in sorted(shapes):
        tensor = torch.zeros(shapes[name].shape, dtype=torch.float32)
        if "lora_A" in name:
            bound = 1 / math.sqrt(tensor.shape[-1])
            tensor.uniform_(-bound, bound, generator=generator)
        adapter[name] = tensor.to(shapes[name].device)
    return adapter
