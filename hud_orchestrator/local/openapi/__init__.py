"""What the service says about its own HTTP interface, as an OpenAPI 3.1 document.

Endpoint   a route and everything the document says about it, in one place
describe   the document of an application whose routes are endpoints
"""

from hud_orchestrator.local.openapi.document import describe
from hud_orchestrator.local.openapi.endpoint import Endpoint, Query

__all__ = ["Endpoint", "Query", "describe"]
