"""A YAML text as plain values, and the place of every one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from hud_orchestrator.config.mistakes import START, KeyPath, Mistake, Place
from hud_orchestrator.config.scalars import MERGE, Loader, scalar

MOST_VALUES = 10_000
"""Aliases of aliases can make a small file stand for billions of values; a run file has about eighty."""

_FROM_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")

Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


@dataclass(slots=True)
class Document:
    """Values of one YAML text; ``keys`` and ``values`` say where each path's key and value stand."""

    data: Any = None
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def nearest(self, path: KeyPath) -> Place:
        """Find the key at *path*, else the section around it, else the top of the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.keys:
                return self.keys[path[:length]]
        return START


class Unreadable(Exception):  # noqa: N818  (named for the event, as in errors.py)
    """The text as a whole is no YAML that can be walked."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.text)
        self.mistake = mistake


def read_document(text: str) -> Document:
    """Parse *text*; mistakes of single keys are collected.

    Raises:
        Unreadable: the text is not YAML, or stands for more values than a run file can have.
    """
    try:
        node = yaml.compose(text, Loader=Loader)
        walk = _Walk()
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


class _Walk:
    """Turns nodes into values, and notes the places and mistakes on the way."""

    def __init__(self) -> None:
        self.document = Document()
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        if len(self.document.values) >= MOST_VALUES:
            raise Unreadable(Mistake(_place(node), (), f"not a run file: more than {MOST_VALUES} values"))
        self.document.values[path] = _place(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise Unreadable(Mistake(_place(node), path, "an anchor that contains itself has no value"))
        self._open.add(id(node))
        try:
            return self._collection(node, path)
        finally:
            self._open.discard(id(node))

    def _collection(self, node: yaml.Node, path: KeyPath) -> Any:
        if not node.tag.endswith((":map", ":seq")):
            self._mistake(node, path, f"the tag {node.tag} is not taken here; write the plain value")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        values = {}
        for key, (key_node, value_node) in self._pairs(node, path).items():
            self.document.keys[(*path, key)] = _place(key_node)
            values[key] = self.value(value_node, (*path, key))
        return values

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            value = scalar(node)
        except ValueError:
            # The text itself stays out of the message: it may be a secret in the wrong place.
            self._mistake(node, path, f"does not fit its tag {node.tag}; write a plain value")
            return None
        if isinstance(value, str):
            self._refuse_environment(value, node, path)
        return value

    def _pairs(self, node: yaml.Node, path: KeyPath) -> Pairs:
        """Collect the keys of a mapping; what ``<<`` merges in gives way to what is written out."""
        written: Pairs = {}
        merged: Pairs = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in written or (key_node.tag == MERGE and merged):
                self._mistake(key_node, (*path, key), "stands here twice; YAML would keep only the last one")
            elif key_node.tag == MERGE:
                merged = self._merged(value_node, path)
            else:
                written[key] = (key_node, value_node)
        return merged | written

    def _merged(self, node: yaml.Node, path: KeyPath) -> Pairs:
        pairs: Pairs = {}
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if not isinstance(source, yaml.MappingNode) or id(source) in self._open:
                self._mistake(
                    node, (*path, "<<"), "merges mappings only; write <<: *name of an anchored mapping"
                )
                continue
            self._open.add(id(source))
            pairs = self._pairs(source, path) | pairs
            self._open.discard(id(source))
        return pairs

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._mistake(node, path, "a key is a single word, not a list or a mapping")
            return None
        self._refuse_environment(node.value, node, path)
        return str(node.value)

    def _refuse_environment(self, text: str, node: yaml.Node, path: KeyPath) -> None:
        found = _FROM_ENVIRONMENT.search(text)
        if found:
            self._mistake(
                node,
                path,
                f"${{{found[1]}}} is not filled in: a run file takes no values from the environment; "
                f"write the value here or give it with --set; secrets such as HUD_API_KEY never stand here",
            )

    def _mistake(self, node: yaml.Node, path: KeyPath, text: str) -> None:
        self.document.mistakes.append(Mistake(_place(node), path, text))


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)
