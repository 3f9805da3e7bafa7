"""Turn the few marks of reStructuredText in our docstrings into Markdown before pages are made of them."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|data|func|meth):`~?([^`]+)`")
LITERAL = re.compile(r"^( *)(.*?) ?::$", re.MULTILINE)
TREE = re.compile(r"^(?=\S)(?:.*\n)(?:(?:\+--|\|).*(?:\n|$))+", re.MULTILINE)


class Marks(griffe.Extension):
    """Rewrites every docstring once."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of *obj*, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Roles become code, ``::`` becomes ``:``, and a drawn tree becomes a block of code."""
    text = ROLE.sub(lambda found: f"`{found[1].rsplit('.', 1)[-1]}`", text)
    text = LITERAL.sub(lambda found: f"{found[1]}{found[2]}:" if found[2] else "", text)
    return TREE.sub(lambda found: "".join(f"    {line}\n" for line in found[0].splitlines()), text)
