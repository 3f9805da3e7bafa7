"""Hold the policy near the one that sampled: a penalty that any loss here can take along."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor


def kl_estimates(moved: Tensor, *, estimator: str) -> Tensor:
    """Estimate ``KL(q || pi)`` token by token, for its gradient.

    With ``d = log pi - log q`` at a token that q sampled::

        k1 = -d                 d k1 / d log pi = -1            unbiased value, unbiased gradient
        k2 = d^2 / 2            d k2 / d log pi = d             biased value, biased gradient
        k3 = exp(d) - 1 - d     d k3 / d log pi = exp(d) - 1    unbiased value, unbiased gradient

    The tokens come from q, which does not depend on the parameters. So wherever the *value* is unbiased
    under q, differentiating token by token gives an unbiased gradient of ``KL(q || pi)``: for k1 and k3.
    That is unlike a penalty towards a reference on samples of pi itself, where the distribution moves
    too and k1's gradient is zero on average, whatever the divergence.

    k1's gradient pulls up every sampled token alike, also where pi equals q and it cancels only on
    average: pure noise on-policy. k3's is zero there token by token, and of far lower variance nearby,
    but grows with the ratio. (In floats it is about 1e-7 there: if a step is taken on nothing else, Adam
    makes a full-sized one of it.) k2's is k3's to first order, grows only with the log-ratio, and points
    along ``KL(pi || q)`` where pi is near q; it is the one to take when ratios are wild.

    Args:
        moved: log pi - log q at sampled tokens, in nats. Any shape.
        estimator: ``k1``, ``k2`` or ``k3``.

    Returns:
        Estimates in nats, in the shape of *moved*.

    Raises:
        ValueError: there is no such estimator.

    Source:
        Schulman, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html), for the estimators'
        values; Tang and Munos, arXiv:2506.09477, for how their gradients differ from them. Departure:
        the reference is the sampling policy, not a frozen initial one, which a forward does not give.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"kl_estimator must be one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    return ESTIMATORS[estimator](moved)


def _k1(moved: Tensor) -> Tensor:
    return -moved


def _k2(moved: Tensor) -> Tensor:
    return 0.5 * moved.square()


def _k3(moved: Tensor) -> Tensor:
    return moved.exp() - 1 - moved


ESTIMATORS: Mapping[str, Callable[[Tensor], Tensor]] = {"k1": _k1, "k2": _k2, "k3": _k3}
"""From log pi - log q to an estimate, by name."""
