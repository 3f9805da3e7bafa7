"""The code blocks of the documentation, and what the comment before each says about running it.

    <!-- run -->              bash: in the page's directory; python: in a namespace of its own
    <!-- run with: WORDS -->  bash: with these words after its last line, to do less than a reader would
    <!-- continue -->         python: in the namespace of the block before
    <!-- file: NAME -->       written to that file; a yaml is loaded as a run file
    <!-- over: NAME -->       yaml: part of a run file, laid over the one that was written as NAME
    <!-- sdk -->              bash: with the released hud SDK, where it is set up
    <!-- skip: REASON -->     not run

Blocks of ``text`` are what something prints, or a drawing, and need no comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "pages"
KINDS = {
    "bash": {"run", "run with", "sdk", "skip"},
    "python": {"run", "continue", "file", "skip"},
    "yaml": {"file", "over", "skip"},
    "text": {""},
}
_BLOCK = re.compile(
    r"^(?:<!-- (?P<kind>[a-z ]+)(?:: (?P<word>[^\n]+?))? -->\n)?"
    r"```(?P<language>\w*)(?: title=\"(?P<title>[^\"\n]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block."""

    where: str
    language: str
    kind: str
    word: str
    title: str | None
    text: str


def pages() -> list[Path]:
    """Every page that is written by hand."""
    return sorted(PAGES.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    """The page's blocks in order."""
    source = page.read_text()
    return [
        Block(
            where=f"{page.name}:{source.count(chr(10), 0, found.start('text'))}",
            language=found["language"],
            kind=found["kind"] or "",
            word=found["word"] or "",
            title=found["title"],
            text=found["text"],
        )
        for found in _BLOCK.finditer(source)
    ]
