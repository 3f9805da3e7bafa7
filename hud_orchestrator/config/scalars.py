"""Which YAML scalars are numbers, booleans and nothing; every other one is text.

YAML 1.1, without what surprises people: ``1e-4`` is a number, ``10:30`` and ``2026-01-01`` are text,
``010`` is text rather than eight.
"""

from __future__ import annotations

import re

import yaml

_TAG = "tag:yaml.org,2002:"
MERGE = f"{_TAG}merge"

_PATTERNS = (
    (
        "bool",
        r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$",
        "yYnNtTfFoO",
    ),
    ("null", r"(?:~|null|Null|NULL|)$", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+)$", "-+0123456789"),
    (
        "float",
        r"(?:[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)|[-+]?(?:[0-9][0-9_]*\.[0-9_]*"
        r"|\.[0-9][0-9_]*)|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("merge", r"<<$", "<"),
)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of this module; used for its nodes, never for its objects."""

    # PyYAML appends to this table, so it needs one of its own.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _name, _pattern, _firsts in _PATTERNS:
    _first_characters = ["" if first == "\0" else first for first in _firsts]
    Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first_characters)


def scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    """Return the value of *node*.

    Raises:
        ValueError: its tag is not one of YAML's plain ones, or the text does not fit the tag.
    """
    text = node.value
    match node.tag.removeprefix(_TAG):
        case "str" | "merge":
            return _text(text)
        case "bool":
            return text.lower() in ("yes", "true", "on")
        case "null":
            return None
        case "int":
            return int(text.replace("_", ""), 0)
        case "float":
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower().replace("_", "")))
    raise ValueError(f"the tag {node.tag.replace(_TAG, '!!')}")


def _text(text: str) -> str:
    # A lone surrogate can be written nowhere, and a zero byte ends the names of files.
    text.encode()
    if "\0" in text:
        raise ValueError("a zero byte")
    return text
