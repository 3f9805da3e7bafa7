"""Every row of "What happens when ..." names a test that there is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.docs.blocks import PAGES

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?!what happens \||---)", re.MULTILINE)
SHOWN = re.compile(r"\| `([\w/]+\.py)::(test_\w+)` \|$")


@cache
def defined_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_fault_has_a_test_that_shows_what_happens() -> None:
    lines = (PAGES / "what-happens-when.md").read_text().splitlines()
    rows = [line for line in lines if ROW.match(line) and not line.startswith("|---")]
    assert len(rows) > 50

    unproved = []
    for row in rows:
        shown = SHOWN.search(row)
        if shown is None or shown[2] not in defined_in(shown[1]):
            unproved.append(row)
    assert unproved == []
