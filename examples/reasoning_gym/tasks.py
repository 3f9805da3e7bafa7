"""A family of Reasoning Gym, asked so briefly that the tiny model can read it: sums of two digits.

Any other family goes the same way: another name, its options, and a prompt for your model. Without
``prompt`` the library's own question is asked, ``Calculate 6+8.``.
"""

from __future__ import annotations

from typing import Any

from hud_orchestrator.adapters.reasoning_gym import family


def briefly(item: dict[str, Any]) -> str:
    """Ask ``06+8=``: the tiny model has added to numbers of two digits before."""
    a, b = item["metadata"]["expression"].split("+")
    return f"{a:0>2}+{b}="


env, train, heldout = family(
    "basic_arithmetic",
    size=78,
    heldout=20,
    seed=0,
    prompt=briefly,
    operators=["+"],
    max_terms=2,
    max_digits=1,
    allow_parentheses=False,
    allow_negation=False,
    whitespace="no_space",
)
