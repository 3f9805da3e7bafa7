"""The losses built into the local service, and the numbers each of them takes."""

from __future__ import annotations

COMMON_KEYS = frozenset({"advantage_std"})
"""Keys of ``trainer.loss_config`` that every loss takes."""

LOSS_KEYS: dict[str, frozenset[str]] = {
    "cross_entropy": frozenset(),
    "importance_sampling": frozenset(),
    "ppo": frozenset({"clip_low_threshold", "clip_high_threshold"}),
    "cispo": frozenset({"clip_low_threshold", "clip_high_threshold"}),
    "dro": frozenset({"beta"}),
}
"""Further keys of each loss."""


def is_group_relative(loss: str) -> bool:
    """Whether a group's members are compared with one another, so that equal rewards carry no gradient.

    A name that only HUD's service knows counts as group-relative: all but ``cross_entropy`` are.
    """
    return loss != "cross_entropy"
