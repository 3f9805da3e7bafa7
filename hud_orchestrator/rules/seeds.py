"""Random streams derived from the run's seed, independent of the order in which they are used."""

from __future__ import annotations

import hashlib

SEED_BITS = 31
"""Seeds fit a signed 32-bit integer, which every service accepts."""


def derive(seed: int, *words: str | int) -> int:
    """A seed for the purpose that *words* name, in [0, 2**31)."""
    text = "/".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - SEED_BITS)
