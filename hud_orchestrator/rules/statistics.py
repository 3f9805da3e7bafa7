"""What attempts say about a policy, and how surely: means with their intervals, and pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

LEVEL = 0.95
"""How often an interval holds the true mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean and its confidence interval."""

    mean: float
    interval: tuple[float, float] | None
    """``None`` where a single value says nothing about spread."""
    count: int
    """Values that it is the mean of."""
    clusters: int
    """Clusters that they are in."""


def clustered_mean(clusters: Sequence[Sequence[float]], *, level: float = LEVEL) -> Estimate | None:
    """The mean of all values, and an interval that knows which of them belong together.

    Attempts at one task are alike, so ten attempts at each of five tasks say less than fifty tasks do.
    The standard error adds deviations up inside each cluster before it squares them::

        SE^2 = C / (C - 1) * sum_c (sum_i (x_ci - mean))^2 / N^2

    and the interval is the mean plus and minus SE times Student's t with C - 1 degrees of freedom. With
    one cluster its values are taken for independent ones.

    Args:
        clusters: the values of each cluster, for example the rewards of each task. Empty ones do not count.
        level: the share of such intervals that hold the true mean, between 0 and 1.

    Returns:
        ``None`` when there are no values.

    Source:
        Miller, Adding Error Bars to Evals, arXiv:2411.00640, section 2.2, which has no factor
        C / (C - 1) and uses the normal distribution: for thousands of questions. Rewards that are all
        equal give an interval of no width, which is too narrow.
    """
    filled = [list(cluster) for cluster in clusters if cluster]
    values = [value for cluster in filled for value in cluster]
    if not values:
        return None
    mean = fmean(values)
    apart = filled if len(filled) > 1 else [[value] for value in values]
    count = len(apart)
    interval = None
    if count > 1:
        deviations = (math.fsum(value - mean for value in cluster) for cluster in apart)
        squares = math.fsum(deviation**2 for deviation in deviations)
        error = math.sqrt(count / (count - 1) * squares) / len(values)
        reach = t_quantile((1 + level) / 2, count - 1) * error
        interval = mean - reach, mean + reach
    return Estimate(mean=mean, interval=interval, count=len(values), clusters=len(filled))


def pass_at_k(attempts: int, solved: int, k: int) -> float:
    """The chance that at least one of *k* attempts solves a task, of which *attempts* were made.

    Unbiased: 1 - C(attempts - solved, k) / C(attempts, k), the share of all choices of k attempts in which
    one has solved it. The obvious 1 - (1 - solved / attempts)^k is too low.

    Raises:
        ValueError: fewer than *k* attempts were made, or more solved it than that.

    Source:
        Chen et al., Evaluating Large Language Models Trained on Code, arXiv:2107.03374, section 2.1.
    """
    if not (1 <= k <= attempts and 0 <= solved <= attempts):
        raise ValueError(f"pass@{k} of {solved} solved in {attempts} attempts is not defined")
    return 1.0 - math.comb(attempts - solved, k) / math.comb(attempts, k)


def t_quantile(share: float, freedom: int) -> float:
    """The value that Student's t with *freedom* degrees stays below with the chance *share*.

    Exact for 1 and 2 degrees of freedom; else the expansion around the normal quantile, within 1 percent
    for shares from 0.005 to 0.995.

    Source:
        Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        return (2 * share - 1) / math.sqrt(2 * share * (1 - share))
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
