"""Flatten a forward's datums to its action tokens, and check them on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hud_orchestrator.losses.client.advantages import datum_advantages
from hud_orchestrator.losses.client.data import DatumTensors
from hud_orchestrator.losses.unusable import LossNotFinite


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """The N action tokens of all datums, datum by datum. All floats have the dtype of the leaves."""

    logprobs: Tensor
    """Log pi, in nats, connected to the leaves. Shape [N]."""
    sampling_logprobs: Tensor
    """Log q, in nats. Shape [N]."""
    advantages: Tensor
    """The advantage of each token's trajectory, in units of reward. Shape [N]."""
    trajectories: Tensor
    """Which of the S trajectories each token is of, counted from 0. Shape [N], int64."""
    lengths: Tensor
    """Action tokens of each trajectory, at least 1, but 0 when it has none. Shape [S]."""

    @property
    def moved(self) -> Tensor:
        """``log pi - log q``, in nats: how far each token has moved since sampling. Shape [N]."""
        return self.logprobs - self.sampling_logprobs

    @property
    def num_trajectories(self) -> int:
        """S, those without an action token included."""
        return len(self.lengths)


def read_tokens(data: Sequence[DatumTensors], logprobs: Sequence[Tensor], *, advantage: str) -> Tokens:
    """The action tokens of *data*, with the advantage of each.

    Positions of mask 0 are left out before anything is computed, so nothing they hold can matter; the
    leaves get a gradient of exactly 0 there.

    Args:
        data: D datums.
        logprobs: log pi, in nats. D tensors of shape [T], of one floating-point dtype.
        advantage: see ``advantages``.

    Raises:
        ValueError: lengths disagree, a mask is neither 0 nor 1, a log-probability or a reward is not
            finite, no token is an action, or see ``advantages``.
    """
    if len(data) != len(logprobs) or not data:
        raise ValueError(f"there are {len(data)} datums and {len(logprobs)} logprobs; both must be 1 or more")
    for number, (datum, leaf) in enumerate(zip(data, logprobs, strict=True)):
        _check_lengths(number, datum, leaf)
    flat = torch.cat(list(logprobs))
    mask = torch.cat([flat.new_tensor(datum.mask) for datum in data])
    sampling = torch.cat([flat.new_tensor(datum.sampling_logprobs) for datum in data])
    widths = [len(leaf) for leaf in logprobs]
    _check("mask", mask, (mask == 0) | (mask == 1), "0 or 1", widths)
    observed = mask == 0
    _check("logprobs", flat, flat.isfinite() | observed, "a finite number", widths, LossNotFinite)
    _check("sampling_logprobs", sampling, sampling.isfinite() | observed, "a finite number", widths)
    actions = mask.nonzero()[:, 0]
    if not len(actions):
        raise ValueError(f"none of {len(mask)} positions in {len(data)} datums is an action: every mask is 0")
    datum_of = torch.repeat_interleave(torch.tensor(widths, device=flat.device))[actions]
    order = {index: rank for rank, index in enumerate(dict.fromkeys(datum.traj_idx for datum in data))}
    trajectories = torch.tensor([order[datum.traj_idx] for datum in data], device=flat.device)[datum_of]
    return Tokens(
        logprobs=flat[actions],
        sampling_logprobs=sampling[actions],
        advantages=flat.new_tensor(datum_advantages(data, advantage=advantage))[datum_of],
        trajectories=trajectories,
        lengths=torch.bincount(trajectories, minlength=len(order)).to(flat.dtype),
    )


def _check_lengths(number: int, datum: DatumTensors, leaf: Tensor) -> None:
    if leaf.dim() != 1 or not leaf.is_floating_point():
        raise ValueError(
            f"datum {number}: logprobs must be floating-point of shape [T], "
            f"got {leaf.dtype} of shape {tuple(leaf.shape)}"
        )
    for name in ("mask", "sampling_logprobs"):
        length = len(getattr(datum, name))
        if length != len(leaf):
            raise ValueError(f"datum {number}: logprobs have length {len(leaf)}, {name} has {length}")
    if not math.isfinite(datum.reward):
        raise ValueError(f"datum {number}: reward must be a finite number, got {datum.reward}")


def _check(
    name: str,
    values: Tensor,
    fine: Tensor,
    wanted: str,
    widths: Sequence[int],
    kind: type[ValueError] = ValueError,
) -> None:
    """Name the first position that is not *fine*, in an error of that *kind*."""
    if bool(fine.all()):
        return
    flat = int((~fine).nonzero()[0])
    number, position = place(flat, widths)
    raise kind(
        f"datum {number}, position {position}: {name} must be {wanted}, got {float(values[flat].detach())}"
    )


def place(flat: int, widths: Sequence[int]) -> tuple[int, int]:
    """The datum and the position in it of an index into all datums' positions, one after the other."""
    for number, width in enumerate(widths):
        if flat < width:
            return number, flat
        flat -= width
    raise IndexError(flat)
