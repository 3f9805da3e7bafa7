"""What every section of a run file is: closed, frozen, and its own documentation."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema


def _from_home(path: Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111  (leaves "~nobody" as it is, where pathlib raises)


HomePath = Annotated[Path, AfterValidator(_from_home)]
"""A path in which ``~`` is the home directory, rather than a directory of that name."""


def _plain(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and math.isnan(value)):
        raise ValueError("not a plain value")
    return value


def _wanted(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list) and value else _plain(value)


_PLAIN = {"type": ["number", "boolean", "string"]}

PlainValue = Annotated[Any, AfterValidator(_plain), WithJsonSchema(_PLAIN)]
"""A number, ``true``, ``false`` or text."""

WantedValue = Annotated[
    Any,
    AfterValidator(_wanted),
    WithJsonSchema({"anyOf": [_PLAIN, {"type": "array", "items": _PLAIN, "minItems": 1}]}),
]
"""A plain value that something has to have, or a list of those that it may have."""


class Section(BaseModel):
    """A closed, frozen part of the run file; attribute docstrings become the JSON Schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
