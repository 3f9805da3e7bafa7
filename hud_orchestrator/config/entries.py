"""A list of sections in which a plain text stands for a section with this one key."""

from __future__ import annotations

from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from hud_orchestrator.config.section import Section


class Shorthand:
    """Annotates such a list: ``train: a.py`` is ``train: [{source: a.py}]``, and is written so again."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Write texts out before the list is looked at."""
        return core_schema.no_info_before_validator_function(
            self._written_out,
            handler(kind),
            serialization=core_schema.plain_serializer_function_ser_schema(self._shortened),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        """Let a text stand for a section, and for a list of one."""
        written = handler(schema)
        text = {"type": "string"}
        return {"anyOf": [text, {**written, "items": {"anyOf": [text, written["items"]]}}]}

    def _written_out(self, given: Any) -> Any:
        items = [given] if isinstance(given, str) else given
        if not isinstance(items, list):
            return given
        return [{self.key: item} if isinstance(item, str) else item for item in items]

    def _shortened(self, entries: list[Section]) -> Any:
        short = [
            getattr(entry, self.key)
            if entry == type(entry)(**{self.key: getattr(entry, self.key)})
            else entry.model_dump(mode="json", exclude_defaults=True)
            for entry in entries
        ]
        return short[0] if len(short) == 1 and isinstance(short[0], str) else short
