"""The losses that a run file can name, which side computes each, and the values that they take."""

from __future__ import annotations

from collections.abc import Mapping

COMMON_KEYS = frozenset({"advantage_std"})
"""Keys of ``trainer.loss_config`` that every loss of the local service takes."""

LOSS_KEYS: dict[str, frozenset[str]] = {
    "cross_entropy": frozenset(),
    "importance_sampling": frozenset(),
    "ppo": frozenset({"clip_low_threshold", "clip_high_threshold"}),
    "cispo": frozenset({"clip_low_threshold", "clip_high_threshold"}),
    "dro": frozenset({"beta"}),
}
"""Losses built into the local service, and the further keys of each."""

_SHARED = frozenset({"advantage", "kl", "kl_estimator"})

CLIENT_LOSS_KEYS: dict[str, frozenset[str]] = {
    "importance_sampling": _SHARED,
    "ppo": _SHARED | {"eps_low", "eps_high", "dual_clip"},
    "cispo": _SHARED | {"clip_low_threshold", "clip_high_threshold"},
    "tis": _SHARED | {"ratio_cap"},
    "icepop": _SHARED | {"mask_below", "mask_above"},
    "double_sided": _SHARED | {"eps_low", "eps_high"},
    "dro": _SHARED | {"beta"},
    "dapo": _SHARED | {"eps_low", "eps_high"},
    "dr_grpo": _SHARED | {"eps_low", "eps_high", "max_tokens"},
    "gspo": _SHARED | {"eps_low", "eps_high"},
}
"""Losses of ours that the daemon computes, and the keys of each."""

CLIENT = "client:"
"""Before a name: ours, computed in the daemon, where the service has one of the same name too."""


def client_loss(loss: str) -> str | None:
    """The loss that the daemon computes itself, ``None`` for one that the service computes.

    ``package.module:function`` is somebody's own; ``client:ppo`` is ours although the service has a ``ppo``.
    """
    if ":" in loss:
        return loss.removeprefix(CLIENT)
    return loss if loss in CLIENT_LOSS_KEYS and loss not in LOSS_KEYS else None


def is_group_relative(loss: str, config: Mapping[str, object]) -> bool:
    """Whether a group's members are compared with one another, so that equal rewards carry no gradient.

    A name that only HUD's service knows counts as group-relative, and so does somebody's own loss: all
    but imitation are.
    """
    return loss != "cross_entropy" and config.get("advantage") != "plain"
