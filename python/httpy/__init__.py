"""HTTPy: a Python HTTP server library with a Rust core.

from httpy import App

app = App()

@app.get("/")
def index():
    return "Hello, World!"

app.run()
"""

from ._httpy import Headers, MutableHeaders, QueryParams, Request, Response, __version__
from .app import App
from .errors import ClientDisconnected, ConfigError, HTTPError, HTTPyError, RouteError, WebSocketDisconnect
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

__all__ = [
    "App",
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
