"""What every section of a run file is: closed, frozen, and its own documentation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _from_home(path: Path) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111  (leaves "~nobody" as it is, where pathlib raises)


HomePath = Annotated[Path, AfterValidator(_from_home)]
"""A path in which ``~`` is the home directory, rather than a directory of that name."""


class Section(BaseModel):
    """A closed, frozen part of the run file; attribute docstrings become the JSON Schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
