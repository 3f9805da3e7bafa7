"""The losses on the client's side, and the settings each of them takes. Free of torch."""

from __future__ import annotations

_COMMON = frozenset({"advantage", "kl", "kl_estimator"})
_EPS = _COMMON | {"eps_low", "eps_high"}

CLIENT_LOSS_KEYS: dict[str, frozenset[str]] = {
    "importance_sampling": _COMMON,
    "ppo": _EPS | {"dual_clip"},
    "cispo": _COMMON | {"clip_low_threshold", "clip_high_threshold"},
    "tis": _COMMON | {"ratio_cap"},
    "icepop": _COMMON | {"mask_below", "mask_above"},
    "double_sided": _EPS,
    "dro": _COMMON | {"beta"},
    "dapo": _EPS,
    "dr_grpo": _EPS | {"max_tokens"},
    "gspo": _EPS,
}
"""Every key of each loss, by name; ``losses.client.registry`` has their defaults."""
