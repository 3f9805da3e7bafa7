"""From YAML nodes to values, noting places and mistakes on the way."""

from __future__ import annotations

import re
from typing import Any

import yaml

from hud_orchestrator.config.document import Document, Unreadable
from hud_orchestrator.config.mistakes import KeyPath, Mistake, Place
from hud_orchestrator.config.scalars import MERGE, scalar

MOST_VALUES = 10_000
"""Aliases of aliases can make a small file stand for billions of values; a run file has about eighty."""

_FROM_ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")

Pairs = dict[str, tuple[yaml.Node, yaml.Node]]


class Walk:
    """One walk over the nodes of a text; what it found is in ``document``."""

    def __init__(self) -> None:
        self.document = Document()
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """Return the value of *node*, which stands at *path*."""
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
