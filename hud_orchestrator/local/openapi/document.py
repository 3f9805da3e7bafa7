"""The OpenAPI document of an application, made of its endpoints and of the types that they name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema
from starlette.routing import BaseRoute

from hud_orchestrator import __version__
from hud_orchestrator.local.openapi.endpoint import Endpoint, Query
from hud_orchestrator.local.openapi.replies import Detail, OpenAIErrorBody
from hud_orchestrator.wire import KEEP_CHECKPOINTS
from hud_orchestrator.wire_writer import FENCING_TOKEN

_SECURITY = "key"

_ABOUT = """\
The embedded training service of hud_orchestrator: catalog, training, chat completions, reporting.

Every refusal is one clear line in `detail`, and changed nothing that it does not name. A status of 500 is
in no operation: it is a bug, and its `detail` says which. A path that is not here is answered 404, and a
method that a path does not have 405 with `Allow`; where there is a GET there is also a HEAD. Only what is
no HTTP at all is answered 400 in plain text."""

_MEANINGS = {
    400: "The request is not understood or cannot be rendered.",
    401: "The key is missing or wrong.",
    404: "Something that the request names does not exist, or no longer.",
    409: "The request does not fit to what has happened before, or numbers are not finite.",
    410: "The checkpoint was pruned.",
    413: "The body is too long.",
    422: "The request is not understood, or asks for what cannot be.",
    503: "Busy, when there is a Retry-After; the service is stopping, when there is none.",
    507: "It could not be written to disk.",
}

_REPLY_HEADERS = {
    401: {"WWW-Authenticate": {"description": "The scheme of the key.", "schema": {"const": "Bearer"}}},
    409: {
        FENCING_TOKEN: {
            "description": "The newest token of the model's lease, which is the reason.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        }
    },
    503: {
        "Retry-After": {
            "description": "Seconds after which there may be room.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        }
    },
}

_REQUEST_HEADERS = {
    FENCING_TOKEN: "The token of the model's lease. While somebody has the lease, calls without it are "
    "refused, and an older one is refused for ever.",
    KEEP_CHECKPOINTS: "Ids of checkpoints, with commas between them, that are not pruned after this step, "
    "whatever the service's settings say.",
    "Idempotency-Key": "Makes a repetition harmless: a call with the key and body of an earlier one that "
    "succeeded, or still runs, gets its reply. With another body it is answered 409.",
    "Trace-Id": "The rollout that the completion belongs to. What was sampled is kept under it, so that "
    "training can name it.",
}

_EVENT = {
    "type": "object",
    "description": "Of each event. Its data is OpenAI's chat.completion.chunk as JSON, or an error after "
    "which nothing comes, or at the end [DONE].",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}


def describe(routes: Iterable[BaseRoute], *, openai_paths: Sequence[str] = ()) -> dict[str, Any]:
    """The document.

    Args:
        routes: each of them an ``Endpoint``.
        openai_paths: those whose refusals have OpenAI's shape beside our own.
    """
    endpoints = [_endpoint(route) for route in routes]
    schemas = _Schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        error = OpenAIErrorBody if one.path in openai_paths else Detail
        paths.setdefault(one.path, {})[one.method] = _operation(one, schemas, error)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hud-orchestrator", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                _SECURITY: {"type": "http", "scheme": "bearer", "description": "HUD_API_KEY"}
            },
        },
    }


class _Generator(GenerateJsonSchema):
    """Replies have exactly the keys that their models have; names are as a reader would write them."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Close what is written."""
        found = super().model_schema(schema)
        if self.mode == "serialization":
            found["additionalProperties"] = False
        return found

    def normalize_name(self, name: str) -> str:
        """Private classes have public shapes."""
        return super().normalize_name(name).lstrip("_")

    def get_title_from_name(self, name: str) -> str:
        """The name itself."""
        return name


class _Schemas:
    """The JSON schemas of every type that the endpoints name."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        read = [one.body for one in endpoints if one.body is not None]
        written = [*(one.reply for one in endpoints), Detail, OpenAIErrorBody]
        inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
            *((repr(kind), "validation", TypeAdapter(kind)) for kind in dict.fromkeys(read)),
            *((repr(kind), "serialization", TypeAdapter(kind)) for kind in dict.fromkeys(written)),
        ]
        self._found, definitions = TypeAdapter.json_schemas(
            inputs, ref_template="#/components/schemas/{model}", schema_generator=_Generator
        )
        self.components: dict[str, Any] = definitions["$defs"]

    def read(self, kind: Any) -> JsonSchemaValue:
        """The schema of a request's body."""
        return self._found[repr(kind), "validation"]

    def written(self, kind: Any) -> JsonSchemaValue:
        """The schema of a reply."""
        return self._found[repr(kind), "serialization"]


def _operation(one: Endpoint, schemas: _Schemas, error: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": one.operation_id,
        "summary": one.summary,
        "security": [{_SECURITY: []}] if one.keyed else [],
        "parameters": _parameters(one),
        "responses": {"200": _success(one, schemas)}
        | {str(status): _refusal(status, schemas.written(error)) for status in one.statuses},
    }
    if one.body is not None:
        content = {"application/json": {"schema": schemas.read(one.body)}}
        found["requestBody"] = {"required": one.body is not Any, "content": content}
    return found


def _parameters(one: Endpoint) -> list[dict[str, Any]]:
    return [
        *(
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in one.param_convertors
        ),
        *(_query(parameter) for parameter in one.query),
        *(
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in _REQUEST_HEADERS.items()
            if name in one.headers
        ),
    ]


def _query(parameter: Query) -> dict[str, Any]:
    number = {"type": "integer", "minimum": 0}
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.text,
        "required": parameter.required,
        "schema": number if parameter.kind is int else {"type": "string"},
    }


def _success(one: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schemas.written(one.reply)}}
    if one.streams:
        content["text/event-stream"] = {"schema": _EVENT}
    return {"description": "Done.", "content": content}


def _refusal(status: int, schema: JsonSchemaValue) -> dict[str, Any]:
    found = {"description": _MEANINGS[status], "content": {"application/json": {"schema": schema}}}
    return found | ({"headers": _REPLY_HEADERS[status]} if status in _REPLY_HEADERS else {})


def _endpoint(route: BaseRoute) -> Endpoint:
    assert isinstance(route, Endpoint), f"{route} says nothing about itself: make it an Endpoint"
    return route
