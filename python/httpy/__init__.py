"""HTTPy: a Python HTTP server library with a Rust core.

from httpy import App

app = App()

@app.get("/")
def index():
    return "Hello, World!"

app.run()
"""

# A name is imported when it is first asked for (`__getattr__` below): whoever only watches over workers, or
# prints a help text, needs neither asyncio nor the rest. mypy knows `TYPE_CHECKING` by its name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._httpy import (
        BlockingWebSocket,
        Certificate,
        Headers,
        MutableHeaders,
        QueryParams,
        Request,
        Response,
        TLSSession,
        WebSocket,
        __version__,
    )
    from .app import App
    from .errors import (
        ClientDisconnected,
        ConfigError,
        HTTPError,
        HTTPyError,
        RouteError,
        WebSocketDisconnect,
    )
    from .hosting import ASGI, WSGI
    from .responses import (
        HTMLResponse,
        JSONResponse,
        PlainTextResponse,
        RedirectResponse,
        ResponseBuilder,
        StreamingResponse,
        accepted,
        bad_request,
        conflict,
        created,
        forbidden,
        no_content,
        not_found,
        ok,
        redirect,
        server_error,
        too_many_requests,
        unauthorized,
    )
    from .routing import Router
    from .server import Server

# In the order of `sorted`, which is not that of isort.
__all__ = [  # noqa: RUF022
    "ASGI",
    "App",
    "BlockingWebSocket",
    "Certificate",
    "ClientDisconnected",
    "ConfigError",
    "HTMLResponse",
    "HTTPError",
    "HTTPyError",
    "Headers",
    "JSONResponse",
    "MutableHeaders",
    "PlainTextResponse",
    "QueryParams",
    "RedirectResponse",
    "Request",
    "Response",
    "ResponseBuilder",
    "RouteError",
    "Router",
    "Server",
    "StreamingResponse",
    "TLSSession",
    "WSGI",
    "WebSocket",
    "WebSocketDisconnect",
    "__version__",
    "accepted",
    "bad_request",
    "conflict",
    "created",
    "forbidden",
    "no_content",
    "not_found",
    "ok",
    "redirect",
    "server_error",
    "too_many_requests",
    "unauthorized",
]

_HOMES = {
    "_httpy": (
        "BlockingWebSocket",
        "Certificate",
        "Headers",
        "MutableHeaders",
        "QueryParams",
        "Request",
        "Response",
        "TLSSession",
        "WebSocket",
        "__version__",
    ),
    "app": ("App",),
    "errors": (
        "ClientDisconnected",
        "ConfigError",
        "HTTPError",
        "HTTPyError",
        "RouteError",
        "WebSocketDisconnect",
    ),
    "hosting": ("ASGI", "WSGI"),
    "responses": (
        "HTMLResponse",
        "JSONResponse",
        "PlainTextResponse",
        "RedirectResponse",
        "ResponseBuilder",
        "StreamingResponse",
        "accepted",
        "bad_request",
        "conflict",
        "created",
        "forbidden",
        "no_content",
        "not_found",
        "ok",
        "redirect",
        "server_error",
        "too_many_requests",
        "unauthorized",
    ),
    "routing": ("Router",),
    "server": ("Server",),
}

if not TYPE_CHECKING:

    def __getattr__(name):
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
