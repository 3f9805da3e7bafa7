"""Answers as text: the same as expected, or of an expected form."""

from __future__ import annotations

import re


def exact(answer: str | None, expected: str, *, strip: bool = True, ignore_case: bool = False) -> float:
    """1.0 if *answer* is *expected*, else 0.0.

    Args:
        answer: what the agent said.
        expected: what it should have said.
        strip: whether space around either does not matter.
        ignore_case: whether case does not matter, as Unicode folds it.
    """
    if answer is None:
        return 0.0
    pair = [answer, expected]
    if strip:
        pair = [text.strip() for text in pair]
    if ignore_case:
        pair = [text.casefold() for text in pair]
    return float(pair[0] == pair[1])


def regex(answer: str | None, pattern: str | re.Pattern[str], *, whole: bool = False) -> float:
    """1.0 if *pattern* is found in *answer*, else 0.0.

    A pattern with nested repetitions can take for ever on an answer that is made for it; the deadline of the
    attempt ends it then.

    Args:
        answer: what the agent said.
        pattern: a regular expression; flags go into it, ``(?i)yes``.
        whole: whether it must match the answer from its first to its last character.

    Raises:
        re.error: *pattern* is no regular expression.
    """
    compiled = re.compile(pattern)
    if answer is None:
        return 0.0
    found = compiled.fullmatch(answer) if whole else compiled.search(answer)
    return float(found is not None)
