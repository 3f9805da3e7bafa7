"""Why nothing can be sent of a loss that a client computes; apart, so that it is known without torch."""

from __future__ import annotations


class LossUnusable(ValueError):
    """A loss that raised, or whose result is no gradient that could be sent. Nothing was sent."""


class LossNotFinite(LossUnusable):
    """A loss of which the value or the gradient is not finite."""
