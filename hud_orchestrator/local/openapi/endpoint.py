"""A route that can be described."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parameter behind the question mark."""

    name: str
    text: str
    """What it is, for the document."""
    kind: Any = int
    """A number from 0 on, or a ``str``."""
    required: bool = False


class Endpoint(Route):
    """One method on one path: how it is served, and what the document says about it.

    The two are one object, so that no route is left undescribed and nothing is described that is not there.
    """

    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[[Request], Awaitable[Response]],
        summary: str,
        *,
        reply: Any,
        body: Any = None,
        wrong: int = 422,
        refusals: Collection[int] = (),
        query: Collection[Query] = (),
        headers: Collection[str] = (),
        streams: bool = False,
        keyed: bool = True,
    ) -> None:
        """Serve *path*.

        Args:
            method: a GET also answers HEAD.
            path: with its parameters in braces; ``{id:path}`` takes slashes too.
            handler: answers the request.
            summary: one line for the document.
            reply: the type of a reply with 200; its JSON schema is in the document.
            body: the type of the request's body; ``None``: it has none, and what is sent is ignored;
                ``Any``: anything goes, also nothing.
            wrong: the status of a body or a query that is not understood.
            refusals: the other statuses it may answer; 401, 413 and *wrong* need not be listed.
            query: parameters of the query.
            headers: names of request headers that mean something here.
            streams: whether it can reply with server-sent events.
            keyed: whether it needs the key.
        """
        super().__init__(path, handler, methods=[method])
        # How a parameter is matched is no part of the path's name.
        self.path = path.replace(":path}", "}")
        self.method = method.lower()
        self.summary = summary
        self.reply = reply
        self.body = body
        self.query = tuple(query)
        self.headers = tuple(headers)
        self.streams = streams
        own = {401} if keyed else set()
        if body is not None:
            own.add(413)
        if query or body not in (None, Any):
            own.add(wrong)
        self.statuses = sorted(own | set(refusals))
        self.keyed = keyed

    @property
    def operation_id(self) -> str:
        """Unique in the document: a path may have a namesake, but not under the same method."""
        words = "".join(one if one.isalnum() else "_" for one in self.path).strip("_")
        return f"{self.method}_{words}".replace("__", "_")
