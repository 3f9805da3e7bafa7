"""Numbers in an answer, with a tolerance."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Literal

_MINUS = "\u2212"
"""The typographic minus sign, which models like to write."""

_NUMBER = re.compile(
    r"(?<![\w.])"  # not in the middle of a word or of another number
    rf"(?:(?<![\w)\]])[-+{_MINUS}])?"  # "3-5" has no minus five
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))"
    r"(?:\.\d+)?"
    r"(?:[eE][-+]?\d{1,3})?"
    r"(?!\w)"
)


def numeric(
    answer: str | None,
    expected: float | str | Decimal,
    *,
    absolute: float = 0.0,
    relative: float = 1e-9,
    which: Literal["last", "first", "only"] = "last",
) -> float:
    """1.0 if the number in *answer* is close enough to *expected*, else 0.0.

    Close enough is ``|found - expected| <= max(absolute, relative * |expected|)``.

    Args:
        answer: what the agent said, words and units around the number included. ``1,234.5``, ``-3``, ``.5``
            and ``6e23`` are numbers; ``3-5`` is two.
        expected: the right number; as text, ``"0.1"``, it is not rounded to binary.
        absolute: largest difference, in the units of the number.
        relative: largest difference as a share of *expected*.
        which: the number that counts where there are several. ``only``: several are worth nothing.

    Raises:
        ValueError: *expected* is not a finite number, or a tolerance is negative.
    """
    try:
        wanted = Decimal(str(expected).strip())
    except InvalidOperation:
        raise ValueError(f"expected is {expected!r}, which is no number") from None
    if not wanted.is_finite():
        raise ValueError(f"expected is {expected!r}, which is not a finite number")
    if absolute < 0 or relative < 0:
        raise ValueError(f"a tolerance is negative: absolute {absolute:g}, relative {relative:g}")
    found = _numbers(answer or "")
    if not found or (which == "only" and len(found) > 1):
        return 0.0
    given = found[0] if which == "first" else found[-1]
    allowed = max(Decimal(str(absolute)), Decimal(str(relative)) * abs(wanted))
    return float(abs(given - wanted) <= allowed)


def _numbers(text: str) -> list[Decimal]:
    return [Decimal(found.group().replace(",", "").replace(_MINUS, "-")) for found in _NUMBER.finditer(text)]
