"""The server's HTTP interface, in one event loop."""

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from hanse.network.protocol.wire import Problem
from hanse.network.server.answers import Signing, add_refusals
from hanse.network.server.client_routes import client_routes
from hanse.network.server.operator_routes import operator_routes
from hanse.network.server.public_routes import public_routes
from hanse.network.server.server import Server
from hanse.version import __version__

if TYPE_CHECKING:
    from hanse.network.server.monitoring import Meter

__all__ = ["application"]

_PROBLEM = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}}
# One status gives the class, so that the schema has it: FastAPI makes a validator of each, for every route.
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem},
    **dict.fromkeys((403, 404, 405, 408, 409, 410, 411, 413, 422, 426, 429, 503, 507), _PROBLEM),
}


def application(server: Server, meter: "Meter | None" = None) -> FastAPI:
    """Makes the HTTP interface of a server. `meter`: observes its requests."""
    app = FastAPI(title="Hanse", version=__version__, responses=_PROBLEMS, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_middleware(Signing, identity=server.identity)
    if meter is not None:
        from hanse.network.server.monitoring import Metered

        app.add_middleware(Metered, meter=meter)
    add_refusals(app)
    for routes in (public_routes, client_routes, operator_routes):
        app.include_router(routes)
    return app
