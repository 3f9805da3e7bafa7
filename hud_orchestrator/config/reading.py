"""From a file to a text, and from a text to a document."""

from __future__ import annotations

from pathlib import Path

import yaml

from hud_orchestrator.config.document import Document, Unreadable
from hud_orchestrator.config.mistakes import START, Mistake, Place
from hud_orchestrator.config.scalars import Loader
from hud_orchestrator.config.walk import Walk


def read_text(path: Path) -> str:
    """Read the content of *path*.

    Raises:
        Unreadable: it cannot be read, or is not UTF-8.
    """
    try:
        return _decoded(path.read_bytes())
    except FileNotFoundError:
        text = 'there is no such file; "hud-orchestrate init" writes one'
    except IsADirectoryError:
        text = "this is a directory; name the run file in it"
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
    raise Unreadable(Mistake(START, (), text))


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = Place(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        text = f"not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        raise Unreadable(Mistake(place, (), text)) from None


def read_document(text: str) -> Document:
    """Parse *text*; mistakes of single keys are collected.

    Raises:
        Unreadable: the text is not YAML, or stands for more values than a run file can have.
    """
    try:
        node = yaml.compose(text, Loader=Loader)
        walk = Walk()
        if node is not None:
            walk.document.data = walk.value(node, ())
    except yaml.MarkedYAMLError as error:
        raise Unreadable(_syntax(error)) from None
    except yaml.reader.ReaderError as error:
        before = text[: int(error.position)]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise Unreadable(
            Mistake(place, (), f"not YAML: it has the character #x{ord(text[len(before)]):04x}")
        ) from None
    except RecursionError:
        raise Unreadable(Mistake(START, (), "not a run file: nested too deeply")) from None
    return walk.document


def _syntax(error: yaml.MarkedYAMLError) -> Mistake:
    mark = error.problem_mark or error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else START
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    hint = "; indent with spaces" if "\\t" in problem else ""
    return Mistake(place, (), f"not YAML: {problem}{hint}")
