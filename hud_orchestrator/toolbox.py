"""Tools between an environment and an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """A tool that an environment offers."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    """A JSON schema of its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """What a tool answered."""

    content: Sequence[Mapping[str, Any]]
    """Parts: ``{"type": "text", "text"}`` or ``{"type": "image", "data", "mimeType"}``."""
    is_error: bool = False

    @classmethod
    def error(cls, text: str) -> ToolResult:
        """An error for the model to read."""
        return cls(content=[{"type": "text", "text": text}], is_error=True)
